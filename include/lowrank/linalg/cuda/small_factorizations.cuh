/// @file
/// Cholesky factor and triangular inverse of small fp64 matrices on a device, by own kernels on blocks of 64 columns and
/// products between them. No cuSOLVER, no decision of the host: both can be captured.
#pragma once

#include "lowrank/core/scalar.hpp"
#include "lowrank/linalg/cuda/products.cuh"

namespace lowrank {

namespace detail {

/// Columns of a block, one thread a row; and rows below it that a warp takes at a time.
inline constexpr int corner_side = 64, rows_below = 32;
/// Numbers in a row of a square in shared memory: one more, so that columns lie in different banks.
inline constexpr int corner_pitch = corner_side + 1;
inline constexpr int triangle_size = corner_side * (corner_side + 1) / 2;

/// Where row i of a packed lower triangle begins.
[[nodiscard]] __device__ constexpr int triangle_row(int i) { return i * (i + 1) / 2; }

/// Sum of x[k] y[k] in the eight interleaved sums of the host.
[[nodiscard]] __device__ inline double interleaved_dot(double const* x, double const* y, int count) {
  double sum[8]{};
  int k = 0;
  for (; k + 8 <= count; k += 8)
#pragma unroll
    for (int lane = 0; lane < 8; ++lane) sum[lane] += x[k + lane] * y[k + lane];
  double rest = 0;
  for (; k < count; ++k) rest += x[k] * y[k];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7])) + rest;
}

/// Cholesky factor of a diagonal block in place, by one block of threads; inverse_pivots[j] = 0 where the pivot is bad.
/// 1e-300 is taken for such a pivot, as on the host. `Real` is double; a template may be defined in several units.
template <class Real>
__global__ void __launch_bounds__(corner_side)
    factor_corner(matrix_view<Real, device_space> const c, double* const inverse_pivots, std::int32_t* const failed) {
  __shared__ double rows[corner_side * corner_pitch];
  int const n = static_cast<int>(c.rows), own = static_cast<int>(threadIdx.x);
  for (int i = 0; i < n; ++i)
    if (own <= i) rows[i * corner_pitch + own] = c(i, own);
  double* const row = rows + own * corner_pitch;
  double own_root = 0;
  for (int j = 0; j < n; ++j) {
    __syncthreads();
    if (own < j || own >= n) continue;
    // Every thread finds the pivot for itself, because waiting for it would take as long.
    double const* const pivot_row = rows + j * corner_pitch;
    double const pivot = pivot_row[j] - interleaved_dot(pivot_row, pivot_row, j);
    bool const usable = is_finite(pivot) && pivot > 0;
    double const root = std::sqrt(usable ? pivot : 1e-300), inverse = usable ? 1.0 / root : 0.0;
    if (own > j) {
      row[j] = (row[j] - interleaved_dot(row, pivot_row, j)) * inverse;
    } else {
      own_root = root;
      inverse_pivots[j] = inverse;
      if (!usable) atomicOr(failed, 1);
    }
  }
  __syncthreads();
  if (own < n) row[own] = own_root;
  __syncthreads();
  for (int i = 0; i < n; ++i)
    if (own <= i) c(i, own) = rows[i * corner_pitch + own];
}

/// The rows below a factored corner: X with X cornerᵀ = what they are.
template <class Real>
__global__ void __launch_bounds__(rows_below)
    factor_below(matrix_view<Real, device_space> const corner, matrix_view<Real, device_space> const below,
                 double const* const inverse_pivots) {
  __shared__ double triangle[triangle_size], rows[rows_below * corner_pitch];
  int const n = static_cast<int>(corner.cols), own = static_cast<int>(threadIdx.x);
  for (int i = 0; i < n; ++i)
    for (int j = own; j <= i; j += rows_below) triangle[triangle_row(i) + j] = corner(i, j);
  double* const row = rows + own * corner_pitch;
  for (index_t top = index_t{blockIdx.x} * rows_below; top < below.rows; top += index_t{gridDim.x} * rows_below) {
    int const height = static_cast<int>(below.rows - top < rows_below ? below.rows - top : rows_below);
    for (int i = 0; i < height; ++i)
      for (int j = own; j < n; j += rows_below) rows[i * corner_pitch + j] = below(top + i, j);
    __syncwarp();
    if (own < height)
      for (int j = 0; j < n; ++j)
        row[j] = (row[j] - interleaved_dot(row, triangle + triangle_row(j), j)) * inverse_pivots[j];
    __syncwarp();
    for (int i = 0; i < height; ++i)
      for (int j = own; j < n; j += rows_below) below(top + i, j) = rows[i * corner_pitch + j];
    __syncwarp();
  }
}

