#pragma once

#include "lowrank/core/executor.hpp"
#include "lowrank/linalg/host/detail/partition.hpp"

namespace lowrank::detail {

/// C = alpha A B + beta C, tile by tile, over a library's product of one tile.
/// `product(worker, alpha, a, b, c, shape, depth)`: column-major c += alpha a b.
template <class T, class Product>
void multiply_by_tiles(host_executor& exec, T alpha, matrix_view<T const> a, matrix_view<T const> b, T beta,
                       matrix_view<T> c, Product const& product, index_t largest_tile = product_partition::largest) {
  require<shape_error>(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "multiply",
                       "needs m x k times k x n into m x n, got ", a.shape(), " times ", b.shape(), " into ",
                       c.shape());
  product_partition const partition{c.shape(), a.cols, largest_tile};
  exec.parallel(partition.tiles(), [&](index_t number, int worker) {
    block const tile = partition.tile(number, c.shape());
    auto const part = c.sub(tile);
    scale_tile(beta, part);
    if (a.cols == 0 || alpha == 0) return;
    accumulate_tile<T>(alpha, a.row_range(tile.row_begin, tile.row_end), b.col_range(tile.col_begin, tile.col_end),
                       part, [&](auto... arguments) { product(worker, arguments...); });
  });
}

/// C = Yᵀ Y with fp64 products of the fp32 elements. Tiles of 128 columns walk down Y in blocks of 256 rows, widened
/// into the worker's own memory; only the lower triangle is computed, then mirrored.
template <class Product>
void gram_by_tiles(host_executor& exec, matrix_view<float const> y, matrix_view<double> c, Product const& product) {
  require<shape_error>(c.rows == y.cols && c.cols == y.cols, "gram", "needs an l x l result for m x l, got ", c.shape(),
                       " for ", y.shape());
  constexpr index_t width = 128, height = 256;
  index_t const side = (y.cols + width - 1) / width;
  exec.parallel(side * (side + 1) / 2, [&](index_t number, int worker) {
    index_t row = 0;
    while ((row + 1) * (row + 2) / 2 <= number) ++row;
    index_t const column = number - row * (row + 1) / 2;
    index_t const i0 = row * width, i1 = std::min(i0 + width, y.cols), j0 = column * width,
                  j1 = std::min(j0 + width, y.cols);
    auto* const left = reinterpret_cast<double*>(exec.worker_memory(worker));
    auto* const right = left + height * width;
    auto const tile = c.sub({i0, i1, j0, j1});
    scale_tile(0.0, tile);
    for (index_t k = 0; k < y.rows; k += height) {
      index_t const rows = std::min(height, y.rows - k);
      auto const widen = [&](index_t begin, index_t end, double* to) {
        auto const part = y.sub({k, k + rows, begin, end});
        for (index_t r = 0; r < rows; ++r)
          for (index_t s = 0; s < end - begin; ++s) to[r * (end - begin) + s] = static_cast<double>(part(r, s));
        return row_major(static_cast<double const*>(to), {rows, end - begin});
      };
      auto const a = widen(i0, i1, left);
      auto const b = row == column ? a : widen(j0, j1, right);
      accumulate_tile<double>(1.0, a.t(), b, tile, [&](auto... arguments) { product(worker, arguments...); });
    }
    for (index_t i = i0; i < i1; ++i)
      for (index_t j = j0; j < std::min(j1, i); ++j) c(j, i) = c(i, j);
  });
}
/// Where a tile product may pack operands: behind the two widened panels of `gram_by_tiles`.
inline constexpr index_t panel_bytes = 2 * 256 * 128 * index_t{sizeof(double)};

}  // namespace lowrank::detail
