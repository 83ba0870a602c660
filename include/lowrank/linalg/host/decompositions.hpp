/// @file
/// What `host_executor` can decompose exactly, declared. The bodies, half a minute of compile time, are in
/// linalg/host/eigen_decompositions.hpp; a program may keep them in one source file by instantiating them there:
///
///     #include "lowrank/linalg/host/eigen_decompositions.hpp"
///     template lowrank::svd_status lowrank::exact_svd(lowrank::host_executor&, lowrank::matrix_view<float const>,
///                                                     lowrank::svd_output<> const&);
///     template lowrank::svd_status lowrank::exact_singular_values(lowrank::host_executor&,
///                                                                 lowrank::matrix_view<float const>, double*);
#pragma once

#include <concepts>

#include "lowrank/core/executor.hpp"
#include "lowrank/linalg/svd_output.hpp"

namespace lowrank {

/// Thin SVD of A; singular vectors only on the sides asked for.
/// Shapes: A m x n; with k = min(m, n): u m x k, values k, v n x k (svd_output).
/// Ensures: ‖A - U S Vᵀ‖_F of a few eps sqrt(k) ‖A‖_F. The same bits on every run.
/// Cost: about 6 n m² + 20 m³ flops with both sides (m <= n). Allocates a few copies of A: it is called at refreshes and on
/// finished models, never in a plain step. In programs built with -fopenmp Eigen may use the threads it has been given
/// there; that setting is left alone.
/// Throws: shape_error.
template <std::derived_from<host_executor> E>
svd_status exact_svd(E& exec, matrix_view<float const> a, svd_output<> const& out);

/// All singular values of A in fp64, descending, by bidiagonalisation: each to a few eps of the largest (eps of fp64), where a
/// Gram loses those below 1e-8 of it.
/// Shapes: A m x n; values min(m, n).  Cost: about 8 n m² / 3 flops (m <= n); allocates an fp64 copy of A.
template <std::derived_from<host_executor> E>
svd_status exact_singular_values(E& exec, matrix_view<float const> a, double* values);

/// Q of A = Q R by Householder reflections, m x min(m, n): orthonormal whatever A's condition or rank, and without a failure
/// path. R's diagonal is made non-negative, so that Q is continuous in A.
/// Shapes: A m x n, Q m x min(m, n).  Requires: A finite.  Cost: 4 m n² - 4 n³ / 3 flops; allocates two copies of A.
/// Throws: shape_error.
template <std::derived_from<host_executor> E>
void householder_qr(E& exec, matrix_view<float const> a, matrix_view<float> q);

}  // namespace lowrank
