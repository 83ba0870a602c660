// cvt: between integers, between floating-point types, and between both.
#include <cmath>
#include <limits>

#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

/// How a real number becomes an integer.
enum class integral : std::uint8_t { none, nearest, zero, down, up };

template <integral R, class T>
T to_integral(T x) {
  if constexpr (R == integral::nearest) return std::rint(x);
  else if constexpr (R == integral::zero) return std::trunc(x);
  else if constexpr (R == integral::down) return std::floor(x);
  else if constexpr (R == integral::up) return std::ceil(x);
  else return x;
}

template <class D, bool Sat>
struct from_integer_to_integer {
  template <class S>
  D operator()(S x) const {
    if constexpr (!Sat) {
      return static_cast<D>(x);
    } else {
      constexpr s128 low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
      s128 const v = x;
      return static_cast<D>(v < low ? low : v > high ? high : v);
    }
  }
};
/// Always clamps; NaN becomes 0, and the most negative number where the result has 64 bits.
template <class D, integral R, bool Ftz>
struct from_real_to_integer {
  template <class S>
  D operator()(S x) const {
    if constexpr (Ftz) x = std::fabs(x) < 0x1p-126F ? S{0} : x;
    double const v = to_integral<R>(static_cast<double>(x));
    if (v != v) return sizeof(D) == 8 ? static_cast<D>(std::uint64_t{1} << 63) : D{0};
    constexpr auto low = static_cast<double>(std::numeric_limits<D>::min());
    constexpr auto high = static_cast<double>(std::numeric_limits<D>::max());
    if (v <= low) return std::numeric_limits<D>::min();
    if (v >= high) return std::numeric_limits<D>::max();
    return static_cast<D>(v);
  }
};
template <class D, integral R, bool Sat, bool Ftz>
struct from_real_to_real {
  template <class S>
  D operator()(S x) const {
    auto const flushed = [](auto v) {
      if constexpr (Ftz && std::is_same_v<decltype(v), float>)
        return std::fabs(v) < 0x1p-126F ? std::copysign(0.0F, v) : v;
      else return v;
    };
    x = to_integral<R>(flushed(x));
    D r = flushed(static_cast<D>(x));
    if constexpr (Sat) return r > 0 ? (r > 1 ? D{1} : r) : D{0};
    if constexpr (std::is_same_v<D, float>) r = r != r ? std::bit_cast<float>(0x7fffffffU) : r;
    return r;
  }
};
struct to_bf16 {
  bf16 operator()(float x) const { return nearest_bf16(x); }
};
template <class H, rounding R, bool Relu>
struct to_half {
  template <class S>
  H operator()(S x) const {
    if (Relu && x < 0) return {0};  // NaN stays NaN
    return narrow<H>(static_cast<double>(x), R);
  }
};
template <class D, integral R>
struct from_half {
  template <class H>
  D operator()(H x) const {
    float const v = to_integral<R>(value(x));
    if constexpr (is_half<D>) return v != v ? D{0x7fff} : narrow<D>(v);
    else if constexpr (std::is_integral_v<D>) return from_real_to_integer<D, integral::none, false>{}(v);
    else return v != v ? static_cast<D>(std::bit_cast<float>(0x7fffffffU)) : static_cast<D>(v);
  }
};
template <class H, rounding R, bool Relu>
struct to_pair {  // d, a, b: a is the upper half
  pair<H> operator()(float high, float low) const {
    if constexpr (std::is_same_v<H, bf16> && R == rounding::nearest_even && !Relu)
      return pair<H>::of(nearest_bf16(low), nearest_bf16(high));
    else return pair<H>::of(to_half<H, R, Relu>{}(low), to_half<H, R, Relu>{}(high));
  }
};

/// An integer to float or double, once rounded in the direction asked for.
template <class D, rounding R>
struct from_integer_to_real {
  template <class S>
  D operator()(S x) const {
    if constexpr (R == rounding::nearest_even) {
      return static_cast<D>(x);
    } else {
      D r = static_cast<D>(x);
      s128 const exact = x, got = static_cast<s128>(r);
      bool const above = got > exact, below = got < exact;
      if (R == rounding::down && above) r = std::nextafter(r, -std::numeric_limits<D>::infinity());
      if (R == rounding::up && below) r = std::nextafter(r, std::numeric_limits<D>::infinity());
      if (R == rounding::toward_zero && (exact < 0 ? below : above)) r = std::nextafter(r, D{0});
      return r;
    }
  }
};
template <rounding R>
struct from_double_to_float {
  float operator()(double x) const {
    float r = static_cast<float>(x);
    if (x != x) return std::bit_cast<float>(0x7fffffffU);
    double const back = r;
    if (R == rounding::down && back > x) r = std::nextafter(r, -INFINITY);
    if (R == rounding::up && back < x) r = std::nextafter(r, INFINITY);
    if (R == rounding::toward_zero && std::fabs(back) > std::fabs(x)) r = std::nextafter(r, 0.0F);
    return r;
  }
};

bool is_integer(type t) { return t >= type::u8 && t <= type::s64; }
bool is_half_type(type t) { return t == type::f16 || t == type::bf16; }
bool is_real(type t) { return t == type::f32 || t == type::f64; }

