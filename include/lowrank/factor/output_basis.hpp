/// @file
/// The directions in which the outputs of a linear layer have most energy: one decomposition, from which its spectrum and
/// its factors of every rank come.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/orthonormalize.hpp"
#include "lowrank/linalg/rayleigh_ritz.hpp"  // symmetric_eigen_bytes
#include "lowrank/linalg/reductions.hpp"
#include "lowrank/spectrum/spectrum.hpp"

namespace lowrank {

/// For `most`: no fewer than there are.
inline constexpr index_t every_direction = std::numeric_limits<index_t>::max();

/// Eigenvectors of W C Wᵀ, C a metric of the inputs: their second moment, their covariance, or I. W' = U Uᵀ W with the first
/// r of them is the matrix of rank r with the least E‖W x - W' x‖², and that loss is the sum of the other eigenvalues.
struct output_basis {
  extents shape;              ///< of W
  matrix<double> directions;  ///< m x min(m, n), or as many as were wanted; orthonormal columns unless there are duals
  matrix<double> duals;  ///< empty, or as many columns with dualsᵀ directions = I: then W' = directions dualsᵀ W
  std::vector<double> energies;  ///< eigenvalues, descending, >= 0

  [[nodiscard]] index_t most() const noexcept { return directions.shape().cols; }
  /// Singular values of W C^1/2; those of W for C = I.
  [[nodiscard]] spectrum values() const {
    spectrum out{.shape = shape, .values = {}, .whole = 0};
    for (double const e : energies) out.values.push_back(std::sqrt(e));
    return out;
  }
  /// E‖W x - W' x‖² at rank r, in the metric that was decomposed.
  [[nodiscard]] double loss(index_t r) const noexcept {
    double sum = 0;
    for (auto i = energies.size(); i > static_cast<std::size_t>(r);) sum += energies[--i];
    return sum;
  }
  [[nodiscard]] index_t bytes() const noexcept {
    return directions.bytes() + duals.bytes() + 8 * static_cast<index_t>(energies.size());
  }
};

namespace detail {

/// A in fp64.
template <class E, class A>
[[nodiscard]] matrix<double> widened(E& exec, matrix_view<A> a) {
  matrix<double> out{a.shape()};
  convert(exec, a, out.view());
  return out;
}
template <class E>
[[nodiscard]] matrix<double> product(E& exec, matrix_view<double const> a, matrix_view<double const> b) {
  matrix<double> out{a.rows, b.cols};
  multiply(exec, 1.0, a, b, 0.0, out.view());
  return out;
}
template <class T>
[[nodiscard]] matrix_view<T const> read(matrix<T> const& a) noexcept {
  return a.view();
}

template <class E>
void check_finite(E& exec, char const* caller, char const* what, matrix_view<float const> a) {
  double energy = 0;
  squared_norm(exec, a, &energy);
  require(is_finite(energy), caller, "needs finite ", what, ", got NaN or infinity");
}

/// B C Bᵀ, or B Bᵀ where C is empty.
template <class E>
[[nodiscard]] matrix<double> congruent(E& exec, matrix_view<double const> b, matrix_view<double const> c) {
  if (c.empty()) return product(exec, b, b.t());
  auto const left = product(exec, b, c);
  return product(exec, read(left), b.t());
}

/// Nearly orthonormal columns Q that span those of a tall W, and the Newton step N of QᵀQ = I: Q N is orthonormal to fp64.
struct tall_range {
  matrix<double> columns, correction;

