/// @file
/// Rotary position embedding: pairs of a head's elements turn by an angle that grows with the position.
#pragma once

#include "config.hpp"

namespace llama {

/// `backward` turns the other way, which is the transposed and the inverse rotation.
enum class turning : std::uint8_t { forward, backward };

/// Rotates one head of one token in place; cosines and sines hold width / 2 entries of its position.
template <class T>
void rotate(T* x, index_t width, T const* cosines, T const* sines, rotary_pairs pairs, turning way) noexcept {
  T const direction = way == turning::forward ? T{1} : T{-1};
  index_t const half = width / 2;
  if (pairs == rotary_pairs::half_split) {
    T* const __restrict first = x;
    T* const __restrict second = x + half;
    for (index_t i = 0; i < half; ++i) {
      T const a = first[i], b = second[i], s = direction * sines[i];
      first[i] = a * cosines[i] - b * s;
      second[i] = b * cosines[i] + a * s;
    }
  } else {
    for (index_t i = 0; i < half; ++i) {
      T const a = x[2 * i], b = x[2 * i + 1], s = direction * sines[i];
      x[2 * i] = a * cosines[i] - b * s;
      x[2 * i + 1] = b * cosines[i] + a * s;
    }
  }
}

}  // namespace llama
