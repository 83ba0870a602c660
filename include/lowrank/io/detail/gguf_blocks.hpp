/// @file
/// ggml's blocks of numbers, to fp32. A block is `values` consecutive elements of a row in `bytes` bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "lowrank/core/scalar.hpp"

namespace lowrank::detail {

/// A number by itself.
template <class T>
struct ggml_plain {
  static constexpr index_t values = 1, bytes = sizeof(T);
  static void decode(unsigned char const* from, float* to) noexcept {
    T x;
    std::memcpy(&x, from, sizeof x);
    *to = to_float(x);
  }
};

[[nodiscard]] inline float ggml_half(unsigned char const* from) noexcept {
  fp16 x;
  std::memcpy(&x.bits, from, sizeof x.bits);
  return x.value();
}

/// scale * q, 32 signed bytes.
struct ggml_q8_0 {
  static constexpr index_t values = 32, bytes = 2 + 32;
  static void decode(unsigned char const* from, float* to) noexcept {
    float const scale = ggml_half(from);
    for (index_t i = 0; i < values; ++i) to[i] = scale * static_cast<float>(static_cast<std::int8_t>(from[2 + i]));
  }
};

/// scale * (q - 8): the low halves of 16 bytes come first, then the high halves.
struct ggml_q4_0 {
  static constexpr index_t values = 32, bytes = 2 + 16;
  static void decode(unsigned char const* from, float* to) noexcept {
    float const scale = ggml_half(from);
    for (index_t i = 0; i < 16; ++i) {
      to[i] = scale * static_cast<float>((from[2 + i] & 15) - 8);
      to[i + 16] = scale * static_cast<float>((from[2 + i] >> 4) - 8);
    }
  }
};

/// scale * q + least, in the same order.
struct ggml_q4_1 {
  static constexpr index_t values = 32, bytes = 2 + 2 + 16;
  static void decode(unsigned char const* from, float* to) noexcept {
    float const scale = ggml_half(from), least = ggml_half(from + 2);
    for (index_t i = 0; i < 16; ++i) {
      to[i] = scale * static_cast<float>(from[4 + i] & 15) + least;
      to[i + 16] = scale * static_cast<float>(from[4 + i] >> 4) + least;
    }
  }
};

}  // namespace lowrank::detail
