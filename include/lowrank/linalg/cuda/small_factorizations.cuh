/// @file
/// Cholesky factor and triangular inverse of small fp64 matrices on a device, by own kernels on blocks of 64 columns
/// and products between them. No cuSOLVER, no decision of the host: both can be captured.
#pragma once

#include "lowrank/core/scalar.hpp"
#include "lowrank/linalg/cuda/products.cuh"

namespace lowrank {

namespace detail {

/// Columns of a diagonal block, and rows of it or below it that a block of threads takes at a time.
inline constexpr int corner_side = 64;
/// Threads that factor a block: 16 x 16, each with every sixteenth row and column.
inline constexpr int corner_grid = 16, corner_threads = corner_grid * corner_grid,
                     corner_items = corner_side / corner_grid;
/// Threads that solve with one: a warp has 16 rows, eight lanes share four of them, and each has eight columns in
/// pairs.
inline constexpr int solve_threads = 128, solve_rows = 4, solve_columns = 8;
/// Numbers in a row of a triangle in shared memory: even for loads of 16 bytes, not 64 for different banks.
inline constexpr int triangle_pitch = corner_side + 2;

/// Cholesky factor of a diagonal block in place, by one block of threads; inverse_pivots[j] = 0 where the pivot is bad.
/// 1e-300 is taken for such a pivot, as on the host. Every column is subtracted from all later ones at once, from
/// registers: one barrier a column. `Real` is double; a template may be defined in several units.
template <class Real>
__global__ void __launch_bounds__(corner_threads)
    factor_corner(matrix_view<Real, device_space> const c, Real* const inverse_pivots, std::int32_t* const failed) {
  __shared__ Real
      column[2][corner_side];  // of this step and of the next, so that nobody waits for those who still read
  int const n = static_cast<int>(c.rows);
  int const x = static_cast<int>(threadIdx.x) % corner_grid, y = static_cast<int>(threadIdx.x) / corner_grid;
  Real own[corner_items][corner_items];
#pragma unroll
  for (int a = 0; a < corner_items; ++a)
#pragma unroll
    for (int b = 0; b < corner_items; ++b) {
      int const i = y + corner_grid * a, k = x + corner_grid * b;
      own[a][b] = i < n && k <= i ? c(i, k) : Real{0};
    }
#pragma unroll
  for (int panel = 0; panel < corner_items; ++panel)
    for (int at = 0; at < corner_grid; ++at) {
      int const j = corner_grid * panel + at;
      if (j >= n) return;
      Real* const now = column[at % 2];
      if (x == at)
#pragma unroll
        for (int a = 0; a < corner_items; ++a) now[y + corner_grid * a] = own[a][panel];
      __syncthreads();
      // Every thread finds the pivot's root for itself, because waiting for it would take as long.
      Real const pivot = now[j];
      bool const usable = is_finite(pivot) && pivot > 0;
      Real const inverse = usable ? ::rsqrt(pivot) : Real{0};
      Real left[corner_items];
#pragma unroll
      for (int a = 0; a < corner_items; ++a) left[a] = now[y + corner_grid * a] * inverse;
      if (x == at) {
#pragma unroll
        for (int a = 0; a < corner_items; ++a) {
          int const i = y + corner_grid * a;
          if (i > j && i < n) c(i, j) = left[a];
          if (i != j) continue;
          c(j, j) = usable ? pivot * inverse : Real{1e-150};
          inverse_pivots[j] = inverse;
          if (!usable) atomicOr(failed, 1);
        }
      }
      // What this makes of columns that are done, and above the diagonal, nobody reads.
#pragma unroll
      for (int b = panel; b < corner_items; ++b) {
        Real const right = now[x + corner_grid * b] * inverse;
#pragma unroll
        for (int a = panel; a < corner_items; ++a) own[a][b] -= left[a] * right;
      }
    }
}

/// A lower triangle in shared memory as `solve_triangle` reads it: column by column, and the inverses of its diagonal.
template <class Real>
struct shared_triangle {
  Real columns[corner_side * triangle_pitch];
  Real inverses[corner_side];
};

/// Loads the triangle of `l`; what it does not have is zero. The diagonal is the caller's.
template <class Real>
__device__ void load_triangle(matrix_view<Real, device_space> l, shared_triangle<Real>& to) {
  int const n = static_cast<int>(l.rows);
#pragma unroll 16
  for (int k = 0; k < corner_side * corner_side; k += solve_threads) {
    int const at = k + static_cast<int>(threadIdx.x), i = at / corner_side, j = at % corner_side;
    to.columns[j * triangle_pitch + i] = j < i && i < n ? l(i, j) : Real{0};
  }
}

/// Column number `item` of those that a lane has: pairs, so that lanes next to each other read next to each other.
[[nodiscard]] __device__ constexpr int solve_column(int group, int item) {
  return 16 * (item / 2) + 2 * group + item % 2;
}

/// X with X Lᵀ = B for the rows of a warp, in place, from left to right: each column found is subtracted from all later
/// ones.
template <class Real>
__device__ void solve_triangle(shared_triangle<Real> const& l, int lane, Real (&x)[solve_rows][solve_columns]) {
  int const group = lane % 8;
#pragma unroll
  for (int stretch = 0; stretch < solve_columns / 2; ++stretch)
    for (int owner = 0; owner < 8; ++owner)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const item = 2 * stretch + half, j = 16 * stretch + 2 * owner + half;
        Real const inverse = l.inverses[j];
        Real found[solve_rows];
#pragma unroll
        for (int r = 0; r < solve_rows; ++r) found[r] = __shfl_sync(~0U, x[r][item] * inverse, owner, 8);
        if (group == owner)
#pragma unroll
          for (int r = 0; r < solve_rows; ++r) x[r][item] = found[r];
        Real const* const column = l.columns + j * triangle_pitch;
#pragma unroll
        for (int k = 2 * stretch; k < solve_columns; ++k) {
          int const other = solve_column(group, k);
          if (k / 2 == stretch && other <= j) continue;
#pragma unroll
          for (int r = 0; r < solve_rows; ++r) x[r][k] -= found[r] * column[other];
        }
      }
}

/// The rows below a factored corner: X with X cornerᵀ = what they are.
template <class Real>
__global__ void __launch_bounds__(solve_threads)
    factor_below(matrix_view<Real, device_space> const corner, matrix_view<Real, device_space> const below,
                 Real const* const inverse_pivots) {
  __shared__ shared_triangle<Real> l;
  load_triangle(corner, l);
  if (threadIdx.x < corner_side) l.inverses[threadIdx.x] = inverse_pivots[threadIdx.x];
  __syncthreads();
  int const lane = static_cast<int>(threadIdx.x) % warp_lanes;
  index_t const first = index_t{blockIdx.x} * corner_side + static_cast<int>(threadIdx.x) / 8 * solve_rows;
  Real x[solve_rows][solve_columns];
#pragma unroll
  for (int r = 0; r < solve_rows; ++r)
#pragma unroll
    for (int k = 0; k < solve_columns; ++k)
      x[r][k] = first + r < below.rows ? below(first + r, solve_column(lane % 8, k)) : Real{0};
  solve_triangle(l, lane, x);
#pragma unroll
  for (int r = 0; r < solve_rows; ++r)
#pragma unroll
    for (int k = 0; k < solve_columns; ++k)
      if (first + r < below.rows) below(first + r, solve_column(lane % 8, k)) = x[r][k];
}

/// Inverses of all lower triangular diagonal blocks in place, their upper triangles zero: a block of threads each. The
/// rows of L⁻ᵀ solve the equations that rows below a corner do, for the rows of the identity.
template <class Real>
__global__ void __launch_bounds__(solve_threads) invert_corners(matrix_view<Real, device_space> const whole) {
  __shared__ shared_triangle<Real> l;
  index_t const begin = index_t{blockIdx.x} * corner_side;
  index_t const end = begin + corner_side < whole.rows ? begin + corner_side : whole.rows;
  auto const corner = whole.sub({begin, end, begin, end});
  int const n = static_cast<int>(corner.rows);
  load_triangle(corner, l);
  if (int const j = static_cast<int>(threadIdx.x); j < corner_side) l.inverses[j] = j < n ? 1 / corner(j, j) : Real{0};
  __syncthreads();
  int const lane = static_cast<int>(threadIdx.x) % warp_lanes, first = static_cast<int>(threadIdx.x) / 8 * solve_rows;
  Real x[solve_rows][solve_columns];
#pragma unroll
  for (int r = 0; r < solve_rows; ++r)
#pragma unroll
    for (int k = 0; k < solve_columns; ++k) x[r][k] = first + r == solve_column(lane % 8, k) ? Real{1} : Real{0};
  solve_triangle(l, lane, x);
#pragma unroll
  for (int r = 0; r < solve_rows; ++r)
#pragma unroll
    for (int k = 0; k < solve_columns; ++k) {
      int const i = solve_column(lane % 8, k), j = first + r;
      if (i < n && j < n) corner(i, j) = j <= i ? x[r][k] : Real{0};
    }
}

inline void require_square(char const* caller, matrix_view<double, device_space> c) {
  require<shape_error>(c.rows == c.cols, caller, "needs a square matrix, got ", c.shape());
  require<shape_error>(c.col_stride == 1 || c.cols <= 1, caller, "needs neighbouring columns, got stride ",
                       c.col_stride);
}

}  // namespace detail

