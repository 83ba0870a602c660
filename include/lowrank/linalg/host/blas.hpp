/// @file
/// Products for `blas_executor` by CBLAS. Link with a CBLAS and LAPACKE (CMake: lowrank::blas).
#pragma once

#include <cblas.h>

#include "lowrank/linalg/host/blas_executor.hpp"
#include "lowrank/linalg/host/detail/blas_gram.hpp"
#include "lowrank/linalg/host/detail/tiled_products.hpp"
#include "lowrank/linalg/host/lapack_decompositions.hpp"
#include "lowrank/linalg/host/lapack_eigenvalues.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/linalg/multiply_upper.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

namespace detail {

/// A BLAS packs its operands itself, so its tiles are larger than ours.
inline constexpr index_t blas_tile = 1536;

/// Column-major c += alpha a b for one tile.
template <class T>
void blas_tile_product(T alpha, unit_stride<T const> a, unit_stride<T const> b, unit_stride<T> c, extents shape,
                       index_t depth) {
  auto const order = [](unit_stride<T const> operand) { return operand.row_major ? CblasTrans : CblasNoTrans; };
  auto const size = [](index_t x) { return static_cast<int>(x); };
  auto const call = [&](auto gemm) {
    gemm(CblasColMajor, order(a), order(b), size(shape.rows), size(shape.cols), size(depth), alpha, a.data,
         size(a.leading), b.data, size(b.leading), T{1}, c.data, size(c.leading));
  };
  if constexpr (sizeof(T) == sizeof(float)) call(&cblas_sgemm);
  else call(&cblas_dgemm);
}

template <class T>
void blas_multiply(host_executor& exec, T alpha, matrix_view<T const> a, matrix_view<T const> b, T beta,
                   matrix_view<T> c) {
  multiply_by_tiles<T>(
      exec, alpha, a, b, beta, c, [](int, auto... arguments) { blas_tile_product<T>(arguments...); }, blas_tile);
}

}  // namespace detail

/// C = alpha A B + beta C. With beta = 0, C may hold anything.
/// Shapes: A m x k, B k x n, C m x n; any strides (fast when each operand has a unit stride).
/// Requires: C overlaps neither A nor B; strides below 2^31.
/// Cost: 2 m n k flops; workspace 0.  Throws: shape_error.
inline void multiply(blas_executor& exec, float alpha, matrix_view<float const> a, matrix_view<float const> b,
                     float beta, matrix_view<float> c) {
  detail::blas_multiply(exec, alpha, a, b, beta, c);
}
/// The same in fp64.
inline void multiply(blas_executor& exec, double alpha, matrix_view<double const> a, matrix_view<double const> b,
                     double beta, matrix_view<double> c) {
  detail::blas_multiply(exec, alpha, a, b, beta, c);
}
/// C = Yᵀ Y, products and sums in fp64.
/// Shapes: Y m x l, C l x l.  Cost: m l² flops; workspace 0.  Throws: shape_error.
inline void gram(blas_executor& exec, matrix_view<float const> y, matrix_view<double> c) {
  if (detail::takes_panels(exec, y, c)) return detail::gram_by_panels(exec, y, c);
  detail::gram_by_tiles(exec, y, c, [](int, auto... arguments) { detail::blas_tile_product<double>(arguments...); });
}
/// C = Yᵀ Y in fp32 over blocks of 512 rows, summed in fp64; as gram_mixed(host_executor&, ...).
inline void gram_mixed(blas_executor& exec, matrix_view<float const> y, matrix_view<double> c) {
  if (detail::takes_mixed_tiles(exec, y, c)) return detail::gram_mixed_by_blas(exec, y, c);
  detail::gram_mixed_by_tiles(exec, y, c,
                              [](int, auto... arguments) { detail::blas_tile_product<float>(arguments...); });
}

/// C = A W for upper triangular W; as multiply_upper(E&, ...), in m l² flops. Strides that no library takes go there.
inline void multiply_upper(blas_executor& exec, matrix_view<float const> a, matrix_view<float const> w,
                           matrix_view<float> c) {
  detail::unit_stride<float> const out{c};
  detail::unit_stride<float const> const factor{w};
  if (!out.possible || !factor.possible || a.shape() != c.shape() || w.rows != w.cols || w.rows != c.cols)
    return multiply_upper<blas_executor>(exec, a, w, c);
  copy(exec, a, c);
  bool const turned = out.row_major != factor.row_major;  // the library then sees the transpose, a lower triangle
  constexpr index_t group = 512;
  exec.parallel((c.rows + group - 1) / group, [&](index_t number) {
    auto const rows = c.row_range(number * group, std::min(c.rows, (number + 1) * group));
    cblas_strmm(out.row_major ? CblasRowMajor : CblasColMajor, CblasRight, turned ? CblasLower : CblasUpper,
                turned ? CblasTrans : CblasNoTrans, CblasNonUnit, static_cast<int>(rows.rows),
                static_cast<int>(rows.cols), 1.0F, factor.data, static_cast<int>(factor.leading), rows.data,
                static_cast<int>(out.leading));
  });
}

}  // namespace lowrank
