/// @file
/// Products of blocks that live in cache, by one thread: what attention does inside the task of one head, where cutting
/// work at the diagonal saves half of it and a call into the library's products would cost more than the product.
#pragma once

#include "lanes.hpp"

namespace llama {

enum class writing : std::uint8_t { overwrite, add };

namespace detail {

/// Rows x (2 registers) of C, kept in registers over the whole depth.
template <class T, int Rows>
LOWRANK_INLINE void register_tile(T const* a, index_t a_row, index_t a_depth, T const* b, index_t b_depth, T* c,
                                  index_t c_row, index_t depth, writing how) noexcept {
  constexpr index_t width = lanes<T>::count;
  lanes_t<T> sums[Rows][2] = {};
  if (how == writing::add)
    for (int r = 0; r < Rows; ++r)
      for (int h = 0; h < 2; ++h) load<T>(sums[r][h], c + r * c_row + h * width);
  for (index_t k = 0; k < depth; ++k) {
    lanes_t<T> left, right;
    load<T>(left, b + k * b_depth);
    load<T>(right, b + k * b_depth + width);
    for (int r = 0; r < Rows; ++r) {
      T const x = a[r * a_row + k * a_depth];
      sums[r][0] += x * left;
      sums[r][1] += x * right;
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int h = 0; h < 2; ++h) store<T>(c + r * c_row + h * width, sums[r][h]);
}

template <class T, int Rows>
void product_rows(T const* a, index_t a_row, index_t a_depth, T const* b, index_t b_depth, T* c, index_t c_row,
                  index_t cols, index_t depth, writing how) noexcept {
  constexpr index_t step = 2 * lanes<T>::count;
  index_t j = 0;
  for (; j + step <= cols; j += step)
    register_tile<T, Rows>(a, a_row, a_depth, b + j, b_depth, c + j, c_row, depth, how);
  for (; j < cols; ++j)
    for (int r = 0; r < Rows; ++r) {
      T total = how == writing::add ? c[r * c_row + j] : T{};
      for (index_t k = 0; k < depth; ++k) total += a[r * a_row + k * a_depth] * b[k * b_depth + j];
      c[r * c_row + j] = total;
    }
}

}  // namespace detail

/// Rows a small product takes at once; work at the diagonal is cut at multiples of it.
inline constexpr index_t block_rows = 4;

/// C = A B or C += A B.
/// Shapes: A m x k, any strides; B k x n and C m x n with unit column stride. Fast for n a multiple of two registers.
template <class T>
void small_product(lowrank::matrix_view<T const> a, lowrank::matrix_view<T const> b, lowrank::matrix_view<T> c,
                   writing how) noexcept {
  index_t i = 0;
  for (; i + block_rows <= c.rows; i += block_rows)
    detail::product_rows<T, block_rows>(a.data + i * a.row_stride, a.row_stride, a.col_stride, b.data, b.row_stride,
                                        c.data + i * c.row_stride, c.row_stride, c.cols, a.cols, how);
  for (; i < c.rows; ++i)
    detail::product_rows<T, 1>(a.data + i * a.row_stride, a.row_stride, a.col_stride, b.data, b.row_stride,
                               c.data + i * c.row_stride, c.row_stride, c.cols, a.cols, how);
}

/// to = fromᵀ; row i of `from` becomes column i. Columns of `to` beyond are set to zero.
template <class T>
void transpose_padded(lowrank::matrix_view<T const> from, lowrank::matrix_view<T> to) noexcept {
  constexpr index_t tile = 8;
  for (index_t j0 = 0; j0 < from.rows; j0 += tile)
    for (index_t i = 0; i < from.cols; ++i)
      for (index_t j = j0; j < std::min(from.rows, j0 + tile); ++j) to(i, j) = from(j, i);
  for (index_t i = 0; i < to.rows; ++i)
    for (index_t j = from.rows; j < to.cols; ++j) to(i, j) = T{};
}

}  // namespace llama
