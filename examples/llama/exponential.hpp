/// @file
/// exp and what is made of it, a register at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include "lanes.hpp"

namespace llama {

// Written on vectors, because compilers that must respect traps leave such loops scalar. Vectors go by reference: passing
// them by value means something else for every instruction set.

/// x = exp(x) within 2 units in the last place on [-87, 88]; beyond, the value at the end of that range. NaN stays NaN.
/// exp(x) = 2^n exp(r) with n the integer nearest to x / ln 2. ln 2 in two parts keeps r exact. exp(r) is a Taylor
/// polynomial: for |r| <= 0.35 the first term left out is a twentieth of a unit in the last place.
LOWRANK_INLINE void exponential(lanes_t<float>& x) noexcept {
  typedef std::int32_t integers __attribute__((vector_size(64)));  // NOLINT(modernize-use-using)
  using reals = lanes_t<float>;
  // NaN is found in the bits and put back at the end, because flags may declare that there is none.
  integers bits;
  std::memcpy(&bits, &x, sizeof bits);
  integers const not_a_number = (bits & 0x7FFFFFFF) > 0x7F800000;
  reals const zero{}, low = zero - 87.0F, high = zero + 88.0F, half = zero + 0.5F;
  x = x < low ? low : x;
  x = x > high ? high : x;
  reals const scaled = x * 1.44269504088896341F;
  // Conversion truncates, so a half is added first. The outer choice sends NaN to something that can be converted.
  reals shifted = scaled < zero ? scaled - half : scaled + half;
  shifted = shifted > zero - 200.0F ? shifted : zero;
  integers const n = __builtin_convertvector(shifted, integers);
  reals const whole = __builtin_convertvector(n, reals);
  reals const r = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;
  reals p = zero + 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r * r + r + 1.0F;
  integers const power = (n + 127) << 23;
  reals scale;
  std::memcpy(&scale, &power, sizeof scale);
  p *= scale;
  std::memcpy(&bits, &p, sizeof bits);
  bits |= not_a_number;
  std::memcpy(&x, &bits, sizeof x);
}
inline void exponential(lanes_t<double>& x) noexcept {
  for (int i = 0; i < lanes<double>::count; ++i) x[i] = std::exp(x[i]);
}

/// x = 1 / (1 + exp(-x)).
template <class Lanes>
LOWRANK_INLINE void sigmoid(Lanes& x) noexcept {
  x = -x;
  exponential(x);
  x = 1 / (1 + x);
}

/// x[i] = exp((x[i] - top) * scale); returns their sum.
template <class T>
[[nodiscard]] T exponentials(T* x, index_t count, T top, T scale) noexcept {
  lanes_t<T> total = {};
  T tail{};
  detail::each_register<T>(count, [&](index_t i, auto number) {
    lanes_t<T> v;
    detail::load<T>(v, x + i, number);
    v = (v - top) * scale;
    exponential(v);
    detail::store<T>(x + i, v, number);
    if (number == lanes<T>::count) total += v;
    else
      for (index_t j = 0; j < number; ++j) tail += v[j];
  });
  return detail::fold<T>(total, [](T p, T q) { return p + q; }) + tail;
}

}  // namespace llama
