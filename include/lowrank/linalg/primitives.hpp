/// @file
/// The linear algebra that algorithms may call. They are free functions found by argument-dependent lookup on the
/// executor, so an algorithm is written once and a new executor brings its own overloads.
///
/// | call | meaning |
/// | --- | --- |
/// | `multiply(exec, alpha, A, B, beta, C)` | C = alpha A B + beta C; with beta = 0, C is not read |
/// | `gram(exec, Y, C)` | C = Yᵀ Y accumulated in fp64, l x l |
/// | `gram_mixed(exec, Y, C)` | the same, in fp32 over blocks of 256 or 512 rows whose sums are fp64: for nearly orthonormal Y |
/// | `factor_cholesky(exec, C, failed)` | lower triangle of C becomes its Cholesky factor; *failed: a bad pivot was met |
/// | `invert_lower(exec, L)` | lower triangle of L becomes that of its inverse, the rest zero |
/// | `multiply_upper(exec, A, W, C)` | C = A W for upper triangular W; linalg/multiply_upper.hpp does for every executor |
/// | `symmetric_eigen(exec, C, values, failed)` | C becomes its eigenvectors (columns), values descending, all fp64 |
/// | `symmetric_eigenvalues(exec, problems)` | eigenvalues alone, of several symmetric fp64 matrices; on the host |
///
/// What moves numbers without mixing them is in linalg/elementwise.hpp, linalg/columns.hpp and linalg/reductions.hpp.
///
/// `exact_svd`, `exact_singular_values` and `householder_qr` (linalg/host/decompositions.hpp, linalg/host/blas.hpp) are asked
/// for by the few algorithms that need them.
#pragma once

#include "lowrank/core/executor.hpp"

namespace lowrank {

/// fp64 matrices: Grams and what is computed from them.
template <class E>
using wide_view_of = matrix_view<double, typename E::space>;

/// Whether products for this executor have been included (linalg/host/eigen_products.hpp, linalg/host/blas.hpp, ...).
/// Ask inside function bodies only: the answer is remembered by the compiler.
template <class E>
concept has_products = executor<E> && requires(E& exec, const_view_of<E> a, view_of<E> c, wide_view_of<E> g) {
  multiply(exec, 1.0F, a, a, 0.0F, c);
  gram(exec, a, g);
  gram_mixed(exec, a, g);
};

/// Whether the executor can factor small fp64 matrices.
template <class E>
concept has_small_factorizations = executor<E> &&
    requires(E& exec, wide_view_of<E> c, double* values, std::int32_t* failed) {
  factor_cholesky(exec, c, failed);
  invert_lower(exec, c);
  symmetric_eigen(exec, c, values, failed);
};

}  // namespace lowrank
