/// @file
/// Views of memory that somebody else's program has, from pointers and sizes, checked once where they come in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <tuple>
#include <type_traits>

#include "lowrank/core/error.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank::raw {

namespace detail {

/// Whether two elements share an address: some (di, dj) != 0 inside the matrix with di row_stride = dj col_stride.
[[nodiscard]] constexpr bool collides(extents shape, index_t row_stride, index_t col_stride) noexcept {
  if (shape.rows == 0 || shape.cols == 0) return false;
  index_t const common = std::gcd(row_stride, col_stride);
  if (common == 0) return shape.rows > 1 || shape.cols > 1;
  return col_stride / common < shape.rows && row_stride / common < shape.cols;
}

/// Whether `count` steps of `stride` elements stay below `limit`.
[[nodiscard]] constexpr bool reaches(index_t count, index_t stride, index_t limit) noexcept {
  return count <= 0 || stride <= limit / count;
}

}  // namespace detail

/// rows x cols elements at `data`, strides counted in elements. For device memory name the space: strided<device_space>(...).
/// Throws: shape_error for negative or overflowing sizes and strides, and for strides that put two elements of a writable
/// matrix at one address; argument_error for a null pointer where there are elements, and for a misaligned one.
template <memory_space Space = host_space, class T>
[[nodiscard]] matrix_view<T, Space> strided(T* data, index_t rows, index_t cols, index_t row_stride,
                                            index_t col_stride) {
  constexpr auto caller = "raw::strided";
  constexpr index_t limit = std::numeric_limits<index_t>::max() / 2 / index_t{sizeof(T)};
  extents const shape{rows, cols};
  require<shape_error>(rows >= 0 && cols >= 0, caller, "rows and cols must not be negative, got ", shape);
  require<shape_error>(row_stride >= 0 && col_stride >= 0, caller, "strides must not be negative, got ", row_stride,
                       " and ", col_stride);
  require<shape_error>(lowrank::raw::detail::reaches(rows, std::max(cols, row_stride), limit) &&
                           lowrank::raw::detail::reaches(cols, col_stride, limit),
                       caller, "rows, cols and strides must stay below ", limit, " elements, got ", shape,
                       " with strides ", row_stride, " and ", col_stride);
  require(data != nullptr || rows == 0 || cols == 0, caller, "needs memory for ", shape,
          " elements, got a null pointer");
  require(reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0, caller, "the pointer must be aligned to ",
          alignof(T), " bytes, got ", static_cast<void const*>(data));
  if constexpr (!std::is_const_v<T>)
    require<shape_error>(!lowrank::raw::detail::collides(shape, row_stride, col_stride), caller,
                         "elements of a writable matrix must not share memory, got ", shape, " with strides ",
                         row_stride, " and ", col_stride);
  return {data, rows, cols, row_stride, col_stride};
}

/// Rows one after the other, `leading` elements from one to the next (C, numpy, torch).
template <memory_space Space = host_space, class T>
[[nodiscard]] matrix_view<T, Space> row_major(T* data, index_t rows, index_t cols, index_t leading) {
  require<shape_error>(leading >= cols, "raw::row_major", "the leading dimension must be at least cols, ", cols,
                       ", got ", leading);
  return strided<Space>(data, rows, cols, leading, 1);
}
template <memory_space Space = host_space, class T>
[[nodiscard]] matrix_view<T, Space> row_major(T* data, index_t rows, index_t cols) {
  return strided<Space>(data, rows, cols, cols, 1);
}

/// Columns one after the other, `leading` elements from one to the next (BLAS, Fortran, Eigen and Armadillo by default).
template <memory_space Space = host_space, class T>
[[nodiscard]] matrix_view<T, Space> column_major(T* data, index_t rows, index_t cols, index_t leading) {
  require<shape_error>(leading >= rows, "raw::column_major", "the leading dimension must be at least rows, ", rows,
                       ", got ", leading);
  return strided<Space>(data, rows, cols, 1, leading);
}
template <memory_space Space = host_space, class T>
[[nodiscard]] matrix_view<T, Space> column_major(T* data, index_t rows, index_t cols) {
  return strided<Space>(data, rows, cols, 1, rows);
}

