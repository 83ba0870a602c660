/// @file
/// Eigenvectors of a symmetric fp64 matrix on a device, by cuSOLVER.
#pragma once

#include "lowrank/linalg/cuda/unit_scale.cuh"
#include "lowrank/linalg/detail/eigen_workspace.hpp"

namespace lowrank {

/// As symmetric_eigen(host_executor&, ...), by divide and conquer. Nobody waits for the outcome: a matrix with NaN or
/// Inf is replaced by the identity, on which the library ends, and *failed says so afterwards.
/// Cost: workspace symmetric_eigen_bytes(n), and what cuSOLVER asks for in the executor's own memory: the first call of
/// a size waits for that, and graphs cannot capture it.
/// Throws: shape_error, cuda_error.
/// Reference: cuSOLVER, cusolverDnDsyevd.
inline void symmetric_eigen(cuda_executor& exec, matrix_view<double, device_space> c, double* values,
                            std::int32_t* failed) {
  require<shape_error>(c.rows == c.cols, "symmetric_eigen", "needs a square matrix, got ", c.shape());
  require<shape_error>(c.col_stride == 1 || c.cols <= 1, "symmetric_eigen", "needs neighbouring columns, got stride ",
                       c.col_stride);
  index_t const n = c.rows;
  if (n == 0) return exec.single([=] __device__ { *failed = 0; });
  scratch_scope const scope{exec};
  auto* const vectors = exec.arena().take<double>(detail::eigen_workspace::doubles(n));
  auto* const ascending = vectors + n * n;
  auto* const largest = reinterpret_cast<unsigned long long*>(ascending + n);
  auto* const info = reinterpret_cast<int*>(largest + 1);

  detail::largest_magnitude_below(exec, c, largest);
  // Our lower triangle, row by row, is the library's upper one, column by column; scaled, because squares are summed.
  auto const scaled = row_major<device_space>(vectors, {n, n});
  detail::for_elements(exec, c.shape(), [=] __device__(index_t i, index_t j) {
    if (*largest >= detail::wide_infinity) scaled(i, j) = i == j ? 1.0 : 0.0;
    else scaled(i, j) = j <= i ? c(i, j) * detail::inverse_power_of_two(detail::bounded_exponent(*largest)) : 0.0;
  });

  int const size = static_cast<int>(n);
  int length = 0;
  detail::check_library(cusolverDnDsyevd_bufferSize(exec.solver(), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER,
                                                    size, vectors, size, ascending, &length),
                        "cusolverDnDsyevd_bufferSize");
  auto* const work = reinterpret_cast<double*>(exec.solver_memory(scratch_bytes<double>(length)));
  detail::check_library(cusolverDnDsyevd(exec.solver(), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, size, vectors,
                                         size, ascending, work, length, info),
                        "cusolverDnDsyevd");

  // The last row becomes the first column.
  copy(exec, matrix_view<double const, device_space>{vectors + (n - 1) * n, n, n, 1, -n}, c);
  detail::for_elements(exec, {1, n}, [=] __device__(index_t, index_t k) {
    values[k] = ascending[n - 1 - k] * detail::inverse_power_of_two(-detail::bounded_exponent(*largest));
    if (k == 0) *failed = *info != 0 || *largest >= detail::wide_infinity ? 1 : 0;
  });
}

}  // namespace lowrank
