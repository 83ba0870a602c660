#pragma once

#include <cmath>

#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/linalg/scale_to_unit.hpp"

namespace lowrank::detail {

/// What one probe of the complement of span(P) says about A = GGᵀ there, and the shift s that follows: (A - s I) P is
/// turned from what P misses faster than A P, at no product's cost. In the executor's memory space.
struct tail_shift {
  double probe{};       ///< ‖f‖², f random in the complement
  double first{};       ///< ‖Gᵀf‖²
  double second{};      ///< ‖(I - PPᵀ) G Gᵀ f‖², of Gᵀf divided by 2^scaled.exponent
  unit_scale scaled{};  ///< of Gᵀf
  double value{};       ///< s
  float coefficient{};  ///< -s in the units of the products at hand
};

/// Scratch of a shift for blocks of l columns, and while the complement is probed.
[[nodiscard]] constexpr index_t tail_shift_bytes(index_t l) noexcept {
  return scratch_bytes<tail_shift>(1) + scratch_bytes<double>(l);
}
[[nodiscard]] constexpr index_t probe_tail_bytes(extents g, index_t k, index_t tokens) noexcept {
  if (k >= g.rows) return 0;
  return scratch_bytes<float>(g.rows) + scratch_bytes<float>(k) + scratch_bytes<float>(g.cols) +
         gradient_product_bytes(tokens, 1);
}

/// y <- (I - PPᵀ) y; inner is scratch of k x 1.
template <class E>
void remove_span(E& exec, const_view_of<E> p, view_of<E> y, view_of<E> inner) {
  if (p.cols == 0) return;
  multiply(exec, 1.0F, p.t(), y, 0.0F, inner);
  multiply(exec, -1.0F, p, inner, 1.0F, y);
}

/// Two products of G with one vector: the first two moments of A's eigenvalues as the complement of span(P) weighs them.
/// Cost: 4 m n + 8 m k flops; G is read twice.
template <class E, class G>
void probe_tail(E& exec, G const& g, const_view_of<E> p, rng_key key, tail_shift* seen) {
  exec.single([=] LOWRANK_DEVICE { *seen = {}; });
  auto const [m, n] = g.shape();
  if (p.cols >= m) return;
  scratch_scope const scope{exec};
  auto const f = take_matrix(exec, {m, 1}), inner = take_matrix(exec, {p.cols, 1}), image = take_matrix(exec, {n, 1});
  key.purpose = rng_purpose::probe;
  fill_rademacher(exec, key, f);
  scale(exec, static_cast<float>(1 / std::sqrt(static_cast<double>(m))), f);
  remove_span(exec, p, f, inner);
  squared_norm(exec, const_view_of<E>(f), &seen->probe);
  multiply(exec, 1.0F, g.t(), f, 0.0F, image);
  squared_norm(exec, const_view_of<E>(image), &seen->first);
  scale_to_unit(exec, image, &seen->scaled);  // its product with G would hold squares
  multiply(exec, 1.0F, g, image, 0.0F, f);
  remove_span(exec, p, f, inner);
  squared_norm(exec, const_view_of<E>(f), &seen->second);
}

/// The shift, from the energies of the columns of Z = 2^-e Gᵀ X, e = scaled->exponent. With the mean a and the mean of
/// squares b of the eigenvalues outside of P, sum (λ - s)² / (t - s)² over them, what they keep of their part beside an
/// eigenvalue t inside, is least at s = (a t - b) / (t - a); nothing where the outside is of few large eigenvalues. t is
/// that of the weaker columns, where nearly all of the loss is. Half of the smallest column at most: where that is the smallest
/// Ritz value, none falls.
template <class E>
void choose_shift(E& exec, const_view_of<E> z, unit_scale const* scaled, double* energies, tail_shift* seen) {
  index_t const n = z.rows, l = z.cols;
  row_mean_squares(exec, z.t(),
                   [=] LOWRANK_DEVICE(index_t j, double mean) { energies[j] = mean * static_cast<double>(n); });
  exec.team([=] LOWRANK_DEVICE(auto team) {
    double const unit = std::ldexp(1.0, 2 * scaled->exponent);
    double const least = -unit * team.most(l, -std::ldexp(1.0, 1000), [=](index_t j) { return -energies[j]; });
    team.each(1, [=](index_t) {
      constexpr double weaker = 1.5;
      double const t = weaker * least;
      double const mean = seen->first / seen->probe;
      double const square = seen->second * std::ldexp(1.0, 2 * seen->scaled.exponent) / seen->probe;
      bool const inside = seen->probe > 0 && t > mean;  // also false where anything is NaN
      double const best = inside ? (mean * t - square) / (t - mean) : 0;
      seen->value = best > 0 ? (best < least / 2 ? best : least / 2) : 0;
    });
  });
}

/// X <- -s 2^-e X, to be added to G (2^-e Gᵀ X).
template <class E>
void scale_by_shift(E& exec, view_of<E> x, unit_scale const* scaled, tail_shift* seen) {
  exec.single(
      [=] LOWRANK_DEVICE { seen->coefficient = static_cast<float>(-std::ldexp(seen->value, -scaled->exponent)); });
  scale_columns(exec, x, [seen] LOWRANK_DEVICE(index_t) { return seen->coefficient; });
}

}  // namespace lowrank::detail
