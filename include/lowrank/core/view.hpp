/// @file
/// A strided matrix that somebody else owns.
#pragma once

#include <concepts>
#include <cstdint>
#include <ostream>
#include <type_traits>

#include "lowrank/core/config.hpp"
#include "lowrank/core/space.hpp"

namespace lowrank {

/// Rows and columns.
struct extents {
  index_t rows{}, cols{};

  [[nodiscard]] LOWRANK_HD constexpr index_t size() const noexcept { return rows * cols; }
  [[nodiscard]] LOWRANK_HD constexpr extents t() const noexcept { return {cols, rows}; }
  friend constexpr bool operator==(extents const&, extents const&) = default;
  friend std::ostream& operator<<(std::ostream& out, extents e) { return out << e.rows << "x" << e.cols; }
};

/// A rectangle of a matrix: half-open ranges of rows and columns.
struct block {
  index_t row_begin{}, row_end{}, col_begin{}, col_end{};

  [[nodiscard]] constexpr extents shape() const noexcept { return {row_end - row_begin, col_end - col_begin}; }
};

/// Non-owning matrix: pointer, shape, two strides counted in elements. Trivially copyable; passed by value, also to
/// kernels. Elements of a device view can be reached in kernels only; on the host it can be passed on, flipped and
/// cut.
template <class T, memory_space Space = host_space>
struct matrix_view {
  using element_type = T;
  using value_type = std::remove_const_t<T>;
  using space = Space;

  T* data{};
  index_t rows{}, cols{}, row_stride{}, col_stride{};

  [[nodiscard]] LOWRANK_HD constexpr extents shape() const noexcept { return {rows, cols}; }
  [[nodiscard]] LOWRANK_HD constexpr index_t size() const noexcept { return rows * cols; }
  [[nodiscard]] LOWRANK_HD constexpr bool empty() const noexcept { return rows == 0 || cols == 0; }

  /// The transposed matrix, without moving anything: `t()(j, i)` is `(i, j)`.
  [[nodiscard]] LOWRANK_HD constexpr matrix_view t() const noexcept {
    return {data, cols, rows, col_stride, row_stride};
  }
  /// The part of the matrix inside `b`, which must lie inside it.
  [[nodiscard]] LOWRANK_HD constexpr matrix_view sub(block b) const noexcept {
    return {data + b.row_begin * row_stride + b.col_begin * col_stride, b.row_end - b.row_begin,
            b.col_end - b.col_begin, row_stride, col_stride};
  }
  /// Rows [begin, end).
  [[nodiscard]] LOWRANK_HD constexpr matrix_view row_range(index_t begin, index_t end) const noexcept {
    return sub({begin, end, 0, cols});
  }
  /// Columns [begin, end).
  [[nodiscard]] LOWRANK_HD constexpr matrix_view col_range(index_t begin, index_t end) const noexcept {
    return sub({0, rows, begin, end});
  }
  /// Elements follow each other in memory, row after row.
  [[nodiscard]] LOWRANK_HD constexpr bool is_row_major() const noexcept {
    return (col_stride == 1 || cols <= 1) && (row_stride == cols || rows <= 1);
  }
  [[nodiscard]] LOWRANK_HD constexpr T& operator()(index_t i,
                                                   index_t j) const noexcept requires std::same_as<Space, host_space> {
    return data[i * row_stride + j * col_stride];
  }
#if defined(LOWRANK_DEVICE_COMPILER)
  [[nodiscard]] LOWRANK_DEVICE constexpr T& operator()(
      index_t i, index_t j) const noexcept requires std::same_as<Space, device_space> {
    return data[i * row_stride + j * col_stride];
  }
#endif
  template <class Constant>
    requires(!std::is_const_v<T> && std::same_as<Constant, T const>)
  LOWRANK_HD constexpr operator matrix_view<Constant, Space>() const noexcept {  // NOLINT(google-explicit-constructor)
    return {data, rows, cols, row_stride, col_stride};
  }
};

static_assert(std::is_trivially_copyable_v<matrix_view<float, device_space>>);
static_assert(std::is_convertible_v<matrix_view<float>, matrix_view<float const>>);
static_assert(!std::is_convertible_v<matrix_view<float, device_space>, matrix_view<float, host_space>>);

/// A packed row-major rows x cols matrix at `data`.
template <memory_space Space = host_space, class T>
[[nodiscard]] constexpr matrix_view<T, Space> row_major(T* data, extents shape) noexcept {
  return {data, shape.rows, shape.cols, shape.cols, 1};
}

/// Which side of W the basis multiplies. Everything is written for `left`; `right` is the flipped view.
enum class side : std::uint8_t { left, right };

/// The matrix as the basis sees it: m x n with an m x r basis, whatever the side.
template <class T, memory_space Space>
[[nodiscard]] constexpr matrix_view<T, Space> facing(side s, matrix_view<T, Space> view) noexcept {
  return s == side::left ? view : view.t();
}
[[nodiscard]] constexpr extents facing(side s, extents shape) noexcept { return s == side::left ? shape : shape.t(); }

/// A facing matrix of that shape whose memory is packed row-major in the WEIGHT's own orientation, so that blocks of a
/// quantized state and saved tensors fall where the published implementations have them, on either side.
template <memory_space Space = host_space, class T>
[[nodiscard]] constexpr matrix_view<T, Space> natural(side s, T* data, extents facing_shape) noexcept {
  return s == side::left ? row_major<Space>(data, facing_shape) : row_major<Space>(data, facing_shape.t()).t();
}

/// Whether two views share any byte between their first and last elements (strides taken as non-negative).
template <class A, class B, memory_space Space>
[[nodiscard]] bool overlap(matrix_view<A, Space> a, matrix_view<B, Space> b) noexcept {
  if (a.empty() || b.empty()) return false;
  auto const last = [](auto v) { return v.data + (v.rows - 1) * v.row_stride + (v.cols - 1) * v.col_stride + 1; };
  auto const address = [](auto const* p) { return reinterpret_cast<std::uintptr_t>(p); };
  return address(a.data) < address(last(b)) && address(b.data) < address(last(a));
}

}  // namespace lowrank
