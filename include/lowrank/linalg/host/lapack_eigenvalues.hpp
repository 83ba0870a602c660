/// @file
/// Eigenvalues without vectors for `blas_executor`: LAPACK's blocked reduction, then bisection.
#pragma once

#include <lapacke.h>

#include "lowrank/linalg/host/blas_executor.hpp"
#include "lowrank/linalg/host/symmetric_eigenvalues.hpp"

namespace lowrank {

/// As symmetric_eigenvalues(host_executor&, ...).
/// Reference: LAPACK dsytrd.
inline void symmetric_eigenvalues(blas_executor& exec, std::span<eigenvalue_problem> problems) {
  detail::solve_all(exec, problems, [](matrix_view<double> c, detail::tridiagonal_workspace const& work) {
    auto const n = static_cast<lapack_int>(c.rows);
    double* const memory = work.spare + c.rows;  // behind the five vectors
    return LAPACKE_dsytrd_work(LAPACK_COL_MAJOR, 'L', n, c.data,
                               static_cast<lapack_int>(std::max(c.row_stride, c.rows)), work.diagonal, work.coupling,
                               work.tau, memory, 16 * n) == 0;
  });
}

}  // namespace lowrank
