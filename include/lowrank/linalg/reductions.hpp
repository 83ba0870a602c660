/// @file
/// Sums over a matrix, in fp64 and in one fixed order.
#pragma once

#include <array>

#include "lowrank/core/executor.hpp"

namespace lowrank {

namespace detail {

/// Sum of term(x) over one row segment in the order a warp would take: 256 elements a tile, eight neighbours a lane, a
/// butterfly over 32 lanes. The host keeps the device's order so that both get the same bits.
template <class Term>
[[nodiscard]] double warp_ordered_sum(float const* x, index_t stride, index_t count, Term const& term) noexcept {
  constexpr int lanes = 32, items = 8;
  double total = 0;
  for (index_t start = 0; start < count; start += lanes * items) {
    std::array<double, lanes> lane{};
    index_t const left = count - start;
    if (left >= lanes * items) {
      for (int l = 0; l < lanes; ++l)
        for (int k = 0; k < items; ++k) lane[static_cast<std::size_t>(l)] += term(x[(start + l * items + k) * stride]);
    } else {
      for (index_t e = 0; e < left; ++e) lane[static_cast<std::size_t>(e / items)] += term(x[(start + e) * stride]);
    }
    for (std::size_t step = lanes / 2; step > 0; step /= 2)
      for (std::size_t l = 0; l < step; ++l) lane[l] += lane[l + step];
    total += lane[0];
  }
  return total;
}

/// Rows of a matrix in at most 64 groups, chosen by shape alone.
struct row_groups {
  index_t rows, group;

  explicit constexpr row_groups(extents shape) noexcept
      : rows{shape.rows},
        group{std::max<index_t>((shape.rows + 63) / 64, shape.cols > 0 ? std::max<index_t>(16384 / shape.cols, 1) : 1)} {}
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
    double sum = 0;
    for (index_t i = number * groups.group; i < std::min(v.rows, (number + 1) * groups.group); ++i)
      sum += detail::warp_ordered_sum(v.data + i * v.row_stride, v.col_stride, v.cols,
                                      [](float x) { return static_cast<double>(x) * static_cast<double>(x); });
    partial[static_cast<std::size_t>(number)] = sum;
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
      for (index_t i = begin; i < end; ++i)
        sum[static_cast<std::size_t>(i - begin)] = detail::warp_ordered_sum(
            a.data + i * a.row_stride, a.col_stride, a.cols, [](float x) { return static_cast<double>(x) * static_cast<double>(x); });
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
  require<shape_error>(a.shape() == b.shape(), "inner_product", "needs equal shapes, got ", a.shape(), " and ", b.shape());
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
