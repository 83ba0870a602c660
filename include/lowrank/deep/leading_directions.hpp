/// @file
/// Leading singular triplets of whatever can be multiplied with, in fp32 or fp64.
#pragma once

#include "lowrank/deep/orthonormal.hpp"

namespace lowrank::deep {

struct direction_options {
  index_t oversampling{8};
  index_t power_steps{6};
};

namespace detail {

[[nodiscard]] constexpr index_t search_columns(extents shape, index_t r, direction_options const& options) noexcept {
  return std::min({r + options.oversampling, shape.rows, shape.cols});
}

}  // namespace detail

/// Scratch of `leading_directions`, without that of the products.
template <class T>
[[nodiscard]] constexpr index_t leading_directions_bytes(extents shape, index_t r,
                                                         direction_options const& options = {}) noexcept {
  index_t const b = detail::search_columns(shape, r, options);
  return scratch_bytes<T>(shape.rows * b) + scratch_bytes<T>(shape.cols * b) + 2 * scratch_bytes<double>(b * b) +
         scratch_bytes<double>(b) + scratch_bytes<std::int32_t>(1) + scratch_bytes<T>(b * b) +
         scratch_bytes<double>(shape.cols * b) +
         std::max(orthonormal_columns_bytes<T>({shape.rows, b}), orthonormal_columns_bytes<T>({shape.cols, b}));
}

/// u, v: orthonormal singular vectors of G, values descending; by `apply(X, Y)`: Y = G X, and `apply_transposed(Y, X)`: X = Gᵀ Y.
/// Where G has no further directions they are random, and the values 0.
/// Shapes: G m x n of `shape`, u m x r, v n x r, values r; r <= min(m, n).
/// Cost: 2 power_steps + 2 products with r + oversampling columns; workspace leading_directions_bytes.
/// Throws: shape_error; argument_error where G has NaN or infinity.
/// Reference: Halko, Martinsson, Tropp, "Finding structure with randomness" (2011), algorithm 4.4.
template <class T, class E, class Apply, class ApplyTransposed>
void leading_directions(E& exec, extents shape, Apply const& apply, ApplyTransposed const& apply_transposed,
                        std::type_identity_t<matrix_view<T>> u, std::type_identity_t<matrix_view<T>> v, double* values,
                        rng_key key, direction_options const& options = {}) {
  constexpr auto* caller = "deep::leading_directions";
  index_t const r = u.cols, b = detail::search_columns(shape, r, options);
  require<shape_error>(u.shape() == extents{shape.rows, r} && v.shape() == extents{shape.cols, r} && r <= b, caller,
                       "needs m x r and n x r with r <= min(m, n) of ", shape, ", got ", u.shape(), " and ", v.shape());
  require(options.oversampling >= 0 && options.power_steps >= 0, caller, "options must not be negative");
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const take = [&]<class X>(std::type_identity<X>, extents s) {
    return row_major(arena.template take<X>(s.size()), s);
  };
  auto const y = take(std::type_identity<T>{}, {shape.rows, b}), x = take(std::type_identity<T>{}, {shape.cols, b});
  key.purpose = rng_purpose::sketch;
  fill_gaussian(exec, key, x);
  for (index_t step = 0; step <= options.power_steps; ++step) {
    apply(matrix_view<T const>(x), y);
    for (index_t i = 0; i < y.rows; ++i)
      for (index_t j = 0; j < y.cols; ++j)
        require(is_finite(y(i, j)), caller, "what directions are looked for in must be finite");
    key.step += 1000;
    orthonormal_columns(exec, key, y);
    apply_transposed(matrix_view<T const>(y), x);
    if (step < options.power_steps) orthonormal_columns(exec, key, x);
  }
  // Gᵀ Y = X: with X Q = V S, G = (Y Q) S Vᵀ in the space found.
  auto const wide = take(std::type_identity<double>{}, x.shape()), c = take(std::type_identity<double>{}, {b, b});
  auto* const energies = arena.template take<double>(b);
  auto* const failed = arena.template take<std::int32_t>(1);
  auto const rotation = take(std::type_identity<T>{}, {b, b});
  convert(exec, x, wide);
  double most = 0;
  for (index_t i = 0; i < wide.rows; ++i)
    for (index_t j = 0; j < b; ++j) most = std::max(most, std::abs(wide(i, j)));
  double const unit = most > 0 ? 1 / most : 1;  // squares of tiny gradients stay normal numbers
  multiply(exec, unit * unit, matrix_view<double const>(wide).t(), matrix_view<double const>(wide), 0.0, c);
  symmetric_eigen(exec, c, energies, failed);
  require(*failed == 0, caller, "the eigenproblem of ", b, " directions did not converge");
  convert(exec, c, rotation);
  matrix_view<T const> const q = matrix_view<T const>(rotation).col_range(0, r);
  multiply(exec, T{1}, matrix_view<T const>(y), q, T{0}, u);
  multiply(exec, T{1}, matrix_view<T const>(x), q, T{0}, v);
  orthonormal_columns(exec, key, v);
  for (index_t k = 0; k < r; ++k) values[k] = std::sqrt(std::max(energies[k], 0.0)) / unit;
}

}  // namespace lowrank::deep
