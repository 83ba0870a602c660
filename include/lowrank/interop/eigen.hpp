/// @file
/// Eigen's matrices as views and views as Eigen's maps. Nothing is copied.
#pragma once

#include <Eigen/Core>
#include <type_traits>

#include "lowrank/interop/raw.hpp"

namespace lowrank::eigen {

namespace detail {

template <class M>
inline constexpr bool may_own = std::is_base_of_v<Eigen::PlainObjectBase<M>, M>;
/// A read-only Ref holds a copy of what it was given where the storage did not fit.
template <class Plain, int Options, class Strides>
inline constexpr bool may_own<Eigen::Ref<Plain const, Options, Strides>> = true;

template <class T, int Order>
using map_target = std::conditional_t<std::is_const_v<T>, Eigen::Matrix<std::remove_const_t<T>, -1, -1, Order> const,
                                      Eigen::Matrix<std::remove_const_t<T>, -1, -1, Order>>;

}  // namespace detail

/// Something of Eigen's that has its elements in memory: a Matrix or Array, a Map, a Ref, a block of one.
template <class M>
concept dense_storage = std::is_base_of_v<Eigen::DenseBase<std::remove_cvref_t<M>>, std::remove_cvref_t<M>> &&
                        (std::remove_cvref_t<M>::Flags& Eigen::DirectAccessBit) != 0;

/// The elements of `m`, in its storage order and with its strides; read-only where `m` is. A column vector is n x 1: its
/// `.t()` is the 1 x n that optimizers take for vectors.
/// Requires: `m` keeps its memory (no resize) while the view is used.  Throws: as raw::strided.
template <dense_storage M>
[[nodiscard]] auto view(M&& m) {
  using plain = std::remove_cvref_t<M>;
  using scalar = typename plain::Scalar;
  static_assert(std::is_same_v<scalar, float> || std::is_same_v<scalar, double>,
                "lowrank: only matrices of float or double can be viewed");
  static_assert(std::is_lvalue_reference_v<M> || !detail::may_own<plain>,
                "lowrank: this matrix ends with the expression; give it a name first");
  index_t const outer = m.outerStride(), inner = m.innerStride();
  return raw::strided(m.data(), m.rows(), m.cols(), plain::IsRowMajor ? outer : inner,
                      plain::IsRowMajor ? inner : outer);
}

/// A map with any strides: what a view can always be.
template <class T>
[[nodiscard]] auto map(matrix_view<T> v) {
  using strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  return Eigen::Map<detail::map_target<T, Eigen::ColMajor>, Eigen::Unaligned, strides>{
      v.data, v.rows, v.cols, strides{v.col_stride, v.row_stride}};
}

/// A map with unit stride along rows, which Eigen vectorises.  Throws: shape_error if the view has another layout.
template <class T>
[[nodiscard]] auto row_major_map(matrix_view<T> v) {
  require<shape_error>(v.col_stride == 1 || v.cols <= 1, "eigen::row_major_map",
                       "needs neighbours along rows, got column stride ", v.col_stride);
  return Eigen::Map<detail::map_target<T, Eigen::RowMajor>, Eigen::Unaligned, Eigen::OuterStride<>>{
      v.data, v.rows, v.cols, Eigen::OuterStride<>{v.row_stride}};
}
/// A map with unit stride along columns, which Eigen vectorises.  Throws: shape_error if the view has another layout.
template <class T>
[[nodiscard]] auto column_major_map(matrix_view<T> v) {
  require<shape_error>(v.row_stride == 1 || v.rows <= 1, "eigen::column_major_map",
                       "needs neighbours along columns, got row stride ", v.row_stride);
  return Eigen::Map<detail::map_target<T, Eigen::ColMajor>, Eigen::Unaligned, Eigen::OuterStride<>>{
      v.data, v.rows, v.cols, Eigen::OuterStride<>{v.col_stride}};
}

}  // namespace lowrank::eigen
