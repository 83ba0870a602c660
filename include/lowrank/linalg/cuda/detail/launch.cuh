/// @file
/// The shapes in which the linear algebra launches kernels: over elements, over squares that are transposed, over
/// warps.
#pragma once

#include <bit>

#include "lowrank/core/cuda/executor.cuh"

namespace lowrank::detail {

/// Threads of a block, and blocks that fill any device of today several times over; what is left is done in strides.
inline constexpr int block_threads = 256, most_blocks = 2048;
inline constexpr int warp_lanes = 32, block_warps = block_threads / warp_lanes;
/// Elements that a block passes over at a time: four a thread, so that four loads are under way.
inline constexpr int tile_elements = 4 * block_threads;
/// Side of a square that is transposed in shared memory.
inline constexpr int square_side = 32;

[[nodiscard]] inline unsigned blocks_for(index_t pieces) noexcept {
  return static_cast<unsigned>(std::min<index_t>(pieces, most_blocks));
}

/// A matrix cut into tiles of 1024 elements: `1 << log_width` neighbouring columns, as narrow as the matrix, so that
/// one of few columns keeps every thread busy.
struct element_tiles {
  extents shape;
  int log_width;
  index_t across, count;

  explicit element_tiles(extents of) noexcept
      : shape{of},
        log_width{
            static_cast<int>(std::bit_width(static_cast<unsigned>(std::min<index_t>(of.cols, block_threads)) - 1))},
        across{(of.cols + (index_t{1} << log_width) - 1) >> log_width},
        count{across * ((of.rows * (index_t{1} << log_width) + tile_elements - 1) / tile_elements)} {}
};

template <class Body>
__global__ void __launch_bounds__(block_threads, 4) run_elements(element_tiles const tiles, Body const body) {
  int const height = tile_elements >> tiles.log_width, width = 1 << tiles.log_width;
  for (index_t tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
    index_t const row = tile / tiles.across, top = row * height, left = (tile - row * tiles.across) * width;
#pragma unroll
    for (int k = 0; k < tile_elements; k += block_threads) {
      int const at = k + static_cast<int>(threadIdx.x);
      index_t const i = top + (at >> tiles.log_width), j = left + (at & (width - 1));
      if (i < tiles.shape.rows && j < tiles.shape.cols) body(i, j);
    }
  }
}

/// body(i, j) for every element of a matrix of that shape; neighbouring threads have neighbouring columns.
template <class Body>
void for_elements(cuda_executor& exec, extents shape, Body const& body) {
  if (shape.size() == 0) return;
  element_tiles const tiles{shape};
  run_elements<<<blocks_for(tiles.count), block_threads, 0, exec.stream()>>>(tiles, body);
  exec.check_launch("a kernel over elements");
}

/// B = f(Aᵀ) with columns of both neighbours in memory, through shared memory, so that neither is read or written
/// across its rows.
template <class A, class B, class F>
__global__ void __launch_bounds__(block_threads)
    run_transposed(matrix_view<A, device_space> const a, matrix_view<B, device_space> const b, F const f) {
  __shared__ B square[square_side][square_side + 1];  // one more, so that columns lie in different banks
  int const x = static_cast<int>(threadIdx.x) % square_side, y = static_cast<int>(threadIdx.x) / square_side;
  index_t const across = (b.cols + square_side - 1) / square_side;
  index_t const count = across * ((b.rows + square_side - 1) / square_side);
  for (index_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
    index_t const row = tile / across, top = row * square_side, left = (tile - row * across) * square_side;
#pragma unroll
    for (int k = 0; k < square_side; k += block_threads / square_side)
      if (left + y + k < a.rows && top + x < a.cols) square[y + k][x] = f(a(left + y + k, top + x));
    __syncthreads();
#pragma unroll
    for (int k = 0; k < square_side; k += block_threads / square_side)
      if (top + y + k < b.rows && left + x < b.cols) b(top + y + k, left + x) = square[x][y + k];
    __syncthreads();
  }
}

template <class Body>
__global__ void __launch_bounds__(block_threads) run_warps(index_t const count, Body const body) {
  int const lane = static_cast<int>(threadIdx.x) % warp_lanes, warp = static_cast<int>(threadIdx.x) / warp_lanes;
  index_t const stride = index_t{gridDim.x} * block_warps;
  for (index_t item = index_t{blockIdx.x} * block_warps + warp; item < count; item += stride) body(item, lane);
}

/// body(item, lane) for every item, by the 32 lanes of one warp each.
template <class Body>
void for_warps(cuda_executor& exec, index_t count, Body const& body) {
  if (count == 0) return;
  run_warps<<<blocks_for((count + block_warps - 1) / block_warps), block_threads, 0, exec.stream()>>>(count, body);
  exec.check_launch("a kernel over warps");
}

/// Where elements of a matrix are that are counted row by row; a step forward costs no division.
struct element_position {
  index_t row, col, cols;

  __device__ element_position(std::uint64_t element, index_t its_cols)
      : row{static_cast<index_t>(element / static_cast<std::uint64_t>(its_cols))},
        col{static_cast<index_t>(element) - row * its_cols},
        cols{its_cols} {}
  __device__ void advance(index_t by) {
    col += by;
    if (col < cols) return;
    index_t const more = col < 2 * cols ? 1 : col / cols;
    row += more;
    col -= more * cols;
  }
};

/// Sum over the lanes of a warp, in the butterfly's order; complete in lane 0.
[[nodiscard]] __device__ inline double warp_sum(double x) {
#pragma unroll
  for (int step = warp_lanes / 2; step > 0; step /= 2) x += __shfl_down_sync(~0U, x, step);
  return x;
}
/// Largest of the lanes of a warp, in every lane.
template <class T>
[[nodiscard]] __device__ T warp_max(T x) {
#pragma unroll
  for (int step = warp_lanes / 2; step > 0; step /= 2) {
    T const other = __shfl_xor_sync(~0U, x, step);
    x = other > x ? other : x;
  }
  return x;
}

/// The first `count` numbers of the memory that an executor keeps for the inside of a primitive.
template <class T>
[[nodiscard]] T* panel(cuda_executor& exec, char const* caller, index_t count) {
  require<shape_error>(count <= exec.panel_bytes() / index_t{sizeof(T)}, caller, "needs ", count * index_t{sizeof(T)},
                       " bytes of cuda_options::library_bytes beyond those of cuBLAS, got ", exec.panel_bytes());
  return reinterpret_cast<T*>(exec.panel_memory());
}

}  // namespace lowrank::detail
