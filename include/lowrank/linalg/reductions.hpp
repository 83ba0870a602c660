/// @file
/// Sums over a matrix, in fp64 and in one fixed order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "lowrank/core/executor.hpp"

namespace lowrank {

namespace detail {

/// Sum in the order a warp takes: element j of a row belongs to accumulator j mod 128, four neighbours a lane; at the end
/// the four of a lane, then a butterfly over the 32 lanes. The host keeps the device's order so that both get the same bits.
class warp_ordered_sum {
 public:
  static constexpr index_t width = 128;

  /// term(j) for every column j of a row.
  template <class Term>
  LOWRANK_INLINE void add_row(index_t count, Term const& term) noexcept {
    index_t j = 0;
    for (; j + width <= count; j += width)
      for (index_t k = 0; k < width; ++k) sum_[static_cast<std::size_t>(k)] += term(j + k);
    for (index_t k = 0; j + k < count; ++k) sum_[static_cast<std::size_t>(k)] += term(j + k);
  }
  [[nodiscard]] double total() const noexcept {
    std::array<double, 32> lane;
    for (std::size_t l = 0; l < lane.size(); ++l)
      lane[l] = (sum_[4 * l] + sum_[4 * l + 1]) + (sum_[4 * l + 2] + sum_[4 * l + 3]);
    for (std::size_t step = lane.size() / 2; step > 0; step /= 2)
      for (std::size_t l = 0; l < step; ++l) lane[l] += lane[l + step];
    return lane[0];
  }

 private:
  alignas(64) std::array<double, width> sum_{};
};

/// A row of squares. Unit stride is a loop of its own, because only that one vectorises; it asks for memory ahead of time,
/// because a processor's own prefetching of a single stream stops at each page.
LOWRANK_INLINE void add_squares(warp_ordered_sum& sum, float const* x, index_t stride, index_t count) noexcept {
  constexpr index_t width = warp_ordered_sum::width, line = 16, ahead = 2048;  // elements, elements, bytes
  auto const square = [](float value) { return static_cast<double>(value) * static_cast<double>(value); };
  if (stride != 1) return sum.add_row(count, [=](index_t j) { return square(x[j * stride]); });
  for (index_t j = 0; j < count; j += width) {
    for (index_t k = 0; k < width; k += line)  // as numbers, because a pointer may not leave its array
      LOWRANK_PREFETCH(                        // NOLINT(performance-no-int-to-ptr)
          reinterpret_cast<std::uintptr_t>(x + j) + static_cast<std::uintptr_t>(4 * k + ahead));
    sum.add_row(std::min(width, count - j), [from = x + j, square](index_t k) { return square(from[k]); });
  }
}

/// Rows of a matrix in at most 64 groups, chosen by shape alone.
struct row_groups {
  index_t rows, group;

  explicit constexpr row_groups(extents shape) noexcept
      : rows{shape.rows},
        group{
            std::max<index_t>((shape.rows + 63) / 64, shape.cols > 0 ? std::max<index_t>(16384 / shape.cols, 1) : 1)} {}
  [[nodiscard]] constexpr index_t count() const noexcept { return (rows + group - 1) / group; }
};

/// The orientation in which neighbours of a row are neighbours in memory; a matrix and its transpose come out the same.
template <class T>
[[nodiscard]] constexpr matrix_view<T> memory_order(matrix_view<T> v) noexcept {
  return v.row_stride < v.col_stride && v.cols > 1 ? v.t() : v;
}

}  // namespace detail

/// *out = sum of squares of A in fp64. NaN and Inf come through. Bits depend neither on the number of threads nor on
/// whether A or its transpose is given.
/// Cost: reads A once; workspace 0.
inline void squared_norm(host_executor& exec, matrix_view<float const> a, double* out) {
  auto const v = detail::memory_order(a);
  detail::row_groups const groups{v.shape()};
  std::array<double, 64> partial{};
  exec.parallel(groups.count(), [&](index_t number) {
    detail::warp_ordered_sum sum;
    for (index_t i = number * groups.group; i < std::min(v.rows, (number + 1) * groups.group); ++i)
      detail::add_squares(sum, v.data + i * v.row_stride, v.col_stride, v.cols);
    partial[static_cast<std::size_t>(number)] = sum.total();
  });
  double total = 0;
  for (double const part : partial) total += part;
  *out = total;
}

/// use(i, mean of the squares of row i), in fp64, for every row; `use` runs where A lives. Any strides.
template <class Use>
void row_mean_squares(host_executor& exec, matrix_view<float const> a, Use const& use) {
  // Sixteen rows at a time, so that for a transposed view each line of memory fetched is used.
  constexpr index_t lines = 16;
  exec.parallel((a.rows + lines - 1) / lines, [&](index_t task) {
    index_t const begin = task * lines, end = std::min(a.rows, begin + lines);
    std::array<double, lines> sum{};
    if (a.col_stride <= a.row_stride) {
      for (index_t i = begin; i < end; ++i) {
        detail::warp_ordered_sum row;
        detail::add_squares(row, a.data + i * a.row_stride, a.col_stride, a.cols);
        sum[static_cast<std::size_t>(i - begin)] = row.total();
      }
    } else {
      for (index_t j = 0; j < a.cols; ++j)
        for (index_t i = begin; i < end; ++i) {
          auto const x = static_cast<double>(a(i, j));
          sum[static_cast<std::size_t>(i - begin)] += x * x;
        }
    }
    for (index_t i = begin; i < end; ++i)
      use(i, sum[static_cast<std::size_t>(i - begin)] / static_cast<double>(std::max<index_t>(a.cols, 1)));
  });
}

/// *out = sum of the elementwise products of A and B in fp64, the trace inner product.  Shapes: equal.
inline void inner_product(host_executor& exec, matrix_view<float const> a, matrix_view<float const> b, double* out) {
  require<shape_error>(a.shape() == b.shape(), "inner_product", "needs equal shapes, got ", a.shape(), " and ",
                       b.shape());
  detail::row_groups const groups{a.shape()};
  std::array<double, 64> partial{};
  exec.parallel(groups.count(), [&](index_t number) {
    double sum = 0;
    for (index_t i = number * groups.group; i < std::min(a.rows, (number + 1) * groups.group); ++i)
      for (index_t j = 0; j < a.cols; ++j) sum += static_cast<double>(a(i, j)) * static_cast<double>(b(i, j));
    partial[static_cast<std::size_t>(number)] = sum;
  });
  double total = 0;
  for (double const part : partial) total += part;
  *out = total;
}

}  // namespace lowrank
