/// @file
/// As many floats as one register of this build holds. Written out, because compilers leave loops over sqrt scalar
/// unless the caller gives up errno, and because tails must go through the same instructions as the rest.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "lowrank/core/config.hpp"

#if defined(LOWRANK_PACK_WIDTH)  // decided
#elif defined(__AVX512F__)
#define LOWRANK_PACK_WIDTH 16
#elif defined(__AVX__)
#define LOWRANK_PACK_WIDTH 8
#elif defined(__SSE2__)
#define LOWRANK_PACK_WIDTH 4
#else
#define LOWRANK_PACK_WIDTH 1
#endif

// The whole of immintrin.h costs half a second of compile time, so only where it is needed.
#if LOWRANK_PACK_WIDTH >= 8
#include <immintrin.h>
#elif LOWRANK_PACK_WIDTH == 4
#include <emmintrin.h>
#endif

namespace lowrank {

// The width is part of the type's name, so that translation units built for different processors do not share
// definitions that differ.
template <int Width>
struct float_pack;

template <>
struct float_pack<LOWRANK_PACK_WIDTH> {
  static constexpr int width = LOWRANK_PACK_WIDTH;
#if LOWRANK_PACK_WIDTH > 1
  typedef float native __attribute__((vector_size(width * sizeof(float)), may_alias));  // NOLINT(modernize-use-using)
#else
  using native = float;
#endif
  native v;

  float_pack() = default;
  LOWRANK_INLINE float_pack(native value) noexcept : v(value) {}  // NOLINT(google-explicit-constructor)
#if LOWRANK_PACK_WIDTH == 16
  LOWRANK_INLINE float_pack(float value) noexcept : v(_mm512_set1_ps(value)) {}  // NOLINT(google-explicit-constructor)
#elif LOWRANK_PACK_WIDTH == 8
  LOWRANK_INLINE float_pack(float value) noexcept : v(_mm256_set1_ps(value)) {}  // NOLINT(google-explicit-constructor)
#elif LOWRANK_PACK_WIDTH == 4
  LOWRANK_INLINE float_pack(float value) noexcept : v(_mm_set1_ps(value)) {}  // NOLINT(google-explicit-constructor)
#endif

  LOWRANK_INLINE static float_pack load(float const* p) noexcept {
    float_pack out;
    __builtin_memcpy(&out.v, p, sizeof(native));
    return out;
  }
  LOWRANK_INLINE void store(float* p) const noexcept { __builtin_memcpy(p, &v, sizeof(native)); }
  /// To memory without reading its lines into a cache first. Others see it after `stores_done`.
  /// Requires: p a multiple of the register's bytes.
  LOWRANK_INLINE void store_past_cache(float* p) const noexcept {
#if LOWRANK_PACK_WIDTH == 16
    _mm512_stream_ps(p, v);
#elif LOWRANK_PACK_WIDTH == 8
    _mm256_stream_ps(p, v);
#elif LOWRANK_PACK_WIDTH == 4
    _mm_stream_ps(p, v);
#else
    store(p);
#endif
  }
  LOWRANK_INLINE static void stores_done() noexcept {
#if LOWRANK_PACK_WIDTH > 1
    _mm_sfence();
#endif
  }

  LOWRANK_INLINE friend float_pack operator+(float_pack a, float_pack b) noexcept { return {a.v + b.v}; }
  LOWRANK_INLINE friend float_pack operator-(float_pack a, float_pack b) noexcept { return {a.v - b.v}; }
  LOWRANK_INLINE friend float_pack operator*(float_pack a, float_pack b) noexcept { return {a.v * b.v}; }
  LOWRANK_INLINE friend float_pack operator/(float_pack a, float_pack b) noexcept { return {a.v / b.v}; }
  LOWRANK_INLINE friend float_pack operator-(float_pack a) noexcept { return {-a.v}; }
};

/// What a formula computes with on the host. Plain `float` on a device.
using pack = float_pack<LOWRANK_PACK_WIDTH>;

/// a b + c, rounded once where the build has the instruction.
[[nodiscard]] LOWRANK_INLINE pack fused_multiply_add(pack a, pack b, pack c) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
#elif LOWRANK_PACK_WIDTH == 8 && defined(__FMA__)
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
#else
  return a * b + c;
#endif
}
[[nodiscard]] LOWRANK_INLINE pack square_root(pack a) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_maskz_sqrt_ps(0xFFFF, a.v)};
#elif LOWRANK_PACK_WIDTH == 8
  return {_mm256_sqrt_ps(a.v)};
#elif LOWRANK_PACK_WIDTH == 4
  return {_mm_sqrt_ps(a.v)};
#else
  return {std::sqrt(a.v)};
#endif
}
/// -1, 0 or +1. NaN gives 0.
[[nodiscard]] LOWRANK_INLINE pack sign(pack a) noexcept {
#if LOWRANK_PACK_WIDTH > 1
  pack::native const zero{}, one = zero + 1.0F;
  return {(a.v > zero ? one : zero) - (a.v < zero ? one : zero)};
#else
  return {static_cast<float>(a.v > 0) - static_cast<float>(a.v < 0)};
#endif
}

// Written out: compilers make a comparison and a choice of these where one operand is a constant.
/// The smaller and the larger of two, lane by lane; the second where one is NaN.
[[nodiscard]] LOWRANK_INLINE pack smaller(pack a, pack b) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_maskz_min_ps(0xFFFF, a.v, b.v)};
#elif LOWRANK_PACK_WIDTH == 8
  return {_mm256_min_ps(a.v, b.v)};
