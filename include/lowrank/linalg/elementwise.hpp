/// @file
/// Copies, fills and conversions: what moves numbers without mixing them. All run over fixed groups of rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank {

namespace detail {

/// element -> element of another storage type. Everything narrow goes through fp32.
template <class To, class From>
[[nodiscard]] LOWRANK_HD constexpr To convert_element(From x) noexcept {
  if constexpr (std::is_same_v<To, From>) return x;
  else if constexpr (std::is_same_v<From, double>) return from_float<To>(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, double>) return static_cast<double>(to_float(x));
  else return from_float<To>(to_float(x));
}

/// body(begin, end) over groups of rows of about 16 K elements.
template <class Body>
void for_row_groups(host_executor& exec, extents shape, Body const& body) {
  if (shape.size() == 0) return;
  index_t const group = std::max<index_t>(16384 / shape.cols, 1);
  exec.parallel((shape.rows + group - 1) / group,
                [&](index_t number) { body(number * group, std::min(shape.rows, (number + 1) * group)); });
}

/// b(i, j) = f(a(i, j)), in squares small enough that neither side leaves the cache when one is transposed.
template <class A, class B, class F>
void map_rows(matrix_view<A> a, matrix_view<B> b, index_t begin, index_t end, F const& f) {
  if (a.col_stride == 1 && b.col_stride == 1) {
    for (index_t i = begin; i < end; ++i) {
      auto const* const from = a.data + i * a.row_stride;
      auto* const to = b.data + i * b.row_stride;
      for (index_t j = 0; j < b.cols; ++j) to[j] = f(from[j]);
    }
    return;
  }
  constexpr index_t side = 32;
  for (index_t i0 = begin; i0 < end; i0 += side)
    for (index_t j0 = 0; j0 < b.cols; j0 += side)
      for (index_t i = i0; i < std::min(i0 + side, end); ++i)
        for (index_t j = j0; j < std::min(j0 + side, b.cols); ++j) b(i, j) = f(a(i, j));
}

template <class A, class B, class F>
void map_elements(host_executor& exec, char const* caller, matrix_view<A> a, matrix_view<B> b, F const& f) {
  require<shape_error>(a.shape() == b.shape(), caller, "needs equal shapes, got ", a.shape(), " and ", b.shape());
  if (b.row_stride < b.col_stride && b.cols > 1) a = a.t(), b = b.t();
  for_row_groups(exec, b.shape(), [&](index_t begin, index_t end) { map_rows(a, b, begin, end, f); });
}

}  // namespace detail

/// B = A, between any of fp32, fp64, bf16 and fp16; narrowing rounds to nearest even.
/// Shapes: equal, any strides.  Requires: no overlap.  Cost: reads A, writes B; workspace 0.
template <class A, class B>
void convert(host_executor& exec, matrix_view<A> a, matrix_view<B> b) {
  detail::map_elements(exec, "convert", a, b, [](auto x) { return detail::convert_element<B>(x); });
}
/// B = A.
template <class A, class B>
  requires std::is_same_v<std::remove_const_t<A>, B>
void copy(host_executor& exec, matrix_view<A> a, matrix_view<B> b) {
  detail::map_elements(exec, "copy", a, b, [](B x) { return x; });
}
/// Every element of B = value.
template <class B>
void fill(host_executor& exec, matrix_view<B> b, std::type_identity_t<B> value) {
  detail::map_elements(exec, "fill", b, b, [value](auto) { return value; });
}
/// B(i, j) = 1 where i = j, else 0.
inline void fill_identity(host_executor& exec, matrix_view<float> b) {
  fill(exec, b, 0.0F);
  for (index_t i = 0; i < std::min(b.rows, b.cols); ++i) b(i, i) = 1.0F;
}
/// B = alpha B. With alpha = 0, B may hold anything.
inline void scale(host_executor& exec, float alpha, matrix_view<float> b) {
  if (alpha == 1.0F) return;
  if (alpha == 0.0F) return fill(exec, b, 0.0F);
  detail::map_elements(exec, "scale", b, b, [alpha](float x) { return alpha * x; });
}
/// B = alpha A + B.
/// Shapes: equal.  Requires: no overlap.
inline void axpy(host_executor& exec, float alpha, matrix_view<float const> a, matrix_view<float> b) {
  require<shape_error>(a.shape() == b.shape(), "axpy", "needs equal shapes, got ", a.shape(), " and ", b.shape());
  if (b.row_stride < b.col_stride && b.cols > 1) a = a.t(), b = b.t();
  detail::for_row_groups(exec, b.shape(), [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < b.cols; ++j) b(i, j) += alpha * a(i, j);
  });
}

/// B = *alpha A + B, alpha in the executor's memory.
inline void add_scaled(host_executor& exec, float const* alpha, matrix_view<float const> a, matrix_view<float> b) {
  axpy(exec, *alpha, a, b);
}

/// B(i, j) = +1 or -1: `rademacher(key, first + i cols + j)`. B's own strides do not matter.
template <class B>
void fill_rademacher(host_executor& exec, rng_key const& key, matrix_view<B> b, std::uint64_t first = 0) {
  detail::for_row_groups(exec, b.shape(), [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < b.cols;) {
        auto const element = first + static_cast<std::uint64_t>(i * b.cols + j);
        auto const words = random_block(key, element / 128);
        for (std::uint64_t bit = element % 128; bit < 128 && j < b.cols;) {
          auto const word = words[bit / 32];
          for (std::uint64_t at = bit % 32; at < 32 && j < b.cols; ++at, ++bit, ++j)
            b(i, j) = detail::convert_element<B>((word >> at & 1U) != 0 ? 1.0F : -1.0F);
        }
      }
  });
}

/// B(i, j) standard normal: `gaussian(key, i cols + j)`. B's own strides do not matter.
template <class B>
void fill_gaussian(host_executor& exec, rng_key const& key, matrix_view<B> b) {
  detail::for_row_groups(exec, b.shape(), [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < b.cols;) {
        auto const element = static_cast<std::uint64_t>(i * b.cols + j);
        auto const four = gaussian_block(random_block(key, element / 4));
        for (std::size_t at = element % 4; at < 4 && j < b.cols; ++at, ++j)
          b(i, j) = detail::convert_element<B>(four[at]);
      }
  });
}

/// All elements of an owned array become zeros, in the order of the executor's work.
template <executor E, class T>
void clear(E& exec, buffer<T, typename E::space>& b) {
  if (b.size() > 0) fill(exec, row_major<typename E::space>(b.data(), {1, b.size()}), T{});
}

}  // namespace lowrank