/// As factor_cholesky(host_executor&, ...), with the same treatment of bad pivots.
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
    detail::factor_corner<<<1, detail::corner_threads, 0, exec.stream()>>>(corner, inverse_pivots, failed);
    exec.check_launch("factor_corner");
    if (below.rows == 0) return;
    auto const blocks = static_cast<unsigned>((below.rows + detail::corner_side - 1) / detail::corner_side);
    detail::factor_below<<<blocks, detail::solve_threads, 0, exec.stream()>>>(corner, below, inverse_pivots);
    exec.check_launch("factor_below");
  }
}

/// As invert_lower(host_executor&, ...).
inline void invert_lower(cuda_executor& exec, matrix_view<double, device_space> l) {
  detail::require_square("invert_lower", l);
  index_t const n = l.rows;
  if (n == 0) return;
  auto const corners = static_cast<unsigned>((n + detail::corner_side - 1) / detail::corner_side);
  detail::invert_corners<<<corners, detail::solve_threads, 0, exec.stream()>>>(l);
  exec.check_launch("invert_corners");
  for (index_t begin = detail::corner_side; begin < n; begin += detail::corner_side) {
    index_t const end = std::min(n, begin + detail::corner_side);
    auto const corner = l.sub({begin, end, begin, end});
    // X[I, :] = -X[I, I] (L[I, :] X[:, :]), the product parked above the diagonal.
    auto const parked = l.sub({0, begin, begin, end}), row = l.sub({begin, end, 0, begin});
    multiply(exec, 1.0, l.sub({0, begin, 0, begin}).t(), row.t(), 0.0, parked);
    multiply(exec, -1.0, corner, parked.t(), 0.0, row);
    fill(exec, parked, 0.0);
  }
}

}  // namespace lowrank
