#pragma once

#include "lowrank/linalg/orthonormalize.hpp"
#include "lowrank/linalg/scale_to_unit.hpp"

namespace lowrank::detail {

/// Householder vectors V (columns) and upper triangular T with (I - V T Vᵀ)ᵀ X = [0; R] for l x p orthonormal X: the
/// first l - p columns of I - V T Vᵀ span what X does not. X is a few columns.
template <class Team, memory_space S>
LOWRANK_HD void reflect_to_bottom(Team const& team, matrix_view<double, S> x, matrix_view<float, S> v,
                                  matrix_view<float, S> t) {
  index_t const l = x.rows, p = x.cols;
  for (index_t k = 0; k < p; ++k) {
    // Column p - 1 - k of X goes to row l - 1 - k; what lies below that row is done already.
    index_t const column = p - 1 - k, last = l - 1 - k;
    double const norm = std::sqrt(team.sum(last + 1, [=](index_t i) { return x(i, column) * x(i, column); }));
    double const head = team.sum(1, [=](index_t) { return x(last, column); });  // before anybody writes it
    double const target = head > 0 ? -norm : norm;
    double const length = 2 * norm * (norm + std::abs(head));  // squared, of x - target e
    bool const nothing = !(length > 0);
    double const scale = nothing ? 0 : std::sqrt(2 / length);
    team.each(1, [=](index_t) { x(last, column) = head - target; });
    team.each(l, [=](index_t i) { x(i, column) = i <= last ? x(i, column) * scale : 0; });
    for (index_t other = 0; other < column; ++other) {
      double const dot = team.sum(last + 1, [=](index_t i) { return x(i, column) * x(i, other); });
      team.each(last + 1, [=](index_t i) { x(i, other) -= dot * x(i, column); });
    }
    // H_1 ... H_k = I - V T Vᵀ with unit T(k, k), because the vectors have length sqrt(2).
    team.each(l, [=](index_t i) { v(i, k) = static_cast<float>(x(i, column)); });
    for (index_t a = 0; a < k; ++a) {
      double sum = 0;
      for (index_t b = a; b < k; ++b)
        sum += static_cast<double>(t(a, b)) *
               team.sum(l, [=](index_t i) { return static_cast<double>(v(i, b)) * static_cast<double>(v(i, k)); });
      team.each(1, [=](index_t) {
        t(a, k) = static_cast<float>(-sum);
        t(k, a) = 0;
      });
    }
    team.each(1, [=](index_t) { t(k, k) = nothing ? 0.0F : 1.0F; });
  }
}

/// Orthonormal columns in fp64 by Gram-Schmidt, twice; what is dependent becomes zero. X is a few columns.
template <class Team, memory_space S>
LOWRANK_HD void orthonormalize_few(Team const& team, matrix_view<double, S> x) {
  for (index_t k = 0; k < x.cols; ++k)
    for (int twice = 0; twice < 2; ++twice) {
      for (index_t b = 0; b < k; ++b) {
        double const dot = team.sum(x.rows, [=](index_t i) { return x(i, b) * x(i, k); });
        team.each(x.rows, [=](index_t i) { x(i, k) -= dot * x(i, b); });
      }
      double const norm = team.sum(x.rows, [=](index_t i) { return x(i, k) * x(i, k); });
      double const inverse = norm > 0 ? 1 / std::sqrt(norm) : 0;
      team.each(x.rows, [=](index_t i) { x(i, k) *= inverse; });
    }
}

/// Scratch of `drop_weakest`.
[[nodiscard]] constexpr index_t drop_weakest_bytes(extents y, index_t r) noexcept {
  index_t const l = y.cols, p = l - r;
  if (p <= 0 || y.rows == 0) return 0;
  index_t const factor = scratch_bytes<double>(l * l) + scratch_bytes<double>(l) + scratch_bytes<gram_condition>(1) +
                         scratch_bytes<std::int32_t>(1);
  return scratch_bytes<float>(y.size()) + scratch_bytes<unit_scale>(1) + 2 * scratch_bytes<double>(l * p) +
         std::max(factor + scratch_bytes<float>(l * l), scratch_bytes<float>(l * p) + scratch_bytes<float>(p * p) +
                                                            scratch_bytes<float>(p * r) +
                                                            scratch_bytes<float>(y.rows * p));
}

/// q spans the r strongest directions of Y = U S Vᵀ (m x l), those of largest s: roughly orthonormal columns, each
/// nearly a combination of the columns of Y before it. Y is overwritten.
/// Inverse iteration on R of Y = Q R finds the l - r weakest, without the eigenvectors of an l x l matrix; in fp64, because
/// it works with squares of what may differ by 1e7.
/// Cost: 3.5 m l² + 4 m l (l - r) flops.
template <class E>
void drop_weakest(E& exec, view_of<E> y, view_of<E> q, rng_key const& fresh) {
  using space = typename E::space;
  index_t const l = y.cols, r = q.cols, p = l - r;
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const rough = take_like(exec, y);
  auto* const seen = arena.template take<unit_scale>(1);
  auto const x = row_major<space>(arena.template take<double>(l * p), {l, p});
  auto const between = row_major<space>(arena.template take<double>(l * p), {l, p});
  scale_to_unit(exec, y, seen);
  {
    scratch_scope const factor{exec};
    auto const c = row_major<space>(arena.template take<double>(l * l), {l, l});
    auto* const scales = arena.template take<double>(l);
    auto* const condition = arena.template take<gram_condition>(1);
    auto* const bad_pivot = arena.template take<std::int32_t>(1);
    auto const w = row_major<space>(arena.template take<float>(l * l), {l, l}).t();
    // One scale for all columns, because their lengths tell weak from strong.
    scaled_gram<E> const sum{y, c, scales, condition, gram_kind::wide};
    sum.sum_up(exec, 1e-24);
    sum.factor(exec, bad_pivot);
    invert_lower(exec, c);
    narrow_inverse(exec, c, scales, w);
    multiply_upper(exec, const_view_of<E>(y), const_view_of<E>(w), rough);
    replace_columns(exec, fresh, 0, scales, rough);
    // R⁻¹ = D L⁻ᵀ, (R Rᵀ)⁻¹ = L⁻¹ D² L⁻ᵀ. What Y did not provide is weaker than anything that it did. The last p columns,
    // mostly fresh ones, are the first guess, with a little of everything in it: the weakest may be orthogonal to those.
    exec.team([=] LOWRANK_DEVICE(auto team) {
      double const most = team.most(l, 1.0, [=](index_t j) { return scales[j] * c(j, j); });
      team.each(l, [=](index_t j) {
        double const weight = scales[j] > 0 ? scales[j] : 16 * most;
        scales[j] = weight * weight;
      });
      team.each(l * p, [=](index_t at) {
        double const guess = uniform(fresh, static_cast<std::uint64_t>(at));
        x(at / p, at % p) = (at / p == r + at % p ? 1 : 0) + 0.1 * guess - 0.05;
      });
    });
    for (int step = 0; step < 8; ++step) {
      multiply(exec, 1.0, c.t(), x, 0.0, between);
      exec.team([=] LOWRANK_DEVICE(auto team) {
        team.each(l * p, [=](index_t at) { between(at / p, at % p) *= scales[at / p]; });
      });
      multiply(exec, 1.0, c, between, 0.0, x);
      exec.team([=] LOWRANK_DEVICE(auto team) { orthonormalize_few(team, x); });
    }
  }
  auto const v = take_matrix(exec, {l, p}), t = take_matrix(exec, {p, p}), tail = take_matrix(exec, {p, r});
  auto const inner = take_matrix(exec, {y.rows, p});
  exec.team([=] LOWRANK_DEVICE(auto team) { reflect_to_bottom(team, x, v, t); });
  multiply(exec, 1.0F, t, v.row_range(0, r).t(), 0.0F, tail);
  multiply(exec, 1.0F, rough, v, 0.0F, inner);
  copy(exec, rough.col_range(0, r), q);
  multiply(exec, -1.0F, inner, tail, 1.0F, q);
}

}  // namespace lowrank::detail
