/// @file
/// Copies, fills and conversions on a device: the overloads of linalg/elementwise.hpp. Same bits as on the host.
#pragma once

#include <cstdlib>

#include "lowrank/linalg/cuda/detail/launch.cuh"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/tile/pack.hpp"

namespace lowrank {

namespace detail {

/// Whether neighbours of a column are nearer to each other in memory than those of a row.
template <class T>
[[nodiscard]] bool runs_down(matrix_view<T, device_space> v) noexcept {
  return std::abs(v.row_stride) < std::abs(v.col_stride) && v.cols > 1;
}
template <class T>
[[nodiscard]] matrix_view<T, device_space> along_memory(matrix_view<T, device_space> v) noexcept {
  return runs_down(v) ? v.t() : v;
}

/// b(i, j) = f(a(i, j)); `f` runs on the device.
template <class A, class B, class F>
void map_elements(cuda_executor& exec, char const* caller, matrix_view<A, device_space> a,
                  matrix_view<B, device_space> b, F const& f) {
  require<shape_error>(a.shape() == b.shape(), caller, "needs equal shapes, got ", a.shape(), " and ", b.shape());
  if (b.empty()) return;
  if (runs_down(b)) a = a.t(), b = b.t();
  if (!runs_down(a) || a.rows == 1)
    return for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) { b(i, j) = f(a(i, j)); });
  index_t const squares = ((b.rows + square_side - 1) / square_side) * ((b.cols + square_side - 1) / square_side);
  run_transposed<<<blocks_for(squares), block_threads, 0, exec.stream()>>>(a.t(), b, f);
  exec.check_launch("a transposing kernel");
}

}  // namespace detail

/// As convert(host_executor&, ...).
template <class A, class B>
void convert(cuda_executor& exec, matrix_view<A, device_space> a, matrix_view<B, device_space> b) {
  detail::map_elements(exec, "convert", a, b, [] __device__(auto x) { return detail::convert_element<B>(x); });
}
/// B = A.
template <class A, class B>
  requires std::is_same_v<std::remove_const_t<A>, B>
void copy(cuda_executor& exec, matrix_view<A, device_space> a, matrix_view<B, device_space> b) {
  detail::map_elements(exec, "copy", a, b, [] __device__(B x) { return x; });
}
/// Every element of B = value.
template <class B>
void fill(cuda_executor& exec, matrix_view<B, device_space> b, std::type_identity_t<B> value) {
  b = detail::along_memory(b);
  detail::for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) { b(i, j) = value; });
}
/// B(i, j) = 1 where i = j, else 0.
inline void fill_identity(cuda_executor& exec, matrix_view<float, device_space> b) {
  b = detail::along_memory(b);
  detail::for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) { b(i, j) = i == j ? 1.0F : 0.0F; });
}
/// B = alpha B. With alpha = 0, B may hold anything.
inline void scale(cuda_executor& exec, float alpha, matrix_view<float, device_space> b) {
  if (alpha == 1.0F) return;
  if (alpha == 0.0F) return fill(exec, b, 0.0F);
  b = detail::along_memory(b);
  detail::for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) { b(i, j) = alpha * b(i, j); });
}
/// B = alpha A + B. Same bits as on the host where neither contracts the sum.
/// Shapes: equal.  Requires: no overlap.
inline void axpy(cuda_executor& exec, float alpha, matrix_view<float const, device_space> a,
                 matrix_view<float, device_space> b) {
  require<shape_error>(a.shape() == b.shape(), "axpy", "needs equal shapes, got ", a.shape(), " and ", b.shape());
  if (detail::runs_down(b)) a = a.t(), b = b.t();
  detail::for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) { b(i, j) += alpha * a(i, j); });
}
/// As add_scaled(host_executor&, ...).
inline void add_scaled(cuda_executor& exec, float const* alpha, matrix_view<float const, device_space> a,
                       matrix_view<float, device_space> b) {
  require<shape_error>(a.shape() == b.shape(), "add_scaled", "needs equal shapes, got ", a.shape(), " and ", b.shape());
  if (detail::runs_down(b)) a = a.t(), b = b.t();
  detail::for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) { b(i, j) += *alpha * a(i, j); });
}
/// B = *a A + *b B, the factors in device memory, rounded as the fused kernels of the rules round it.
/// Shapes: equal.  Requires: no overlap.
template <class A>
void combine(cuda_executor& exec, float const* a, matrix_view<A, device_space> x, float const* b,
             matrix_view<float, device_space> y) {
  require<shape_error>(x.shape() == y.shape(), "combine", "needs equal shapes, got ", x.shape(), " and ", y.shape());
  if (detail::runs_down(y)) x = x.t(), y = y.t();
  detail::for_elements(exec, y.shape(), [=] __device__(index_t i, index_t j) {
    y(i, j) = fused_multiply_add(*a, to_float(x(i, j)), *b * y(i, j));
  });
}

}  // namespace lowrank
