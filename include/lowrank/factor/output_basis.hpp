/// @file
/// The directions in which the outputs of a linear layer have most energy: one decomposition, from which its spectrum and
/// its factors of every rank come.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
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
/// Directions are in the memory of the executor that found them, energies on the host.
template <memory_space Space>
struct basic_output_basis {
  extents shape;                     ///< of W
  matrix<double, Space> directions;  ///< m x min(m, n) or fewer; orthonormal columns unless there are duals
  matrix<double, Space> duals;  ///< empty, or as many columns with dualsᵀ directions = I: then W' = directions dualsᵀ W
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

using output_basis = basic_output_basis<host_space>;

namespace detail {

template <class E>
using wide_matrix_of = matrix<double, typename E::space>;
template <class E>
using const_wide_view_of = matrix_view<double const, typename E::space>;

/// A in fp64.
template <class E, class A>
[[nodiscard]] wide_matrix_of<E> widened(E& exec, matrix_view<A, typename E::space> a) {
  wide_matrix_of<E> out{a.shape()};
  convert(exec, a, out.view());
  return out;
}
template <class E>
[[nodiscard]] wide_matrix_of<E> product(E& exec, const_wide_view_of<E> a, const_wide_view_of<E> b) {
  wide_matrix_of<E> out{a.rows, b.cols};
  multiply(exec, 1.0, a, b, 0.0, out.view());
  return out;
}
template <class T, memory_space Space>
[[nodiscard]] matrix_view<T const, Space> read(matrix<T, Space> const& a) noexcept {
  return a.view();
}

template <class E>
void check_finite(E& exec, char const* caller, char const* what, const_view_of<E> a) {
  buffer<double, typename E::space> energy{1};
  squared_norm(exec, a, energy.data());
  look_scope const look{exec};
  require(is_finite(exec.peek(energy.data()).value()), caller, "needs finite ", what, ", got NaN or infinity");
}

/// B C Bᵀ, or B Bᵀ where C is empty.
template <class E>
[[nodiscard]] wide_matrix_of<E> congruent(E& exec, const_wide_view_of<E> b, const_wide_view_of<E> c) {
  if (c.empty()) return product(exec, b, b.t());
  auto const left = product(exec, b, c);
  return product(exec, read(left), b.t());
}

/// C becomes (3 I - C) / 2.
template <class E>
void turn_to_newton_step(E& exec, wide_view_of<E> c) {
  exec.team([=] LOWRANK_DEVICE(auto team) {
    team.each(c.size(), [&](index_t at) {
      index_t const i = at / c.cols, j = at - i * c.cols;
      c(i, j) = (i == j ? 1.5 : 0.0) - 0.5 * c(i, j);
    });
  });
}

/// Nearly orthonormal columns Q that span those of a tall W, and the Newton step N of QᵀQ = I: Q N is orthonormal to fp64.
template <memory_space Space>
struct tall_range {
  matrix<double, Space> columns, correction;