template <class F>
handler any_integer(type t, F choose) {
  return among<type::u8, type::s8, type::u16, type::s16, type::u32, type::s32, type::u64, type::s64>(t, choose);
}
integral take_integral(statement& s, bool required) {
  if (required) return static_cast<integral>(s.need_one({"rni", "rzi", "rmi", "rpi"}) + 1);
  return static_cast<integral>(s.take_one({"rni", "rzi", "rmi", "rpi"}) + 1);
}
template <class F>
handler for_integral(integral r, F choose) {
  switch (r) {
    case integral::nearest:
      return choose(std::integral_constant<integral, integral::nearest>{});
    case integral::zero:
      return choose(std::integral_constant<integral, integral::zero>{});
    case integral::down:
      return choose(std::integral_constant<integral, integral::down>{});
    case integral::up:
      return choose(std::integral_constant<integral, integral::up>{});
    default:
      return choose(std::integral_constant<integral, integral::none>{});
  }
}
template <class F>
handler for_rounding(int r, F choose) {
  switch (r) {
    case 0:
      return choose(std::integral_constant<rounding, rounding::nearest_even>{});
    case 1:
      return choose(std::integral_constant<rounding, rounding::toward_zero>{});
    case 2:
      return choose(std::integral_constant<rounding, rounding::down>{});
    default:
      return choose(std::integral_constant<rounding, rounding::up>{});
  }
}

handler integer_to_integer(type d, type from, bool sat) {
  return any_integer(d, [&](auto dl) {
    return any_integer(from, [&](auto sl) -> handler {
      using D = lane_of<decltype(dl)>;
      using S = lane_of<decltype(sl)>;
      return sat ? map1<D, S, from_integer_to_integer<D, true>> : map1<D, S, from_integer_to_integer<D, false>>;
    });
  });
}
handler integer_to_real(statement& s, type d, type from) {
  int const r = s.need_one({"rn", "rz", "rm", "rp"});
  return any_integer(from, [&](auto sl) {
    using S = lane_of<decltype(sl)>;
    return for_rounding(r, [&](auto rl) -> handler {
      constexpr rounding R = decltype(rl)::value;
      switch (d) {
        case type::f32:
          return map1<float, S, from_integer_to_real<float, R>>;
        case type::f64:
          return map1<double, S, from_integer_to_real<double, R>>;
        // 64 bits would be rounded twice, on the way through double, and so they are refused below.
        case type::f16:
          return map1<f16, S, to_half<f16, R, false>>;
        default:
          return map1<bf16, S, to_half<bf16, R, false>>;
      }
    });
  });
}
handler real_to_integer(statement& s, type d, type from) {
  integral const r = take_integral(s, true);
  bool const ftz = from == type::f32 && s.take("ftz");
  s.take("sat");  // it clamps anyway
  return any_integer(d, [&](auto dl) {
    using D = lane_of<decltype(dl)>;
    return for_integral(r, [&](auto rl) -> handler {
      constexpr integral R = decltype(rl)::value;
      switch (from) {
        case type::f32:
          return ftz ? map1<D, float, from_real_to_integer<D, R, true>>
                     : map1<D, float, from_real_to_integer<D, R, false>>;
        case type::f64:
          return map1<D, double, from_real_to_integer<D, R, false>>;
        case type::f16:
          return map1<D, f16, from_half<D, R>>;
        default:
          return map1<D, bf16, from_half<D, R>>;
      }
    });
  });
}
template <class D, class S>
handler real_handler(integral r, bool sat, bool ftz) {
  return for_integral(r, [&](auto rl) -> handler {
    constexpr integral R = decltype(rl)::value;
    if (sat)
      return ftz ? map1<D, S, from_real_to_real<D, R, true, true>> : map1<D, S, from_real_to_real<D, R, true, false>>;
    return ftz ? map1<D, S, from_real_to_real<D, R, false, true>> : map1<D, S, from_real_to_real<D, R, false, false>>;
  });
}
handler real_to_real(statement& s, type d, type from) {
  if (d == type::f32 && from == type::f64) {
    int const r = s.need_one({"rn", "rz", "rm", "rp"});
    bool const ftz = s.take("ftz"), sat = s.take("sat");
    if (r == 0) return real_handler<float, double>(integral::none, sat, ftz);
    if (ftz || sat) throw refusal("cvt.f32.f64 with a direction and .ftz or .sat");
    return for_rounding(
        r, [](auto rl) -> handler { return map1<float, double, from_double_to_float<decltype(rl)::value>>; });
  }
  integral const r = take_integral(s, false);
  bool const ftz = s.take("ftz"), sat = s.take("sat");
  if (d == type::f64)
    return from == type::f32 ? real_handler<double, float>(r, sat, ftz) : real_handler<double, double>(r, sat, false);
  return real_handler<float, float>(r, sat, ftz);
}
template <class H>
handler real_to_half(statement& s, type from) {
  int const r = s.need_one({"rn", "rz", "rm", "rp"});
  bool const zero_floor = s.take("relu");
  if (from == type::f32 && r == 0 && !zero_floor && std::is_same_v<H, bf16>) return map1<bf16, float, to_bf16>;
  return for_rounding(r, [&](auto rl) -> handler {
    constexpr rounding R = decltype(rl)::value;
    if (from == type::f64)
      return zero_floor ? map1<H, double, to_half<H, R, true>> : map1<H, double, to_half<H, R, false>>;
    return zero_floor ? map1<H, float, to_half<H, R, true>> : map1<H, float, to_half<H, R, false>>;
  });
}
template <class H>
handler half_to(statement& s, type d) {
  integral const r = take_integral(s, false);
  if (d == type::f32 && std::is_same_v<H, f16>) s.take("ftz");  // no subnormal half is a subnormal float
  return for_integral(r, [&](auto rl) -> handler {
    constexpr integral R = decltype(rl)::value;
    switch (d) {
      case type::f32:
        return map1<float, H, from_half<float, R>>;
      case type::f64:
        return map1<double, H, from_half<double, R>>;
      case type::f16:
        return map1<f16, H, from_half<f16, R>>;
      case type::bf16:
        return map1<bf16, H, from_half<bf16, R>>;
      default:
        throw refusal("type ." + std::string(name_of(d)));
    }
  });
}
template <class H>
void decode_pair(statement& s, type d) {
  if (s.need_type() != type::f32) throw refusal("pair of another type than .f32");
  int const r = s.need_one({"rn", "rz"});
  bool const zero_floor = s.take("relu");
  s.need(3);
  s.out.d = s.write(0, d);
  s.out.a = s.read(1, type::f32);
  s.out.b = s.read(2, type::f32);
  s(for_rounding(r, [&](auto rl) -> handler {
    constexpr rounding R = decltype(rl)::value;
    return zero_floor ? map2<pair<H>, float, float, to_pair<H, R, true>>
                      : map2<pair<H>, float, float, to_pair<H, R, false>>;
  }));
}

