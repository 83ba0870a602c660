/// @file
/// Sums over a matrix on a device: the overloads of linalg/reductions.hpp, in fp64 and in the same order. Products of
/// two fp32 numbers are exact in fp64, so the bits are the host's whether or not sums are contracted.
#pragma once

#include "lowrank/linalg/cuda/elementwise.cuh"
#include "lowrank/linalg/reductions.hpp"

namespace lowrank {

namespace detail {

/// The sum of `warp_ordered_sum` by the lanes of a warp: four neighbouring accumulators each.
class lane_ordered_sum {
 public:
  /// term(j) for every column j of a row.
  template <class Term>
  __device__ void add_row(index_t count, int lane, Term const& term) {
    index_t j = 4 * lane;
#pragma unroll 4
    for (; j + 4 <= count; j += width)
#pragma unroll
      for (int k = 0; k < 4; ++k) sum_[k] += term(j + k);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (j + k < count) sum_[k] += term(j + k);
  }
  /// The squares of a row whose elements are neighbours, at an address that four of them divide.
  template <class T>
  __device__ void add_squares(T const* x, index_t count, int lane) {
    using four_numbers = std::conditional_t<sizeof(T) == sizeof(float), uint4, uint2>;
    auto const* const words = reinterpret_cast<four_numbers const*>(x);
    // Several loads before the first sum, because one a lane does not keep the memory busy.
    constexpr int under_way = 8;
    index_t j = lane;
    for (; 4 * (j + (under_way - 1) * warp_lanes) + 4 <= count; j += under_way * warp_lanes) {
      four_numbers four[under_way];
#pragma unroll
      for (int k = 0; k < under_way; ++k) four[k] = words[j + k * warp_lanes];
#pragma unroll
      for (int k = 0; k < under_way; ++k) add<T>(four[k]);
    }
    for (; 4 * j + 4 <= count; j += warp_lanes) add<T>(words[j]);
    T const* const rest = x + 4 * j;
    index_t const left = count - 4 * j;
    if (left > 0) sum_[0] += square(to_float(rest[0]));
    if (left > 1) sum_[1] += square(to_float(rest[1]));
    if (left > 2) sum_[2] += square(to_float(rest[2]));
  }
  /// In lane 0.
  [[nodiscard]] __device__ double total() const { return warp_sum((sum_[0] + sum_[1]) + (sum_[2] + sum_[3])); }

 private:
  static constexpr index_t width = warp_ordered_sum::width;

  template <class T, class Word>
  __device__ void add(Word const& four) {
    T x[4];
    memcpy(x, &four, sizeof x);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum_[k] += square(to_float(x[k]));
  }
  [[nodiscard]] __device__ static double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

  double sum_[4]{};
};

/// How the rows of a matrix lie, for loads of four elements.
enum class row_layout : std::uint8_t { strided, aligned };

template <class T>
[[nodiscard]] row_layout layout_of(matrix_view<T, device_space> v) noexcept {
  bool const fits =
      v.col_stride == 1 && v.row_stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % (4 * sizeof(T)) == 0;
  return fits ? row_layout::aligned : row_layout::strided;
}

template <class T>
__device__ void add_row_squares(lane_ordered_sum& sum, matrix_view<T const, device_space> v, index_t i,
                                row_layout layout, int lane) {
  T const* const row = v.data + i * v.row_stride;
  if (layout == row_layout::aligned) return sum.add_squares(row, v.cols, lane);
  sum.add_row(v.cols, lane, [=](index_t j) {
    auto const x = static_cast<double>(to_float(row[j * v.col_stride]));
    return x * x;
  });
}

/// *out = the sum of add(sum, begin, end, lane) over groups of rows of a matrix of that shape, a warp each, then of the
/// groups.
template <class Add>
void sum_row_groups(cuda_executor& exec, char const* caller, extents shape, double* out, Add const& add) {
  row_groups const groups{shape};
  auto* const partial = panel<double>(exec, caller, groups.count());
  for_warps(exec, groups.count(), [=] __device__(index_t number, int lane) {
    lane_ordered_sum sum;
    add(sum, groups.begin(number), groups.end(number), lane);
    double const total = sum.total();
    if (lane == 0) partial[number] = total;
  });
  for_warps(exec, 1, [=, count = groups.count()] __device__(index_t, int lane) {
    lane_ordered_sum sum;
    sum.add_row(count, lane, [=](index_t number) { return partial[number]; });
    double const total = sum.total();
    if (lane == 0) *out = total;
  });
}

template <class T>
void sum_squares(cuda_executor& exec, matrix_view<T const, device_space> a, double* out) {
  auto v = memory_order(a);
  auto const layout = layout_of(v);
  // Rows of whole stretches that follow each other are summed as one: more is under way at a time.
  bool const joined = layout == row_layout::aligned && v.is_row_major() && v.cols % warp_ordered_sum::width == 0;
  sum_row_groups(exec, "squared_norm", v.shape(), out, [=] __device__(auto& sum, index_t begin, index_t end, int lane) {
    if (joined) return sum.add_squares(v.data + begin * v.row_stride, (end - begin) * v.cols, lane);
    for (index_t i = begin; i < end; ++i) add_row_squares(sum, v, i, layout, lane);
  });
}

}  // namespace detail

/// As squared_norm(host_executor&, ...), with the same bits.
inline void squared_norm(cuda_executor& exec, matrix_view<float const, device_space> a, double* out) {
  detail::sum_squares(exec, a, out);
}
template <narrow_float T>
void squared_norm(cuda_executor& exec, matrix_view<T const, device_space> a, double* out) {
  detail::sum_squares(exec, a, out);
}

/// As row_mean_squares(host_executor&, ...), with the same means; `use` is a device function.
template <class Use>
void row_mean_squares(cuda_executor& exec, matrix_view<float const, device_space> a, Use const& use) {
  double const count = static_cast<double>(std::max<index_t>(a.cols, 1));
  if (a.col_stride <= a.row_stride) {
    auto const layout = detail::layout_of(a);
    return detail::for_warps(exec, a.rows, [=] __device__(index_t i, int lane) {
      detail::lane_ordered_sum sum;
      detail::add_row_squares(sum, a, i, layout, lane);
      double const total = sum.total();
      if (lane == 0) use(i, total / count);
    });
  }
  detail::for_elements(exec, {1, a.rows}, [=] __device__(index_t, index_t i) {
    double sum = 0;
#pragma unroll 8
    for (index_t j = 0; j < a.cols; ++j) {
      auto const x = static_cast<double>(a(i, j));
      sum += x * x;
    }
    use(i, sum / count);
  });
}

/// *out = sum of the elementwise products of A and B in fp64, with the same bits.  Shapes: equal.
inline void inner_product(cuda_executor& exec, matrix_view<float const, device_space> a,
                          matrix_view<float const, device_space> b, double* out) {
  require<shape_error>(a.shape() == b.shape(), "inner_product", "needs equal shapes, got ", a.shape(), " and ",
                       b.shape());
  if (detail::sums_down(a)) a = a.t(), b = b.t();
  detail::sum_row_groups(
      exec, "inner_product", a.shape(), out, [=] __device__(auto& sum, index_t begin, index_t end, int lane) {
        for (index_t i = begin; i < end; ++i)
          sum.add_row(a.cols, lane,
                      [=](index_t j) { return static_cast<double>(a(i, j)) * static_cast<double>(b(i, j)); });
      });
}

}  // namespace lowrank
