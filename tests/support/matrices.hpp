// Test matrices with known properties, and the plain fp64 loops that results are held against.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank_test {

using lowrank::extents;
using lowrank::index_t;
using lowrank::matrix;
using lowrank::matrix_view;

inline constexpr double eps = std::numeric_limits<float>::epsilon();

/// Standard normal entries.
inline matrix<float> random_matrix(extents shape, std::uint64_t seed) {
  matrix<float> a{shape};
  for (index_t e = 0; e < shape.size(); ++e)
    a.data()[e] = lowrank::gaussian({.seed = seed}, static_cast<std::uint64_t>(e));
  return a;
}

inline matrix<float> copy_of(matrix_view<float const> a) {
  matrix<float> out{a.shape()};
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) out(i, j) = a(i, j);
  return out;
}

/// m x k orthonormal columns in fp64: Gram-Schmidt, twice, on a random matrix.
inline matrix<double> orthonormal_columns(index_t m, index_t k, std::uint64_t seed) {
  matrix<double> q{k, m};  // columns as rows, so that loops run along memory
  for (index_t c = 0; c < k; ++c) {
    double* const x = q.data() + c * m;
    for (index_t i = 0; i < m; ++i)
      x[i] = static_cast<double>(lowrank::gaussian({.seed = seed}, static_cast<std::uint64_t>(c * m + i)));
    for (int twice = 0; twice < 2; ++twice)
      for (index_t b = 0; b < c; ++b) {
        double const* const y = q.data() + b * m;
        double sum = 0;
        for (index_t i = 0; i < m; ++i) sum += x[i] * y[i];
        for (index_t i = 0; i < m; ++i) x[i] -= sum * y[i];
      }
    double norm = 0;
    for (index_t i = 0; i < m; ++i) norm += x[i] * x[i];
    for (index_t i = 0; i < m; ++i) x[i] /= std::sqrt(norm);
  }
  return q;
}

/// U diag(s) Vᵀ with random orthonormal U, V: singular values s, known without an SVD.
inline matrix<float> with_spectrum(extents shape, std::vector<double> const& s, std::uint64_t seed) {
  auto const k = static_cast<index_t>(s.size());
  auto const u = orthonormal_columns(shape.rows, k, seed), v = orthonormal_columns(shape.cols, k, seed + 1);
  matrix<double> sum{shape};
  for (index_t c = 0; c < k; ++c)
    for (index_t i = 0; i < shape.rows; ++i) {
      double const weight = u(c, i) * s[static_cast<std::size_t>(c)];
      for (index_t j = 0; j < shape.cols; ++j) sum(i, j) += weight * v(c, j);
    }
  matrix<float> a{shape};
  for (index_t e = 0; e < shape.size(); ++e) a.data()[e] = static_cast<float>(sum.data()[e]);
  return a;
}

/// s_i = i^-power.
inline std::vector<double> power_law(index_t count, double power) {
  std::vector<double> s;
  for (index_t i = 1; i <= count; ++i) s.push_back(std::pow(static_cast<double>(i), -power));
  return s;
}
/// s_i from 1 down to 1 / condition, geometrically.
inline std::vector<double> geometric(index_t count, double condition) {
  std::vector<double> s;
  for (index_t i = 0; i < count; ++i)
    s.push_back(std::pow(condition, -static_cast<double>(i) / static_cast<double>(std::max<index_t>(count - 1, 1))));
  return s;
}
/// Sum of squares of s[begin, end).
inline double energy(std::vector<double> const& s, index_t begin, index_t end) {
  double sum = 0;
  for (index_t i = begin; i < std::min<index_t>(end, static_cast<index_t>(s.size())); ++i)
    sum += s[static_cast<std::size_t>(i)] * s[static_cast<std::size_t>(i)];
  return sum;
}

/// ‖QᵀQ - I‖_F in fp64 loops.
template <class T>
double departure_from_orthonormal(matrix_view<T> q) {
  double sum = 0;
  for (index_t a = 0; a < q.cols; ++a)
    for (index_t b = 0; b <= a; ++b) {
      double dot = a == b ? -1 : 0;
      for (index_t i = 0; i < q.rows; ++i) dot += static_cast<double>(q(i, a)) * static_cast<double>(q(i, b));
      sum += (a == b ? 1 : 2) * dot * dot;
    }
  return std::sqrt(sum);
}

/// A B in fp64 loops.
template <class A, class B>
matrix<double> plain_product(matrix_view<A> a, matrix_view<B> b) {
  matrix<double> c{a.rows, b.cols};
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t k = 0; k < a.cols; ++k) {
      auto const x = static_cast<double>(a(i, k));
      for (index_t j = 0; j < b.cols; ++j) c(i, j) += x * static_cast<double>(b(k, j));
    }
  return c;
}