/// A parameter of one dimension, as the 1 x n matrix that optimizers take.
template <memory_space Space = host_space, class T>
[[nodiscard]] matrix_view<T, Space> vector(T* data, index_t size) {
  return strided<Space>(data, 1, size, size, 1);
}

/// Equal matrices one after the other, such as one weight of all layers of a model. Made by `layers` or `flat_buffer`.
template <class T, memory_space Space = host_space>
struct layer_stack {
  T* data{};
  index_t count{};
  extents each{};

  [[nodiscard]] index_t size() const noexcept { return count; }
  [[nodiscard]] matrix_view<T, Space> operator[](index_t layer) const {
    require<shape_error>(layer >= 0 && layer < count, "raw::layer_stack", "there are ", count,
                         " layers, asked for number ", layer);
    return lowrank::row_major<Space>(data + layer * each.size(), each);
  }
};

/// `count` packed row-major rows x cols matrices at `data`. Vectors of all layers: rows = 1.
template <memory_space Space = host_space, class T>
[[nodiscard]] layer_stack<T, Space> layers(T* data, index_t count, index_t rows, index_t cols) {
  require<shape_error>(count >= 0, "raw::layers", "the number of layers must not be negative, got ", count);
  auto const each = row_major<Space>(data, rows, cols);
  // All layers as one tall matrix: the same questions about size, null and alignment.
  require<shape_error>(lowrank::raw::detail::reaches(count, rows, std::numeric_limits<index_t>::max()), "raw::layers",
                       "too many rows: ", count, " layers of ", each.shape());
  std::ignore = row_major<Space>(data, count * rows, cols);
  return {data, count, each.shape()};
}

/// All parameters of a model in one allocation, as llm.c has them: tensors are cut off the front, in order.
/// Throws: shape_error where a tensor would end behind the buffer.
template <class T, memory_space Space = host_space>
class flat_buffer {
 public:
  flat_buffer(T* data, index_t size) : all_{raw::vector<Space>(data, size)} {}

  [[nodiscard]] index_t used() const noexcept { return used_; }
  [[nodiscard]] index_t left() const noexcept { return all_.cols - used_; }

  [[nodiscard]] matrix_view<T, Space> matrix(index_t rows, index_t cols) { return layers(1, rows, cols)[0]; }
  [[nodiscard]] matrix_view<T, Space> vector(index_t size) { return matrix(1, size); }
  /// One tensor of all layers: `count` matrices.
  [[nodiscard]] layer_stack<T, Space> layers(index_t count, index_t rows, index_t cols) {
    require<shape_error>(count >= 0 && rows >= 0 && cols >= 0, "raw::flat_buffer", "sizes must not be negative, got ",
                         count, " of ", extents{rows, cols});
    using lowrank::raw::detail::reaches;
    require<shape_error>(reaches(rows, cols, left()) && reaches(count, rows * cols, left()), "raw::flat_buffer",
                         "needs ", count, " matrices of ", extents{rows, cols}, " at element ", used_, ", only ",
                         left(), " are left");
    layer_stack<T, Space> const cut{all_.data + used_, count, {rows, cols}};
    used_ += count * rows * cols;
    return cut;
  }
  /// Throws state_error unless every element belongs to a tensor: a forgotten tensor shifts none of the others.
  void require_used_up() const {
    require<state_error>(left() == 0, "raw::flat_buffer", left(), " of ", all_.cols, " elements belong to no tensor");
  }

 private:
  matrix_view<T, Space> all_;
  index_t used_{};
};
template <class T>
flat_buffer(T*, index_t) -> flat_buffer<T>;

}  // namespace lowrank::raw
