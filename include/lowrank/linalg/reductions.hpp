/// @file
/// Sums over a matrix, in fp64 and in one fixed order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/gradient.hpp"

namespace lowrank {

namespace detail {

/// Sum in the order a warp takes: element j of a row belongs to accumulator j mod 128, four neighbours a lane; at the
/// end the four of a lane, then a butterfly over the 32 lanes. The host keeps the device's order so that both get the
/// same bits.
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

/// A row of squares. Unit stride is a loop of its own, because only that one vectorises; it asks for memory ahead of
/// time, because a processor's own prefetching of a single stream stops at each page.
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

/// Rows of a matrix in at most 1024 groups of at least 4096 elements, chosen by shape alone: one for each warp of a
/// device that reads as fast as it can.
struct row_groups {
  static constexpr index_t most = 1024;
  index_t rows, group;

  explicit constexpr row_groups(extents shape) noexcept
      : rows{shape.rows},
        group{std::max<index_t>((shape.rows + most - 1) / most,
                                shape.cols > 0 ? std::max<index_t>(4096 / shape.cols, 1) : 1)} {}
  [[nodiscard]] constexpr index_t count() const noexcept { return (rows + group - 1) / group; }
  [[nodiscard]] constexpr index_t begin(index_t number) const noexcept { return number * group; }
  [[nodiscard]] constexpr index_t end(index_t number) const noexcept { return std::min(rows, (number + 1) * group); }
};

/// Whether a matrix is summed column by column, because these are neighbours in memory; one column is summed as one
/// row.
template <class T, memory_space Space>
[[nodiscard]] constexpr bool sums_down(matrix_view<T, Space> v) noexcept {
  return v.rows > 1 && (v.cols <= 1 || v.row_stride < v.col_stride);
}
/// The orientation in which neighbours of a row are neighbours in memory; a matrix and its transpose come out the same.
template <class T, memory_space Space>
[[nodiscard]] constexpr matrix_view<T, Space> memory_order(matrix_view<T, Space> v) noexcept {
  return sums_down(v) ? v.t() : v;
}

/// *out = the sum of add(sum, i) over the rows i of each group, then of the groups.
template <class Add>
void sum_row_groups(host_executor& exec, extents shape, double* out, Add const& add) {
  row_groups const groups{shape};
  std::array<double, static_cast<std::size_t>(row_groups::most)> partial;
  constexpr index_t together = 4;  // so that a task outweighs handing it over
  exec.parallel((groups.count() + together - 1) / together, [&](index_t task) {
    for (index_t number = task * together; number < std::min(groups.count(), (task + 1) * together); ++number) {
      warp_ordered_sum sum;
      for (index_t i = groups.begin(number); i < groups.end(number); ++i) add(sum, i);
      partial[static_cast<std::size_t>(number)] = sum.total();
    }
  });
  warp_ordered_sum total;
  total.add_row(groups.count(), [&](index_t number) { return partial[static_cast<std::size_t>(number)]; });
  *out = total.total();
}

}  // namespace detail

/// *out = sum of squares of A in fp64. NaN and Inf come through. Bits depend neither on the number of threads nor on
/// whether A or its transpose is given.
/// Cost: reads A once; workspace 0.
inline void squared_norm(host_executor& exec, matrix_view<float const> a, double* out) {
  auto const v = detail::memory_order(a);
  detail::sum_row_groups(exec, v.shape(), out, [=](detail::warp_ordered_sum& sum, index_t i) {
    detail::add_squares(sum, v.data + i * v.row_stride, v.col_stride, v.cols);
  });
}

/// The same for numbers in 16 bits: the bits of their fp32 copy.
template <narrow_float T>
void squared_norm(host_executor& exec, matrix_view<T const> a, double* out) {
  auto const v = detail::memory_order(a);
  detail::sum_row_groups(exec, v.shape(), out, [=](detail::warp_ordered_sum& sum, index_t i) {
    sum.add_row(v.cols, [=](index_t j) {
      auto const x = static_cast<double>(to_float(v(i, j)));
      return x * x;
    });
  });
}

/// use(i, mean of the squares of row i), in fp64, for every row; `use` runs where A lives. Any strides.
template <class Use>
void row_mean_squares(host_executor& exec, matrix_view<float const> a, Use const& use) {
  // Many rows at a time, so that for a transposed view all of what is fetched from memory is used.
  constexpr index_t lines = 64;
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
  if (detail::sums_down(a)) a = a.t(), b = b.t();
  detail::sum_row_groups(exec, a.shape(), out, [=](detail::warp_ordered_sum& sum, index_t i) {
    sum.add_row(a.cols, [=](index_t j) { return static_cast<double>(a(i, j)) * static_cast<double>(b(i, j)); });
  });
}

}  // namespace lowrank
