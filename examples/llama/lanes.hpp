/// @file
/// Sums, maxima and small products over rows, in one fixed order that fills a vector register.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "lowrank/core/view.hpp"

namespace llama {

using lowrank::index_t;

/// 64 bytes of T: one AVX-512 register, or several narrower ones.
template <class T>
struct lanes {
  typedef T type __attribute__((vector_size(64)));  // NOLINT(modernize-use-using): `using` loses a dependent attribute
  static constexpr index_t count = 64 / static_cast<index_t>(sizeof(T));
};
template <class T>
using lanes_t = typename lanes<T>::type;

namespace detail {

template <class T>
LOWRANK_INLINE void load(lanes_t<T>& to, T const* from) noexcept {
  std::memcpy(&to, from, sizeof to);
}
template <class T>
LOWRANK_INLINE void store(T* to, lanes_t<T> const& from) noexcept {
  std::memcpy(to, &from, sizeof from);
}
/// The first `count` elements; the rest are zero.
template <class T>
LOWRANK_INLINE void load(lanes_t<T>& to, T const* from, index_t count) noexcept {
  if (count == lanes<T>::count) return load<T>(to, from);
  to = lanes_t<T>{};
  std::memcpy(&to, from, static_cast<std::size_t>(count) * sizeof(T));
}
template <class T>
LOWRANK_INLINE void store(T* to, lanes_t<T> const& from, index_t count) noexcept {
  std::memcpy(to, &from, static_cast<std::size_t>(count) * sizeof(T));
}
/// body(first, number) for every register of a row: `number` is a compile-time constant for the full ones, and the last
/// one, if partial, goes through the same instructions.
template <class T, class Body>
LOWRANK_INLINE void each_register(index_t count, Body const& body) noexcept {
  constexpr index_t width = lanes<T>::count;
  index_t i = 0;
  for (; i + width <= count; i += width) body(i, std::integral_constant<index_t, width>{});
  if (i < count) body(i, count - i);
}
/// Halving keeps the order of a sum the same whatever registers the build has.
template <class T, class Op>
[[nodiscard]] LOWRANK_INLINE T fold(lanes_t<T> const& v, Op const& op) noexcept {
  T part[lanes<T>::count];
  std::memcpy(part, &v, sizeof part);
  for (index_t step = lanes<T>::count / 2; step > 0; step /= 2)
    for (index_t i = 0; i < step; ++i) part[i] = op(part[i], part[i + step]);
  return part[0];
}

}  // namespace detail

/// Sum of a[i] b[i].
template <class T>
[[nodiscard]] T dot(T const* a, T const* b, index_t count) noexcept {
  constexpr index_t width = lanes<T>::count;
  lanes_t<T> sums[2] = {}, x, y;
  index_t i = 0;
  for (; i + 2 * width <= count; i += 2 * width)
    for (index_t half = 0; half < 2; ++half) {
      detail::load<T>(x, a + i + half * width);
      detail::load<T>(y, b + i + half * width);
      sums[half] += x * y;
    }
  T tail{};
  for (; i < count; ++i) tail += a[i] * b[i];
  return detail::fold<T>(sums[0] + sums[1], [](T p, T q) { return p + q; }) + tail;
}

/// Largest a[i]; count > 0.
template <class T>
[[nodiscard]] T largest(T const* a, index_t count) noexcept {
  constexpr index_t width = lanes<T>::count;
  T top = a[0];
  index_t i = 0;
  if (count >= width) {
    lanes_t<T> best, x;
    detail::load<T>(best, a);
    for (i = width; i + width <= count; i += width) {
      detail::load<T>(x, a + i);
      best = best > x ? best : x;
    }
    top = detail::fold<T>(best, [](T p, T q) { return p > q ? p : q; });
  }
  for (; i < count; ++i) top = top > a[i] ? top : a[i];
  return top;
}

}  // namespace llama