void decode_cvt(statement& s) {
  type const d = s.need_type();
  if (d == type::f16x2) return decode_pair<f16>(s, d);
  if (d == type::bf16x2) return decode_pair<bf16>(s, d);
  type const from = s.need_type();
  s.need(2);
  s.out.d = s.write(0, d);
  s.out.a = s.read(1, from);
  if (is_integer(d) && is_integer(from)) return s(integer_to_integer(d, from, s.take("sat")));
  if (is_integer(from) && (is_real(d) || is_half_type(d))) {
    if (is_half_type(d) && size_of(from) == 8) throw refusal("cvt of 64 bits to 16");
    return s(integer_to_real(s, d, from));
  }
  if (is_integer(d) && (is_real(from) || is_half_type(from))) return s(real_to_integer(s, d, from));
  if (is_real(d) && is_real(from)) return s(real_to_real(s, d, from));
  if (is_real(from)) return s(d == type::f16 ? real_to_half<f16>(s, from) : real_to_half<bf16>(s, from));
  if (!is_half_type(from)) throw refusal("type ." + std::string(name_of(from)));
  if (is_half_type(d) && d != from) s.take("rn");
  s(from == type::f16 ? half_to<f16>(s, d) : half_to<bf16>(s, d));
}

/// From generic addresses to those of a space and back; a window for each but global memory.
constexpr std::uint64_t window_of(int space_name) {
  return space_name == 0 ? shared_window : space_name == 1 ? local_window : space_name == 2 ? param_window : 0;
}
struct shifted {
  std::uint64_t operator()(std::uint64_t a, std::uint64_t by) const { return a + by; }
};
void decode_cvta(statement& s) {
  bool const to_space = s.take("to");
  int const which = s.take_one({"shared", "local", "param", "global", "const"});
  type const t = s.need_type();
  if (t != type::u64) throw refusal("32-bit cvta");
  s.need(2);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  std::uint64_t const window = window_of(which);
  s.out.b = s.context().constant(to_space ? 0 - window : window, 8);
  s(binary<std::uint64_t, shifted>);
}
template <int Space>
struct lies_in {
  bool operator()(std::uint64_t a) const { return Space == 3 ? a >> 56 == 0 : a >> 56 == window_of(Space) >> 56; }
};
template <int Space>
void test_space(warp& w, instruction const& i, lane_mask m) {
  lane_mask r = 0;
  for (int lane = 0; lane < 32; ++lane)
    r |= static_cast<lane_mask>(lies_in<Space>{}(load<std::uint64_t>(w, i.a, lane))) << lane;
  w.set_predicate(i.d, r, m);
}
void decode_isspacep(statement& s) {
  static constexpr handler tests[] = {test_space<0>, test_space<1>, test_space<2>, test_space<3>};
  int const which = s.need_one({"shared", "local", "param", "global"});
  s.need(2);
  s.out.d = s.write(0, type::pred);
  s.out.a = s.read(1, type::b64);
  s(tests[which]);
}

}  // namespace

void add_convert_opcodes(opcode_table& t) {
  t["cvt"] = decode_cvt;
  t["cvta"] = decode_cvta;
  t["isspacep"] = decode_isspacep;
}

}  // namespace softgpu
