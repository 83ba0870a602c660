#pragma once

#include <cmath>

#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/linalg/scale_to_unit.hpp"

namespace lowrank::detail {

/// What one probe of the complement of span(P) says about A = GGᵀ there, and the shift s that follows: (A - s I) P is
/// turned from what P misses faster than A P, at no product's cost. In the executor's memory space.
struct tail_shift {
  double probe{};       ///< ‖f‖², f random in the complement
  double image{};       ///< ‖A f‖², as it comes out of the products
  double inside{};      ///< ‖Pᵀ A f‖², likewise
  double value{};       ///< s
  float coefficient{};  ///< -s in the units of the products at hand
};

/// y <- (I - PPᵀ) y; inner is scratch of k x 1.
template <class E>
void remove_span(E& exec, const_view_of<E> p, view_of<E> y, view_of<E> inner) {
  if (p.cols == 0) return;
  multiply(exec, 1.0F, p.t(), y, 0.0F, inner);
  multiply(exec, -1.0F, p, inner, 1.0F, y);
}

/// f <- random signs without their part in span(P), P orthonormal; 0 where there is nothing else. inner: k x 1.
/// Cost: 4 m k flops.
template <class E>
void fill_probe(E& exec, const_view_of<E> p, view_of<E> f, view_of<E> inner, rng_key key, tail_shift* seen) {
  exec.single([=] LOWRANK_DEVICE { *seen = {}; });
  if (p.cols >= p.rows) return fill(exec, f, 0.0F);
  key.purpose = rng_purpose::probe;
  fill_rademacher(exec, key, f);
  scale(exec, static_cast<float>(1 / std::sqrt(static_cast<double>(f.rows))), f);
  remove_span(exec, p, f, inner);
  squared_norm(exec, const_view_of<E>(f), &seen->probe);
}

/// The shift, from Z = 2^-e Gᵀ [X, f], e = scaled->exponent, and 2^-e A f: the energies of the columns, and the first two
/// moments of A's eigenvalues as f in the complement of span(P) weighs them. With the mean a and the mean of squares b of
/// these, sum (λ - s)² / (t - s)² over them, what they keep of their part beside an eigenvalue t inside, is least at
/// s = (a t - b) / (t - a); nothing where the outside is of few large eigenvalues. t is that of the weaker columns, where
/// nearly all of the loss is. Half of the smallest column at most: where that is the smallest Ritz value, none falls.
/// energies: as many as Z has columns; inner: k x 1.
/// Cost: 2 m k flops; Z is read once.
template <class E>
void choose_shift(E& exec, const_view_of<E> p, const_view_of<E> z, const_view_of<E> image, view_of<E> inner,
                  unit_scale const* scaled, double* energies, tail_shift* seen) {
  index_t const n = z.rows, l = z.cols - 1;
  row_mean_squares(exec, z.t(),
                   [=] LOWRANK_DEVICE(index_t j, double mean) { energies[j] = mean * static_cast<double>(n); });
  squared_norm(exec, image, &seen->image);
  if (p.cols > 0) {
    multiply(exec, 1.0F, p.t(), image, 0.0F, inner);
    squared_norm(exec, const_view_of<E>(inner), &seen->inside);
  }
  exec.team([=] LOWRANK_DEVICE(auto team) {
    double const unit = std::ldexp(1.0, 2 * scaled->exponent);
    double const least = -unit * team.most(l, -std::ldexp(1.0, 1000), [=](index_t j) { return -energies[j]; });
    team.each(1, [=](index_t) {
      constexpr double weaker = 1.5;
      double const t = weaker * least;
      double const mean = unit * energies[l] / seen->probe;
      // The mean of squares is no less than the square of the mean, whatever rounding left of the difference.
      double const outside = unit * (seen->image - seen->inside) / seen->probe;
      double const square = outside < mean * mean ? mean * mean : outside;
      bool const inside = seen->probe > 0 && t > mean;  // also false where anything is NaN
      double const best = inside ? (mean * t - square) / (t - mean) : 0;
      seen->value = best > 0 ? (best < least / 2 ? best : least / 2) : 0;
    });
  });
}

/// The shift in the units of products 2^-e A X, e = scaled->exponent.
template <class E>
void set_coefficient(E& exec, unit_scale const* scaled, tail_shift* seen) {
  exec.single(
      [=] LOWRANK_DEVICE { seen->coefficient = static_cast<float>(-std::ldexp(seen->value, -scaled->exponent)); });
}
/// Y = 2^-e A X becomes 2^-e (A - s I) X.
template <class E>
void subtract_shifted(E& exec, const_view_of<E> x, view_of<E> y, unit_scale const* scaled, tail_shift* seen) {
  set_coefficient(exec, scaled, seen);
  add_scaled(exec, &seen->coefficient, x, y);
}
/// X becomes -s 2^-e X, to which G (2^-e Gᵀ X) is then added.
template <class E>
void scale_by_shift(E& exec, view_of<E> x, unit_scale const* scaled, tail_shift* seen) {
  set_coefficient(exec, scaled, seen);
  scale_columns(exec, x, [seen] LOWRANK_DEVICE(index_t) { return seen->coefficient; });
}

/// Scratch of a `probing_block`.
[[nodiscard]] constexpr index_t probing_bytes(index_t m, index_t l, index_t k) noexcept {
  return scratch_bytes<float>(m * (l + 1)) + scratch_bytes<float>(k) + scratch_bytes<double>(l + 1);
}

/// A pass that finds its shift on the way: f rides along as one column more of X, so that G is not read for it alone.
template <class E>
struct probing_block {
  view_of<E> columns{};  ///< m x (l + 1): [X, f], and later G Z
  view_of<E> inner{};    ///< k x 1
  double* energies{};    ///< l + 1
  tail_shift* shift{};

  probing_block(E& exec, index_t m, index_t l, index_t k, tail_shift* found)
      : columns{take_matrix(exec, {m, l + 1})},
        inner{take_matrix(exec, {k, 1})},
        energies{exec.arena().template take<double>(l + 1)},
        shift{found} {}
  [[nodiscard]] view_of<E> block() const { return columns.col_range(0, columns.cols - 1); }
  [[nodiscard]] view_of<E> probe() const { return columns.col_range(columns.cols - 1, columns.cols); }

  void fill(E& exec, const_view_of<E> x, const_view_of<E> p, rng_key const& key) const {
    copy(exec, x, block());
    fill_probe(exec, p, probe(), inner, key, shift);
  }
  /// `image`, which may be X, = 2^-e (A - s I) X, from columns = 2^-e A [X, f], e = scaled->exponent.
  void subtract(E& exec, const_view_of<E> p, const_view_of<E> z, unit_scale const* scaled, const_view_of<E> x,
                view_of<E> image) const {
    choose_shift(exec, p, z, const_view_of<E>(probe()), inner, scaled, energies, shift);
    subtract_shifted(exec, x, block(), scaled, shift);
    copy(exec, const_view_of<E>(block()), image);
  }
};

}  // namespace lowrank::detail