#elif LOWRANK_PACK_WIDTH == 4
  return {_mm_min_ps(a.v, b.v)};
#else
  return {a.v < b.v ? a.v : b.v};
#endif
}
[[nodiscard]] LOWRANK_INLINE pack larger(pack a, pack b) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_maskz_max_ps(0xFFFF, a.v, b.v)};
#elif LOWRANK_PACK_WIDTH == 8
  return {_mm256_max_ps(a.v, b.v)};
#elif LOWRANK_PACK_WIDTH == 4
  return {_mm_max_ps(a.v, b.v)};
#else
  return {a.v > b.v ? a.v : b.v};
#endif
}
/// The smallest and the largest lane. Nothing is NaN.
[[nodiscard]] LOWRANK_INLINE float smallest_of(pack a) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return _mm512_reduce_min_ps(a.v);
#else
  std::array<float, pack::width> each;
  a.store(each.data());
  return *std::ranges::min_element(each);
#endif
}
[[nodiscard]] LOWRANK_INLINE float largest_of(pack a) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return _mm512_reduce_max_ps(a.v);
#else
  std::array<float, pack::width> each;
  a.store(each.data());
  return *std::ranges::max_element(each);
#endif
}
#if LOWRANK_PACK_WIDTH >= 8
/// The whole number below, and the nearest one, ties to even.
[[nodiscard]] LOWRANK_INLINE pack rounded_down(pack a) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_maskz_roundscale_ps(0xFFFF, a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
#else
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
#endif
}
[[nodiscard]] LOWRANK_INLINE pack rounded_to_even(pack a) noexcept {
#if LOWRANK_PACK_WIDTH == 16
  return {_mm512_maskz_roundscale_ps(0xFFFF, a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
#else
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
#endif
}
#endif

/// Whether everything it saw was finite. By the bits, so that it survives -ffinite-math-only.
class finite_watch {
 public:
  LOWRANK_INLINE void see(pack a) noexcept {
    words bits;
    __builtin_memcpy(&bits, &a.v, sizeof bits);
    bits &= 0x7FFFFFFF;
    most_ = bits > most_ ? bits : most_;
  }
  [[nodiscard]] LOWRANK_INLINE bool finite() const noexcept { return most() < 0x7F800000; }
  /// Bits of the largest magnitude it saw, which sort like it.
  [[nodiscard]] LOWRANK_INLINE std::int32_t most() const noexcept {
#if LOWRANK_PACK_WIDTH == 16
    __m512i each;
    __builtin_memcpy(&each, &most_, sizeof each);
    return _mm512_reduce_max_epi32(each);
#else
    std::array<std::int32_t, pack::width> each;
    __builtin_memcpy(each.data(), &most_, sizeof each);
    std::int32_t most = 0;
    for (auto const one : each) most = one > most ? one : most;
    return most;
#endif
  }

 private:
#if LOWRANK_PACK_WIDTH > 1
  typedef std::int32_t words __attribute__((vector_size(pack::width * sizeof(float))));  // NOLINT(modernize-use-using)
#else
  using words = std::int32_t;
#endif
  words most_{};
};

// The same operations for a scalar formula, so that one formula serves both.
[[nodiscard]] LOWRANK_HD inline float fused_multiply_add(float a, float b, float c) noexcept {
#if defined(LOWRANK_HAS_FMA)
  return std::fma(a, b, c);
#else
  return a * b + c;  // rounded as often as packs round it, and no call into the C library
#endif
}
// Devices branch around numbers that need care in roots and quotients, for each number. Where nobody needs them these do the
// same steps without asking, and round like the host.
/// 0 <= a < infinity; below 2^-101 to within a unit in the last place, subnormals to within sqrt(2^-126).
[[nodiscard]] LOWRANK_HD inline float square_root(float a) noexcept {
#if defined(LOWRANK_DEVICE_PASS)
  float inverse;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaxf(a, 0x1p-126F)));
  float const root = a * inverse;
  return __fmaf_rn(__fmaf_rn(-root, root, a), 0.5F * inverse, root);
#else
  return std::sqrt(a);
#endif
}
/// 1 / a for 2^-126 <= a <= 2^126.
[[nodiscard]] LOWRANK_HD constexpr float reciprocal(float a) noexcept {
#if defined(LOWRANK_DEVICE_PASS)
  if (!std::is_constant_evaluated()) {
    float close;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(close) : "f"(a));
    return __fmaf_rn(close, __fmaf_rn(-a, close, 1.0F), close);
  }
#endif
  return 1 / a;
}
/// a / b for 2^-126 <= b <= 2^126 and a quotient without overflow; where a is not 0 but below 2^-101, to within a unit in the
/// last place.
[[nodiscard]] LOWRANK_HD constexpr float quotient(float a, float b) noexcept {
#if defined(LOWRANK_DEVICE_PASS)
  if (!std::is_constant_evaluated()) {
    float const inverse = reciprocal(b), close = a * inverse;
    return __fmaf_rn(-__fmaf_rn(b, close, -a), inverse, close);  // in this form -0 / b is -0
  }
#endif
  return a / b;
}
[[nodiscard]] LOWRANK_INLINE pack quotient(pack a, pack b) noexcept { return a / b; }
[[nodiscard]] LOWRANK_HD inline float sign(float a) noexcept {
  return static_cast<float>(a > 0) - static_cast<float>(a < 0);
}

}  // namespace lowrank
