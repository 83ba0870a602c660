#pragma once

#include <cblas.h>

#include <algorithm>

#include "lowrank/linalg/host/blas_executor.hpp"
#include "lowrank/linalg/host/detail/tiled_products.hpp"

namespace lowrank::detail {

/// Columns of a tile of C, and the most rows of Y that are widened at a time.
inline constexpr index_t syrk_width = 288, syrk_height = 384;
/// Between rows in memory, which would else lie whole pages apart and share cache lines.
inline constexpr index_t row_padding = 8;

/// Rows of Y, widened to fp64 once for all tiles: element (k, j) at data[k * leading + j], or at data[j * leading + k].
struct widened_rows {
  double* data;
  index_t leading, rows;
  bool row_major;

  [[nodiscard]] double const* column(index_t j) const noexcept { return data + (row_major ? j : j * leading); }
};

/// In `memory`, along the memory of Y.
[[nodiscard]] inline widened_rows widen_rows(blas_executor& exec, matrix_view<float const> rows, double* memory) {
  bool const row_major = rows.row_stride >= rows.col_stride;
  auto const from = row_major ? rows : rows.t();
  index_t const group = 32, leading = from.cols + row_padding;
  exec.parallel((from.rows + group - 1) / group, [=](index_t number) {
    for (index_t i = number * group; i < std::min(from.rows, (number + 1) * group); ++i)
      for (index_t j = 0; j < from.cols; ++j) memory[i * leading + j] = static_cast<double>(from(i, j));
  });
  return {memory, leading, rows.rows, row_major};
}

/// tile = beta tile + aᵀ b for the columns of the tile, on its diagonal and below.
inline void add_gram_tile(widened_rows const& y, block at, double beta, matrix_view<double> c) {
  auto const size = [](index_t x) { return static_cast<int>(x); };
  auto const tile = c.sub(at);
  int const depth = size(y.rows), leading = size(y.leading), out = size(c.row_stride);
  // Our rows are the library's columns.
  auto const plain = y.row_major ? CblasNoTrans : CblasTrans, flipped = y.row_major ? CblasTrans : CblasNoTrans;
  if (at.row_begin == at.col_begin)
    cblas_dsyrk(CblasColMajor, CblasUpper, plain, size(tile.rows), depth, 1, y.column(at.row_begin), leading, beta,
                tile.data, out);
  else
    cblas_dgemm(CblasColMajor, plain, flipped, size(tile.cols), size(tile.rows), depth, 1, y.column(at.col_begin),
                leading, y.column(at.row_begin), leading, beta, tile.data, out);
}

/// The upper triangle of C becomes the transpose of the lower one.
inline void mirror_lower(blas_executor& exec, matrix_view<double> c) {
  // Of squares whose rows stay in the cache while they are turned, whole pages apart as they are.
  constexpr index_t edge = 8;
  exec.parallel((c.rows + edge - 1) / edge, [=](index_t number) {
    index_t const begin = number * edge, end = std::min(c.rows, begin + edge);
    for (index_t column = 0; column < end; column += edge)
      for (index_t i = begin; i < end; ++i)
        for (index_t j = column; j < std::min(i, column + edge); ++j) c(j, i) = c(i, j);
  });
}

/// Rows of n columns that the memory of a worker takes, in either order.
[[nodiscard]] inline index_t rows_that_fit(blas_executor const& exec, index_t n) noexcept {
  return exec.worker_bytes() / index_t{sizeof(double)} / (n + row_padding) - row_padding;
}
/// C = Yᵀ Y, both triangles. Every element is widened once, where `gram_by_tiles` widens it for every tile that it meets; the
/// widened rows lie in the memory of the worker that calls.
inline void gram_by_panels(blas_executor& exec, matrix_view<float const> y, matrix_view<double> c) {
  require<shape_error>(c.rows == y.cols && c.cols == y.cols, "gram", "needs an l x l result for m x l, got ", c.shape(),
                       " for ", y.shape());
  index_t const n = y.cols, side = (n + syrk_width - 1) / syrk_width;
  int mine = 0;
  exec.parallel(1, [&](index_t, int worker) { mine = worker; });
  auto* const memory = reinterpret_cast<double*>(exec.worker_memory(mine));
  index_t const height = std::min(syrk_height, rows_that_fit(exec, n));
  for (index_t k = 0; k < y.rows; k += height) {
    auto const rows = widen_rows(exec, y.row_range(k, std::min(k + height, y.rows)), memory);
    exec.parallel(side * (side + 1) / 2, [&](index_t number) {
      add_gram_tile(rows, lower_tile(number, syrk_width, n), k == 0 ? 0.0 : 1.0, c);
    });
  }
  mirror_lower(exec, c);
}
/// Whether it pays and there is memory for a few rows at least. C has neighbouring columns, as libraries want it.
[[nodiscard]] inline bool takes_panels(blas_executor const& exec, matrix_view<float const> y,
                                       matrix_view<double> c) noexcept {
  return y.cols > gram_width && y.rows > 0 && (y.row_stride == 1 || y.col_stride == 1) && c.col_stride == 1 &&
         rows_that_fit(exec, y.cols) >= 64;
}

/// Columns of a tile of a mixed Gram, and rows of Y whose products are summed in fp32.
inline constexpr index_t mixed_width = 256, mixed_height = 512;

/// part (row-major) = aᵀ b for columns of Y, on its diagonal and below where they are the same.
inline void mixed_gram_tile(matrix_view<float const> a, matrix_view<float const> b, matrix_view<float> part) {
  auto const size = [](index_t x) { return static_cast<int>(x); };
  bool const row_major = a.row_stride >= a.col_stride;
  int const depth = size(a.rows), leading = size(row_major ? a.row_stride : a.col_stride);
  // Our rows are the library's columns.
  auto const plain = row_major ? CblasNoTrans : CblasTrans, flipped = row_major ? CblasTrans : CblasNoTrans;
  if (a.data == b.data)
    cblas_ssyrk(CblasColMajor, CblasUpper, plain, size(a.cols), depth, 1, a.data, leading, 0, part.data,
                size(part.row_stride));
  else
    cblas_sgemm(CblasColMajor, plain, flipped, size(b.cols), size(a.cols), depth, 1, b.data, leading, a.data, leading,
                0, part.data, size(part.row_stride));
}

/// C = Yᵀ Y, both triangles, as `gram_mixed_by_tiles`, by larger tiles and with the library's symmetric product.
inline void gram_mixed_by_blas(blas_executor& exec, matrix_view<float const> y, matrix_view<double> c) {
  require<shape_error>(c.rows == y.cols && c.cols == y.cols, "gram_mixed", "needs an l x l result for m x l, got ",
                       c.shape(), " for ", y.shape());
  index_t const side = (y.cols + mixed_width - 1) / mixed_width;
  exec.parallel(side * (side + 1) / 2, [&](index_t number, int worker) {
    block const at = lower_tile(number, mixed_width, y.cols);
    auto const tile = c.sub(at);
    auto const part = row_major(reinterpret_cast<float*>(exec.worker_memory(worker)), tile.shape());
    bool const diagonal = at.row_begin == at.col_begin;
    for (index_t k = 0; k < y.rows; k += mixed_height) {
      auto const rows = y.row_range(k, std::min(k + mixed_height, y.rows));
      mixed_gram_tile(rows.col_range(at.row_begin, at.row_end), rows.col_range(at.col_begin, at.col_end), part);
      for (index_t i = 0; i < tile.rows; ++i) {
        index_t const count = diagonal ? i : tile.cols;
        if (k == 0)
          for (index_t j = 0; j < count; ++j) tile(i, j) = static_cast<double>(part(i, j));
        else
          for (index_t j = 0; j < count; ++j) tile(i, j) += static_cast<double>(part(i, j));
      }
      if (!diagonal) continue;
      if (k == 0)
        for (index_t i = 0; i < tile.rows; ++i) tile(i, i) = 0;
      add_squares(rows.col_range(at.row_begin, at.row_end), tile);
    }
  });
  mirror_lower(exec, c);
}
/// Whether `gram_mixed_by_blas` can: strides that libraries take (those of a single row need not be), memory for a tile.
[[nodiscard]] inline bool takes_mixed_tiles(blas_executor const& exec, matrix_view<float const> y,
                                            matrix_view<double> c) noexcept {
  return y.rows > 1 && (y.row_stride == 1 || y.col_stride == 1) && c.col_stride == 1 &&
         exec.worker_bytes() >= mixed_width * mixed_width * index_t{sizeof(float)};
}

}  // namespace lowrank::detail
