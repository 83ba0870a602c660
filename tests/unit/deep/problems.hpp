// Targets of known rank, and what tests of deep matrices ask about them.
#pragma once

#include <vector>

#include "lowrank/deep/training.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

namespace deep = lowrank::deep;

/// Φ = U diag(s) Vᵀ in fp64, with s near `top`, and the seeds that name it.
inline matrix<double> low_rank_target(extents shape, index_t r, double top, std::uint64_t seed = 5) {
  auto const u = orthonormal_columns(shape.rows, r, seed), v = orthonormal_columns(shape.cols, r, seed + 1);
  matrix<double> out{shape};
  for (index_t c = 0; c < r; ++c) {
    double const s = top * (1 - 0.05 * static_cast<double>(c) / static_cast<double>(r));
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) out(i, j) += s * u(c, i) * v(c, j);
  }
  return out;
}
/// Each element is observed with probability `share`.
template <class T>
std::vector<deep::observation<T>> observed(matrix<double> const& phi, double share, std::uint64_t seed = 9) {
  std::vector<deep::observation<T>> out;
  for (index_t i = 0; i < phi.shape().rows; ++i)
    for (index_t j = 0; j < phi.shape().cols; ++j)
      if (lowrank::uniform({.seed = seed}, static_cast<std::uint64_t>(i * phi.shape().cols + j)) <= share)
        out.push_back({i, j, static_cast<T>(phi(i, j))});
  return out;
}
template <class T>
matrix<T> cast(matrix<double> const& from) {
  matrix<T> out{from.shape()};
  for (index_t e = 0; e < from.shape().size(); ++e) out.data()[e] = static_cast<T>(from.data()[e]);
  return out;
}
/// W, in plain loops.
template <class T>
matrix<double> product_of(deep::deep_matrix<T> const& w) {
  matrix<double> out{w.factor(0).values.shape()};
  for (index_t e = 0; e < out.shape().size(); ++e) out.data()[e] = static_cast<double>(w.factor(0).values.data()[e]);
  for (std::size_t k = 1; k < w.factor_count(); ++k) out = plain_product(w.factor(k).values.view(), out.view());
  if (w.has_offsets())
    for (index_t i = 0; i < out.shape().rows; ++i)
      for (index_t j = 0; j < out.shape().cols; ++j)
        out(i, j) += static_cast<double>(w.mean() + w.at(w.factor_count()).values(i, 0) +
                                         w.at(w.factor_count() + 1).values(0, j));
  return out;
}
inline double relative_error(matrix<double> const& a, matrix<double> const& b) {
  double sum = 0;
  for (index_t e = 0; e < a.shape().size(); ++e) sum += std::pow(a.data()[e] - b.data()[e], 2);
  return std::sqrt(sum / squared_norm_of(b.view()));
}
/// The last loss of so many steps.
template <class T, class Rule = lowrank::rule::plain_sgd, class E, class Target>
double train(E& exec, deep::deep_matrix<T>& w, Target const& target, double rate, int steps, double decay = 0,
             Rule rule = {}) {
  deep::trainer<T, Rule> by{exec, w, rule};
  double last = 0;
  for (int t = 0; t < steps; ++t) last = by.step(exec, w, target, rate, decay);
  return last;
}

}  // namespace lowrank_test