  template <class E>
  tall_range(E& exec, const_view_of<E> w) : correction{w.cols, w.cols} {
    matrix<float> narrow{w.shape()};
    copy(exec, w, narrow.view());
    exec.reserve(orthonormalize_bytes(w.shape()));
    orthonormalize(exec, narrow.view(), {.purpose = rng_purpose::completion}, nullptr,
                   {.first_gram = gram_kind::mixed, .last_gram = gram_kind::mixed});
    gram(exec, read(narrow), correction.view());
    for (index_t i = 0; i < w.cols; ++i)
      for (index_t j = 0; j < w.cols; ++j) correction(i, j) = (i == j ? 1.5 : 0.0) - 0.5 * correction(i, j);
    columns = widened(exec, read(narrow));
  }
};

/// G becomes its eigenvectors; energies its eigenvalues, without the negative ones that rounding makes.
template <class E>
void decompose_symmetric(E& exec, char const* caller, matrix<double>& g, std::vector<double>& energies) {
  exec.reserve(symmetric_eigen_bytes(g.shape().rows));
  energies.assign(static_cast<std::size_t>(g.shape().rows), 0.0);
  std::int32_t failed = 0;
  symmetric_eigen(exec, g.view(), energies.data(), &failed);
  require(failed == 0, caller, "needs a metric whose products with the matrix are finite");
  for (double& e : energies) e = std::max(e, 0.0);
}

/// The first `count` columns of A; A itself where these are all.
[[nodiscard]] inline matrix<double> leading_columns(matrix<double>&& a, index_t count) {
  if (count == a.shape().cols) return std::move(a);
  matrix<double> out{a.shape().rows, count};
  for (index_t i = 0; i < out.shape().rows; ++i)
    for (index_t j = 0; j < count; ++j) out(i, j) = a(i, j);
  return out;
}

/// The `wanted` leading left singular vectors of a tall W by those of its columns' Gram, U = W V / s, and all energies. The
/// Gram leaves columns of U the less orthogonal the shorter their W v are: a Newton step brings 1e-7 to fp64, and where s falls
/// below 1e-3 of the largest, the answer is false.
template <class E>
[[nodiscard]] bool find_directions_by_columns(E& exec, char const* caller, const_view_of<E> w, index_t wanted,
                                              output_basis& out) {
  matrix<double> right{w.cols, w.cols};
  gram(exec, w, right.view());
  decompose_symmetric(exec, caller, right, out.energies);
  if (!(out.energies[static_cast<std::size_t>(wanted - 1)] > 1e-6 * out.energies.front())) return false;
  auto left = product(exec, read(widened(exec, w)), read(right).col_range(0, wanted));
  auto correction = product(exec, read(left).t(), read(left));
  std::vector<double> length;
  for (index_t k = 0; k < wanted; ++k) length.push_back(std::sqrt(correction(k, k)));
  for (index_t j = 0; j < wanted; ++j)
    for (index_t k = 0; k < wanted; ++k) {
      double const cosine =
          correction(j, k) / (length[static_cast<std::size_t>(j)] * length[static_cast<std::size_t>(k)]);
      correction(j, k) = ((j == k ? 1.5 : 0.0) - 0.5 * cosine) / length[static_cast<std::size_t>(j)];
    }
  out.directions = product(exec, read(left), read(correction));
  return true;
}

}  // namespace detail

/// The basis of the outputs of W. A tall W is first written as Q R, Q orthonormal, and R C Rᵀ is decomposed, n x n: nothing is
/// ever inverted, so C may be singular (fewer samples than features), and a basis of all min(m, n) directions holds all of W.
/// Without a metric, the directions of a tall W are those of its columns' Gram where that has them accurately.
/// Shapes: W m x n; metric n x n, symmetric and positive semidefinite, or empty for I.
/// most: leading directions that are wanted, of min(m, n); the energies are all there in any case.
/// Cost: 2 m n (n + m) + 9 min(m, n)³ flops in fp64; allocates a few copies of its arguments, and scratch.
/// Throws: shape_error; argument_error for NaN or infinity, or no direction.
template <class E>
[[nodiscard]] output_basis find_output_basis(E& exec, const_view_of<E> w,
                                             std::type_identity_t<matrix_view<double const>> metric = {},
                                             index_t most = every_direction) {
  constexpr auto* caller = "find_output_basis";
  require<shape_error>(metric.data == nullptr || metric.shape() == extents{w.cols, w.cols}, caller,
                       "needs a metric of ", extents{w.cols, w.cols}, ", got ", metric.shape());
  require(most >= 1, caller, "most must be >= 1, got ", most);
  detail::check_finite(exec, caller, "weights", w);
  output_basis out{.shape = w.shape(), .directions = {}, .duals = {}, .energies = {}};
  index_t const wanted = std::min({most, w.rows, w.cols});
  if (w.rows <= w.cols) {
    matrix<double> turn{w.rows, w.rows};
    if (metric.empty()) gram(exec, w.t(), turn.view());
    else turn = detail::congruent(exec, detail::read(detail::widened(exec, w)), metric);
    detail::decompose_symmetric(exec, caller, turn, out.energies);
    out.directions = detail::leading_columns(std::move(turn), wanted);
    return out;
  }
  if (metric.empty() && wanted > 0 && detail::find_directions_by_columns<E>(exec, caller, w, wanted, out)) return out;
  detail::tall_range const q{exec, w};
  auto const inner = detail::product(exec, detail::read(q.columns).t(), detail::read(detail::widened(exec, w)));
  auto const r = detail::product(exec, detail::read(q.correction), detail::read(inner));
  auto turn = detail::congruent(exec, detail::read(r), metric);
  detail::decompose_symmetric(exec, caller, turn, out.energies);
  turn = detail::product(exec, detail::read(q.correction), detail::read(turn).col_range(0, wanted));
  out.directions = detail::product(exec, detail::read(q.columns), detail::read(turn));
  return out;
}

}  // namespace lowrank