template <class T>
double squared_norm_of(matrix_view<T> a) {
  double sum = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) sum += static_cast<double>(a(i, j)) * static_cast<double>(a(i, j));
  return sum;
}

/// ‖QᵀA‖_F², in fp64 loops.
inline double captured_energy(matrix_view<float const> q, matrix_view<float const> a) {
  auto const b = plain_product(q.t(), a);
  return squared_norm_of(b.view());
}

/// ‖G - QQᵀG‖_F / ‖G‖_F in fp64 loops.
inline double true_error(matrix_view<float const> q, matrix_view<float const> g) {
  auto const inside = plain_product(q.t(), g);
  auto const back = plain_product(q, inside.view());
  double sum = 0;
  for (index_t i = 0; i < g.rows; ++i)
    for (index_t j = 0; j < g.cols; ++j) sum += std::pow(static_cast<double>(g(i, j)) - back(i, j), 2);
  return std::sqrt(sum / squared_norm_of(g));
}

template <class A, class B>
double largest_difference(matrix_view<A> a, matrix_view<B> b) {
  double worst = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j)
      worst = std::max(worst, std::abs(static_cast<double>(a(i, j)) - static_cast<double>(b(i, j))));
  return worst;
}

template <class T>
bool same_bits(matrix<T> const& a, matrix<T> const& b) {
  return a.shape() == b.shape() && std::equal(reinterpret_cast<std::byte const*>(a.data()),
                                              reinterpret_cast<std::byte const*>(a.data()) + a.bytes(),
                                              reinterpret_cast<std::byte const*>(b.data()));
}

/// m x n with two strides larger than one, holding what `a` holds: neither a row nor a column is contiguous.
class strided_copy {
 public:
  explicit strided_copy(matrix_view<float const> a) : storage_{2 * a.rows, 3 * a.cols}, shape_{a.shape()} {
    for (index_t i = 0; i < a.rows; ++i)
      for (index_t j = 0; j < a.cols; ++j) view()(i, j) = a(i, j);
  }
  matrix_view<float> view() { return {storage_.data(), shape_.rows, shape_.cols, 6 * shape_.cols, 3}; }

 private:
  matrix<float> storage_;
  extents shape_;
};

/// Columns that orthonormalisation finds hard, and what is known about them.
struct hard_columns {
  std::string name;
  matrix<float> y;
};

inline std::vector<hard_columns> hard_cases(index_t m, index_t r) {
  std::vector<hard_columns> cases;
  auto const add = [&](std::string name, auto const& element) {
    matrix<float> y{m, r};
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < r; ++j) y(i, j) = element(i, j);
    cases.push_back({std::move(name), std::move(y)});
  };
  auto const base = random_matrix({m, r}, 11);
  for (double const condition : {1e2, 1e4, 1e6, 1e8, 1e12, 1e20})
    cases.push_back({"condition " + std::to_string(condition), with_spectrum({m, r}, geometric(r, condition), 5)});
  cases.push_back({"rank 4", with_spectrum({m, r}, power_law(std::min<index_t>(4, r), 0.5), 6)});
  add("rank 1", [&](index_t i, index_t j) { return base(i, 0) * static_cast<float>(j + 1); });
  add("equal columns", [&](index_t i, index_t) { return base(i, 0); });
  add("equal columns, bf16", [&](index_t i, index_t) { return lowrank::to_bf16(base(i, 0)).value(); });
  add("duplicated half", [&](index_t i, index_t j) { return base(i, j % std::max<index_t>(r / 2, 1)); });
  add("zero", [&](index_t, index_t) { return 0.0F; });
  add("half zero", [&](index_t i, index_t j) { return j % 2 == 0 ? base(i, j) : 0.0F; });
  add("one entry 1e-20", [&](index_t i, index_t j) { return i == 3 % m && j == 0 ? 1e-20F : 0.0F; });
  add("one column 1e-20", [&](index_t i, index_t j) { return j == r / 2 ? base(i, j) * 1e-20F : base(i, j); });
  add("graded to 1e-30", [&](index_t i, index_t j) {
    return static_cast<float>(base(i, j) * std::pow(10.0, -30.0 * static_cast<double>(j) / static_cast<double>(r)));
  });
  add("elements 1e18", [&](index_t i, index_t j) { return base(i, j) * 1e18F; });
  add("elements 1e-30", [&](index_t i, index_t j) { return base(i, j) * 1e-30F; });
  add("largest floats",
      [&](index_t i, index_t j) { return std::copysign(std::numeric_limits<float>::max(), base(i, j)); });
  add("subnormal", [&](index_t i, index_t j) { return base(i, j) * 1e-40F; });
  add("identity", [&](index_t i, index_t j) { return i == j ? 1.0F : 0.0F; });
  add("nearly parallel", [&](index_t i, index_t j) { return base(i, 0) + 1e-6F * base(i, j); });
  return cases;
}

}  // namespace lowrank_test