/// Inverse of a lower triangular diagonal block in place, its upper triangle zero: one thread a column.
template <class Real>
__global__ void __launch_bounds__(corner_side) invert_corner(matrix_view<Real, device_space> const l) {
  __shared__ double from[triangle_size], to[triangle_size];
  int const n = static_cast<int>(l.rows), own = static_cast<int>(threadIdx.x);
  for (int i = 0; i < n; ++i)
    if (own <= i) from[triangle_row(i) + own] = l(i, own);
  __syncthreads();
  for (int i = own; i < n; ++i) {
    double const* const row = from + triangle_row(i);
    double sum = 0;
    for (int k = own; k < i; ++k) sum += row[k] * to[triangle_row(k) + own];
    to[triangle_row(i) + own] = i == own ? 1.0 / row[i] : -sum / row[i];
  }
  if (own >= n) return;
  for (int i = 0; i < n; ++i) l(i, own) = own <= i ? to[triangle_row(i) + own] : 0.0;
}

inline void require_square(char const* caller, matrix_view<double, device_space> c) {
  require<shape_error>(c.rows == c.cols, caller, "needs a square matrix, got ", c.shape());
  require<shape_error>(c.col_stride == 1 || c.cols <= 1, caller, "needs neighbouring columns, got stride ",
                       c.col_stride);
}

}  // namespace detail

/// As factor_cholesky(host_executor&, ...): the same treatment of bad pivots, and the same bits up to 64 columns.
inline void factor_cholesky(cuda_executor& exec, matrix_view<double, device_space> c, std::int32_t* failed) {
  detail::require_square("factor_cholesky", c);
  auto* const inverse_pivots = detail::panel<double>(exec, "factor_cholesky", detail::corner_side);
  exec.single([=] __device__ { *failed = 0; });
  index_t const n = c.rows;
  for (index_t begin = 0; begin < n; begin += detail::corner_side) {
    index_t const end = std::min(n, begin + detail::corner_side);
    auto const columns = c.sub({begin, n, begin, end});
    if (begin > 0) multiply(exec, -1.0, c.sub({begin, n, 0, begin}), c.sub({begin, end, 0, begin}).t(), 1.0, columns);
    auto const corner = columns.row_range(0, end - begin), below = columns.row_range(end - begin, columns.rows);
    detail::factor_corner<<<1, detail::corner_side, 0, exec.stream()>>>(corner, inverse_pivots, failed);
    exec.check_launch("factor_corner");
    if (below.rows == 0) return;
    auto const groups = detail::blocks_for((below.rows + detail::rows_below - 1) / detail::rows_below);
    detail::factor_below<<<groups, detail::rows_below, 0, exec.stream()>>>(corner, below, inverse_pivots);
    exec.check_launch("factor_below");
  }
}

/// As invert_lower(host_executor&, ...), with the same bits up to 64 columns.
inline void invert_lower(cuda_executor& exec, matrix_view<double, device_space> l) {
  detail::require_square("invert_lower", l);
  index_t const n = l.rows;
  for (index_t begin = 0; begin < n; begin += detail::corner_side) {
    index_t const end = std::min(n, begin + detail::corner_side);
    auto const corner = l.sub({begin, end, begin, end});
    detail::invert_corner<<<1, detail::corner_side, 0, exec.stream()>>>(corner);
    exec.check_launch("invert_corner");
    if (begin == 0) continue;
    // X[I, :] = -X[I, I] (L[I, :] X[:, :]), the product parked above the diagonal.
    auto const parked = l.sub({0, begin, begin, end}), row = l.sub({begin, end, 0, begin});
    multiply(exec, 1.0, l.sub({0, begin, 0, begin}).t(), row.t(), 0.0, parked);
    multiply(exec, -1.0, corner, parked.t(), 0.0, row);
    fill(exec, parked, 0.0);
  }
}

}  // namespace lowrank