  template <class E>
  tall_range(E& exec, const_view_of<E> w) : correction{w.cols, w.cols} {
    matrix<float, Space> narrow{w.shape()};
    copy(exec, w, narrow.view());
    exec.reserve(orthonormalize_bytes(w.shape()));
    orthonormalize(exec, narrow.view(), {.purpose = rng_purpose::completion}, nullptr,
                   {.first_gram = gram_kind::mixed, .last_gram = gram_kind::mixed});
    gram(exec, read(narrow), correction.view());
    turn_to_newton_step(exec, correction.view());
    columns = widened(exec, read(narrow));
  }
};

/// Numbers of the executor's memory, on the host.  Synchronises.
template <class E>
[[nodiscard]] std::vector<double> on_host(E& exec, buffer<double, typename E::space> const& from) {
  std::vector<double> out(static_cast<std::size_t>(from.size()));
  if constexpr (std::same_as<typename E::space, host_space>) std::ranges::copy(from.span(), out.begin());
  else copy_to_host(exec, from.data(), std::as_writable_bytes(std::span{out}));
  return out;
}

/// G becomes its eigenvectors; energies its eigenvalues, without the negative ones that rounding makes.
template <class E>
void decompose_symmetric(E& exec, char const* caller, wide_matrix_of<E>& g, std::vector<double>& energies) {
  exec.reserve(symmetric_eigen_bytes(g.shape().rows));
  buffer<double, typename E::space> values{g.shape().rows};
  buffer<std::int32_t, typename E::space> failed{1};
  symmetric_eigen(exec, g.view(), values.data(), failed.data());
  look_scope const look{exec};
  require(exec.peek(failed.data()).value() == 0, caller, "needs a metric whose products with the matrix are finite");
  energies = on_host(exec, values);
  for (double& e : energies) e = std::max(e, 0.0);
}

/// The first `count` columns of A; A itself where these are all.
template <class E>
[[nodiscard]] wide_matrix_of<E> leading_columns(E& exec, wide_matrix_of<E>&& a, index_t count) {
  if (count == a.shape().cols) return std::move(a);
  wide_matrix_of<E> out{a.shape().rows, count};
  copy(exec, read(a).col_range(0, count), out.view());
  return out;
}

/// N with Y N orthonormal to second order, for the Gram C of nearly orthogonal columns: D (3 I - D C D) / 2, D their
/// reciprocal lengths.
template <class E>
[[nodiscard]] wide_matrix_of<E> orthonormal_step(E& exec, const_wide_view_of<E> c) {
  wide_matrix_of<E> out{c.shape()};
  exec.team([c, n = out.view()] LOWRANK_DEVICE(auto team) {
    team.each(c.size(), [&](index_t at) {
      index_t const i = at / c.cols, j = at - i * c.cols;
      double const length = std::sqrt(c(i, i)), cosine = c(i, j) / (length * std::sqrt(c(j, j)));
      n(i, j) = ((i == j ? 1.5 : 0.0) - 0.5 * cosine) / length;
    });
  });
  return out;
}

/// The `wanted` leading left singular vectors of a tall W by those of its columns' Gram, U = W V / s, and all energies. The
/// Gram leaves columns of U the less orthogonal the shorter their W v are: a Newton step brings 1e-7 to fp64, and where s falls
/// below 1e-3 of the largest, the answer is false.
template <class E>
[[nodiscard]] bool find_directions_by_columns(E& exec, char const* caller, const_view_of<E> w, index_t wanted,
                                              basic_output_basis<typename E::space>& out) {
  wide_matrix_of<E> right{w.cols, w.cols};
  gram(exec, w, right.view());
  decompose_symmetric(exec, caller, right, out.energies);
  if (!(out.energies[static_cast<std::size_t>(wanted - 1)] > 1e-6 * out.energies.front())) return false;
  auto const left = product(exec, read(widened(exec, w)), read(right).col_range(0, wanted));
  auto const lengths = product(exec, read(left).t(), read(left));
  out.directions = product(exec, read(left), read(orthonormal_step(exec, read(lengths))));
  return true;
}

}  // namespace detail

/// The basis of the outputs of W. A tall W is first written as Q R, Q orthonormal, and R C Rᵀ is decomposed, n x n: nothing is
/// ever inverted, so C may be singular (fewer samples than features), and a basis of all min(m, n) directions holds all of W.
/// Without a metric, the directions of a tall W are those of its columns' Gram where that has them accurately.
/// Shapes: W m x n; metric n x n, symmetric and positive semidefinite, or empty for I.
/// most: leading directions that are wanted, of min(m, n); the energies are all there in any case.
/// Cost: 2 m n (n + m) + 9 min(m, n)³ flops in fp64; allocates a few copies of its arguments, and scratch.
/// Synchronises: on a device, for what it finds.
/// Throws: shape_error; argument_error for NaN or infinity, or no direction.
template <class E>
[[nodiscard]] basic_output_basis<typename E::space> find_output_basis(E& exec, const_view_of<E> w,
                                                                      detail::const_wide_view_of<E> metric = {},
                                                                      index_t most = every_direction) {
  constexpr auto* caller = "find_output_basis";
  require<shape_error>(metric.data == nullptr || metric.shape() == extents{w.cols, w.cols}, caller,
                       "needs a metric of ", extents{w.cols, w.cols}, ", got ", metric.shape());
  require(most >= 1, caller, "most must be >= 1, got ", most);
  detail::check_finite(exec, caller, "weights", w);
  index_t const wanted = std::min({most, w.rows, w.cols});
  basic_output_basis<typename E::space> out{.shape = w.shape(), .directions = {}, .duals = {}, .energies = {}};
  if (w.rows <= w.cols) {
    detail::wide_matrix_of<E> turn{w.rows, w.rows};
    if (metric.empty()) gram(exec, w.t(), turn.view());
    else turn = detail::congruent(exec, detail::read(detail::widened(exec, w)), metric);
    detail::decompose_symmetric(exec, caller, turn, out.energies);
    out.directions = detail::leading_columns(exec, std::move(turn), wanted);
    return out;
  }
  if (metric.empty() && wanted > 0 && detail::find_directions_by_columns(exec, caller, w, wanted, out)) return out;
  detail::tall_range<typename E::space> const q{exec, w};
  auto const inner = detail::product(exec, detail::read(q.columns).t(), detail::read(detail::widened(exec, w)));
  auto const r = detail::product(exec, detail::read(q.correction), detail::read(inner));
  auto turn = detail::congruent(exec, detail::read(r), metric);
  detail::decompose_symmetric(exec, caller, turn, out.energies);
  turn = detail::product(exec, detail::read(q.correction), detail::read(turn).col_range(0, wanted));
  out.directions = detail::product(exec, detail::read(q.columns), detail::read(turn));
  return out;
}

}  // namespace lowrank
