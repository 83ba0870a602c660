#pragma once

#include <algorithm>

#include "lowrank/core/view.hpp"

namespace lowrank::detail {

/// How the output of a product is cut into tiles: by its shape alone. Each tile is computed by one thread in one order,
/// so the bits of a product do not depend on how many threads there are.
struct product_partition {
  index_t tile_rows, tile_cols, across, down;

  static constexpr index_t largest = 384, smallest = 64, worth_splitting = 1 << 20;

  /// Tiles of at most `limit` rows and columns, at least `tiles_wanted` of them where the work is worth it.
  constexpr product_partition(extents out, index_t depth, index_t limit = largest, index_t tiles_wanted = 4) noexcept
      : tile_rows{out.rows}, tile_cols{out.cols}, across{1}, down{1} {
    // Halving, so that the number of tiles is a power of two and shares out evenly over 2, 4, 8 threads.
    while (tile_rows > limit) tile_rows = half(tile_rows);
    while (tile_cols > limit) tile_cols = half(tile_cols);
    count(out);
    while (down * across < tiles_wanted && tile_rows * tile_cols * depth > worth_splitting &&
           std::max(tile_rows, tile_cols) >= 2 * smallest) {
      auto& longer = tile_rows >= tile_cols ? tile_rows : tile_cols;
      longer = half(longer);
      count(out);
    }
  }
  [[nodiscard]] constexpr index_t tiles() const noexcept { return down * across; }
  [[nodiscard]] constexpr block tile(index_t number, extents out) const noexcept {
    index_t const i = number / across * tile_rows, j = number % across * tile_cols;
    return {i, std::min(i + tile_rows, out.rows), j, std::min(j + tile_cols, out.cols)};
  }

 private:
  static constexpr index_t half(index_t size) noexcept { return ((size + 1) / 2 + 15) / 16 * 16; }
  constexpr void count(extents out) noexcept {
    down = tile_rows > 0 ? (out.rows + tile_rows - 1) / tile_rows : 0;
    across = tile_cols > 0 ? (out.cols + tile_cols - 1) / tile_cols : 0;
  }
};

/// The operand as a library product wants it: unit stride along rows or along columns. A matrix of one row or column
/// counts as either.
template <class T>
struct unit_stride {
  T* data;
  index_t leading;
  bool row_major, possible;

  explicit constexpr unit_stride(matrix_view<T> v) noexcept
      : data{v.data}, leading{}, row_major{v.col_stride == 1 || v.cols <= 1}, possible{true} {
    if (row_major) leading = v.rows <= 1 ? std::max<index_t>(v.cols, 1) : v.row_stride;
    else leading = v.cols <= 1 ? std::max<index_t>(v.rows, 1) : v.col_stride;
    possible = (row_major || v.row_stride == 1 || v.rows <= 1) && leading >= (row_major ? v.cols : v.rows);
  }
};

/// C = beta C on one tile. With beta = 0, C may hold anything, NaN included.
template <class T>
void scale_tile(T beta, matrix_view<T> c) noexcept {
  if (beta == T{1}) return;
  if (c.row_stride < c.col_stride) c = c.t();
  for (index_t i = 0; i < c.rows; ++i)
    for (index_t j = 0; j < c.cols; ++j) c(i, j) = beta == T{0} ? T{0} : beta * c(i, j);
}

/// For operands no library takes (both strides larger than one): plain loops, fp32 accumulation in index order.
template <class T>
void multiply_strided(T alpha, matrix_view<T const> a, matrix_view<T const> b, matrix_view<T> c) noexcept {
  for (index_t i = 0; i < c.rows; ++i)
    for (index_t j = 0; j < c.cols; ++j) {
      T sum{};
      for (index_t k = 0; k < a.cols; ++k) sum += a(i, k) * b(k, j);
      c(i, j) += alpha * sum;
    }
}

/// C += alpha A B by `product` where it can, by plain loops where strides forbid it. `product` sees a column-major C.
template <class T, class Product>
void accumulate_tile(T alpha, matrix_view<T const> a, matrix_view<T const> b, matrix_view<T> c,
                     Product const& product) {
  if (unit_stride<T>{c}.row_major && c.cols > 1) {
    auto const swap = a;
    a = b.t();
    b = swap.t();
    c = c.t();
  }
  unit_stride<T const> const left{a}, right{b};
  unit_stride<T> const out{c.t()};
  if (left.possible && right.possible && out.row_major && out.possible)
    product(alpha, left, right, out, c.shape(), a.cols);
  else multiply_strided(alpha, a, b, c);
}

}  // namespace lowrank::detail
