#pragma once

#include <array>
#include <type_traits>

#include "lowrank/core/executor.hpp"
#include "lowrank/linalg/host/detail/narrow_products.hpp"
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
  if constexpr (std::is_same_v<T, float>) {
    if (is_narrow(exec, a, c.shape())) return multiply_narrow(exec, alpha, a, b, beta, c);
    if (is_narrow(exec, b.t(), c.shape().t())) return multiply_narrow(exec, alpha, b.t(), a.t(), beta, c.t());
  }
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

/// Columns of a tile of a Gram, and rows of Y that it takes at a time.
inline constexpr index_t gram_width = 128, gram_height = 256;

/// Tile `number` of the lower triangle of an n x n matrix, row by row, `width` wide.
[[nodiscard]] inline block lower_tile(index_t number, index_t width, index_t n) noexcept {
  index_t row = 0;
  while ((row + 1) * (row + 2) / 2 <= number) ++row;
  index_t const i = row * width, j = (number - row * (row + 1) / 2) * width;
  return {i, std::min(i + width, n), j, std::min(j + width, n)};
}

/// C = Yᵀ Y by square tiles; only the lower triangle is computed, then mirrored.
/// `add(worker, a, b, tile)`: tile += aᵀ b for blocks of 256 rows of Y; a is b for the tiles on the diagonal, of which the
/// upper triangle may hold anything.
template <class Add>
void sum_gram_tiles(host_executor& exec, char const* caller, matrix_view<float const> y, matrix_view<double> c,
                    index_t width, Add const& add) {
  require<shape_error>(c.rows == y.cols && c.cols == y.cols, caller, "needs an l x l result for m x l, got ", c.shape(),
                       " for ", y.shape());
  index_t const side = (y.cols + width - 1) / width;
  exec.parallel(side * (side + 1) / 2, [&](index_t number, int worker) {
    block const at = lower_tile(number, width, y.cols);
    auto const tile = c.sub(at);
    scale_tile(0.0, tile);
    for (index_t k = 0; k < y.rows; k += gram_height) {
      auto const rows = y.row_range(k, std::min(k + gram_height, y.rows));
      add(worker, rows.col_range(at.row_begin, at.row_end), rows.col_range(at.col_begin, at.col_end), tile);
    }
    for (index_t i = at.row_begin; i < at.row_end; ++i)
      for (index_t j = at.col_begin; j < std::min(at.col_end, i); ++j) c(j, i) = c(i, j);
  });
}

/// tile += aᵀ a below its diagonal, and as little as two products can do above it.
template <class T, class Product>
void accumulate_lower(matrix_view<T const> a, matrix_view<T> tile, Product const& product) {
  index_t const half = a.cols >= 64 ? a.cols / 2 : a.cols;
  accumulate_tile<T>(T{1}, a.t(), a.col_range(0, half), tile.col_range(0, half), product);
  if (half == a.cols) return;
  auto const rest = a.col_range(half, a.cols);
  accumulate_tile<T>(T{1}, rest.t(), rest, tile.sub({half, a.cols, half, a.cols}), product);
}

/// C = Yᵀ Y with fp64 products of the fp32 elements, which are widened into the worker's own memory.
template <class Product>
void gram_by_tiles(host_executor& exec, matrix_view<float const> y, matrix_view<double> c, Product const& product) {
  auto const add = [&](int worker, matrix_view<float const> a, matrix_view<float const> b, matrix_view<double> tile) {
    auto* const left = reinterpret_cast<double*>(exec.worker_memory(worker));
    // Along memory, whichever way it runs: against it, a wide matrix took twice the time.
    auto const widen = [](matrix_view<float const> part, double* to) {
      bool const flipped = part.row_stride < part.col_stride;
      if (flipped) part = part.t();
      for (index_t i = 0; i < part.rows; ++i)
        for (index_t j = 0; j < part.cols; ++j) to[i * part.cols + j] = static_cast<double>(part(i, j));
      auto const wide = row_major(static_cast<double const*>(to), part.shape());
      return flipped ? wide.t() : wide;
    };
    auto const multiply = [&](auto... arguments) { product(worker, arguments...); };
    auto const wide_a = widen(a, left);
    if (a.data == b.data) return accumulate_lower(wide_a, tile, multiply);
    accumulate_tile<double>(1.0, wide_a.t(), widen(b, left + gram_height * gram_width), tile, multiply);
  };
  sum_gram_tiles(exec, "gram", y, c, gram_width, add);
}

/// c(i, i) += the squares of column i of y, at most 256 columns.
inline void add_squares(matrix_view<float const> y, matrix_view<double> c) {
  std::array<double, 256> sum{};
  if (y.col_stride <= y.row_stride)
    for (index_t k = 0; k < y.rows; ++k)
      for (index_t i = 0; i < y.cols; ++i)
        sum[static_cast<std::size_t>(i)] += static_cast<double>(y(k, i)) * static_cast<double>(y(k, i));
  else
    for (index_t i = 0; i < y.cols; ++i)
      for (index_t k = 0; k < y.rows; ++k)
        sum[static_cast<std::size_t>(i)] += static_cast<double>(y(k, i)) * static_cast<double>(y(k, i));
  for (index_t i = 0; i < y.cols; ++i) c(i, i) += sum[static_cast<std::size_t>(i)];
}

/// Columns of a tile of a Gram with fp32 products.
inline constexpr index_t mixed_gram_width = 192;

/// C = Yᵀ Y with fp32 products over blocks of rows, which are summed in fp64. The diagonal, where nothing cancels and
/// rounding adds up, is fp64 throughout.
template <class Product>
void gram_mixed_by_tiles(host_executor& exec, matrix_view<float const> y, matrix_view<double> c,
                         Product const& product) {
  auto const add = [&](int worker, matrix_view<float const> a, matrix_view<float const> b, matrix_view<double> tile) {
    auto const part = row_major(reinterpret_cast<float*>(exec.worker_memory(worker)), tile.shape());
    bool const diagonal = a.data == b.data;
    scale_tile(0.0F, part);
    auto const multiply = [&](auto... arguments) { product(worker, arguments...); };
    if (diagonal) accumulate_lower(a, part, multiply);
    else accumulate_tile<float>(1.0F, a.t(), b, part, multiply);
    for (index_t i = 0; i < tile.rows; ++i) {
      index_t const count = diagonal ? i : tile.cols;
      for (index_t j = 0; j < count; ++j) tile(i, j) += static_cast<double>(part(i, j));
    }
    if (diagonal) add_squares(a, tile);
  };
  sum_gram_tiles(exec, "gram_mixed", y, c, mixed_gram_width, add);
}

/// Where a tile product may pack operands: behind the two widened panels of `gram_by_tiles`.
inline constexpr index_t panel_bytes = 2 * gram_height * gram_width * index_t{sizeof(double)};

}  // namespace lowrank::detail
