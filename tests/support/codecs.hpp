// Every codec as a value, and what laws of codecs need to know of each.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "lowrank/quant/codecs.hpp"

namespace lowrank_test {

/// f(name, codec) for every codec in all its conventions.
template <class F>
void for_every_codec(F const& f) {
  using namespace lowrank;
  using namespace lowrank::codec;
  constexpr auto floor = scale_floor::at_1e_12;
  constexpr auto none = scale_floor::none;
  f("affine8", affine<8>{});
  f("affine4", affine<4>{});
  f("affine8, fp32 scales", affine<8, range_rule::headroom, float>{});
  f("affine4, fp32 scales", affine<4, range_rule::headroom, float>{});
  f("affine8 with zero", affine<8, range_rule::with_zero>{});
  f("affine4 with zero", affine<4, range_rule::with_zero>{});
  f("symmetric8", symmetric<8>{});
  f("symmetric4", symmetric<4>{});
  f("symmetric8, bf16 scales", symmetric<8, bf16>{});
  f("symmetric4, bf16 scales", symmetric<4, bf16>{});
  for (auto const sign : {signedness::with_sign, signedness::nonnegative}) {
    std::string const end = sign == signedness::with_sign ? "" : " unsigned";
    f("dynamic8 down" + end, dynamic8<tie_rule::down>{sign});
    f("dynamic8 up" + end, dynamic8<tie_rule::up, floor>{sign});
    f("dynamic8 of CUDA" + end, dynamic8<tie_rule::down, none, tiny_negative::stays_negative>{sign});
  }
  for (auto const name : {book4_name::nf4, book4_name::dynamic, book4_name::sixteenths}) {
    std::string const end = name == book4_name::nf4 ? "nf4" : name == book4_name::dynamic ? "dynamic4" : "sixteenths";
    f(end + " down", book4<tie_rule::down>{name});
    f(end + " up", book4<tie_rule::up, floor>{name});
  }
  f("e4m3", fp8<fp8_kind::e4m3>{});
  f("e5m2", fp8<fp8_kind::e5m2>{});
}

template <class Codec>
[[nodiscard]] int code_of(Codec const& codec, float x, lowrank::block_scale const& shared) {
  return static_cast<int>(codec.encode(x, shared));
}
template <class Codec>
[[nodiscard]] int code_of(Codec const& codec, float x, lowrank::block_scale const& shared, float u) {
  return static_cast<int>(codec.encode(x, shared, u));
}
template <class Codec>
[[nodiscard]] float value_of(Codec const& codec, int code, lowrank::block_scale const& shared) {
  return codec.decode(std::int32_t{code}, shared);
}
[[nodiscard]] inline lowrank::value_range range_of(std::vector<float> const& x) {
  lowrank::value_range out;
  for (float const v : x) out.low = std::min(out.low, v), out.high = std::max(out.high, v);
  return out;
}
/// What is stored of a block of these numbers, read back.
template <class Codec>
[[nodiscard]] lowrank::block_scale shared_by(Codec const& codec, std::vector<float> const& x) {
  return codec.fit(range_of(x));
}

/// The next fp32 number above or below.
[[nodiscard]] inline float next_above(float x) { return std::nextafter(x, std::numeric_limits<float>::infinity()); }
[[nodiscard]] inline float next_below(float x) { return std::nextafter(x, -std::numeric_limits<float>::infinity()); }

}  // namespace lowrank_test
