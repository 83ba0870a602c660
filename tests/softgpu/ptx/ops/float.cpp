// Floating-point arithmetic. Approximate instructions are computed exactly and rounded; what they may differ by on a
// device is no property to test here.
#include <cfenv>
#include <cmath>

#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

// ---- float and double

inline float flushed(float x) { return std::fabs(x) < 0x1p-126F ? std::copysign(0.0F, x) : x; }
/// Single-precision results that are NaN have these bits on every device.
inline float canonical(float x) { return x != x ? std::bit_cast<float>(0x7fffffffU) : x; }
template <class T>
T saturated(T x) {
  return x > 0 ? (x > 1 ? T{1} : x) : T{0};
}

template <class F, bool Ftz, bool Sat>
struct single {
  template <class... X>
  float operator()(X... x) const {
    float r = F{}((Ftz ? flushed(x) : x)...);
    if constexpr (Ftz) r = flushed(r);
    if constexpr (Sat) return saturated(r);
    return canonical(r);
  }
};

struct plus {
  template <class T>
  T operator()(T x, T y) const {
    return x + y;
  }
};
struct minus {
  template <class T>
  T operator()(T x, T y) const {
    return x - y;
  }
};
struct times {
  template <class T>
  T operator()(T x, T y) const {
    return x * y;
  }
};
struct over {
  template <class T>
  T operator()(T x, T y) const {
    return x / y;
  }
};
struct fused {
  template <class T>
  T operator()(T x, T y, T z) const {
#if defined(__FMA__)
    // The builtin is an instruction; a call would keep the loop over the lanes from being vectorised.
    if constexpr (std::is_same_v<T, float>) return __builtin_fmaf(x, y, z);
    else return __builtin_fma(x, y, z);
#else
    return std::fma(x, y, z);
#endif
  }
};
struct root {
  template <class T>
  T operator()(T x) const {
    return std::sqrt(x);
  }
};
struct reciprocal {
  template <class T>
  T operator()(T x) const {
    return 1 / x;
  }
};
struct reciprocal_root {
  template <class T>
  T operator()(T x) const {
    return 1 / std::sqrt(x);
  }
};
#define SOFTGPU_FUNCTION(name, call) \
  struct name {                      \
    template <class T>               \
    T operator()(T x) const {        \
      return std::call(x);           \
    }                                \
  };
SOFTGPU_FUNCTION(power_of_two, exp2)
SOFTGPU_FUNCTION(binary_logarithm, log2)
SOFTGPU_FUNCTION(sine, sin)
SOFTGPU_FUNCTION(cosine, cos)
SOFTGPU_FUNCTION(hyperbolic_tangent, tanh)
#undef SOFTGPU_FUNCTION

/// -0 is smaller than +0. A NaN loses against a number, unless Nan: then it wins.
template <bool Larger, bool Nan>
struct choice {
  template <class T>
  T operator()(T x, T y) const {
    using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    auto const a = std::bit_cast<bits>(x), b = std::bit_cast<bits>(y);
    T r = (Larger ? x > y : x < y) ? x : y;
    r = x == y ? std::bit_cast<T>(Larger ? a & b : a | b) : r;
    if constexpr (Nan) {
      r = x != x ? x : r;
      return y != y ? y : r;
    } else {
      r = x != x ? y : r;
      return y != y ? x : r;
    }
  }
};
struct opposite {
  template <class T>
  T operator()(T x) const {
    return -x;
  }
};
struct magnitude {
  template <class T>
  T operator()(T x) const {
    return std::fabs(x);
  }
};
struct sign_of_first {
  template <class T>
  T operator()(T x, T y) const {
    return std::copysign(y, x);
  }
};
/// Only the upper word of the argument is read, and only the upper word of the result is good for anything.
template <class F>
struct upper_word {
  double operator()(double x) const {
    constexpr std::uint64_t upper = 0xffffffff00000000;
    auto const cut = [](double v) { return std::bit_cast<double>(std::bit_cast<std::uint64_t>(v) & upper); };
    x = cut(x);
    if (std::fabs(x) < 0x1p-1022) x = std::copysign(0.0, x);
    double const r = F{}(x);
    return r != r ? r : std::fabs(r) < 0x1p-1022 ? std::copysign(0.0, r) : cut(r);
  }
};

// ---- directed rounding

int rounding_mode(rounding mode) {
  switch (mode) {
    case rounding::toward_zero:
      return FE_TOWARDZERO;
    case rounding::down:
      return FE_DOWNWARD;
    case rounding::up:
      return FE_UPWARD;
    default:
      return FE_TONEAREST;
  }
}

/// The compiler knows nothing of rounding modes: volatile operands keep it from computing outside of them.
template <class T, class F, int Sources, bool Ftz, bool Sat>
void directed(warp& w, instruction const& i, lane_mask m) {
  T r[32];
  int const before = std::fegetround();
  std::fesetround(rounding_mode(static_cast<rounding>(i.option)));
  for (int lane = 0; lane < 32; ++lane) {
    auto const input = [&](std::uint32_t slot) {
      T const x = load<T>(w, slot, lane);
      if constexpr (Ftz) return flushed(x);
      else return x;
    };
    T volatile a = input(i.a);
    T volatile result;
    if constexpr (Sources == 1) {
      result = F{}(T{a});
    } else if constexpr (Sources == 2) {
      T volatile b = input(i.b);
      result = F{}(T{a}, T{b});
    } else {
      T volatile b = input(i.b);
      T volatile c = input(i.c);
      result = std::fma(T{a}, T{b}, T{c});
    }
    T x = result;
    if constexpr (Ftz) x = flushed(x);
    if constexpr (Sat) x = saturated(x);
    else if constexpr (std::is_same_v<T, float>) x = canonical(x);
    r[lane] = x;
  }
  std::fesetround(before);
  store(w, i.d, r, m);
}

rounding take_rounding(statement& s, bool required) {
  int const n = required ? s.need_one({"rn", "rz", "rm", "rp"}) : s.take_one({"rn", "rz", "rm", "rp"});
  return n < 0 ? rounding::nearest_even : static_cast<rounding>(n);
}

template <class T, class F, int Sources, bool Ftz, bool Sat>
handler plain_or_directed(rounding mode) {
  using G = std::conditional_t<std::is_same_v<T, float>, single<F, Ftz, Sat>, F>;
  if (mode != rounding::nearest_even) return directed<T, F, Sources, Ftz, Sat>;
  if constexpr (Sources == 1) return unary<T, G>;
  else if constexpr (Sources == 2) return binary<T, G>;
  else return ternary<T, G>;
}
template <class F, int Sources>
void rounded(statement& s, type t, rounding mode) {
  if (t == type::f64) {
    s.out.option = static_cast<std::uint8_t>(mode);
    return same_type(s, t, Sources, plain_or_directed<double, F, Sources, false, false>(mode));
  }
  if (t != type::f32) throw refusal("type ." + std::string(name_of(t)));
  bool const ftz = s.take("ftz"), sat = Sources > 1 && s.opcode() != "div" && s.take("sat");
  s.out.option = static_cast<std::uint8_t>(mode);
  same_type(s, t, Sources,
            ftz ? (sat ? plain_or_directed<float, F, Sources, true, true>(mode)
                       : plain_or_directed<float, F, Sources, true, false>(mode))
                : (sat ? plain_or_directed<float, F, Sources, false, true>(mode)
                       : plain_or_directed<float, F, Sources, false, false>(mode)));
}
/// Of f32, with or without .ftz, rounded to nearest.
template <class F, int Sources = 1>
void approximate(statement& s) {
  bool const ftz = s.take("ftz");
  if constexpr (Sources == 1)
    same_type(s, type::f32, 1, ftz ? unary<float, single<F, true, false>> : unary<float, single<F, false, false>>);
  else same_type(s, type::f32, 2, ftz ? binary<float, single<F, true, false>> : binary<float, single<F, false, false>>);
}

// ---- half and bfloat16, alone and in pairs: options in instruction::option

enum half_option : std::uint8_t { flushes = 1, saturates = 2, relu = 4, nan_wins = 8 };

template <class Half>
double input(Half x, std::uint8_t options) {
  double const v = value(x);
  return (options & flushes) != 0 && std::fabs(v) < std::ldexp(1.0, Half::min_exponent) ? std::copysign(0.0, v) : v;
}
template <class Half>
Half output(double v, std::uint8_t options) {
  if ((options & saturates) != 0) v = saturated(v);
  if ((options & relu) != 0 && std::signbit(v) && v == v) v = 0;
  Half const r = narrow<Half>(v);
  return (options & flushes) != 0 && std::fabs(value(r)) < std::ldexp(1.0F, Half::min_exponent)
             ? Half{static_cast<std::uint16_t>(r.bits & 0x8000)}
             : r;
}

struct half_plus {
  double operator()(double x, double y, std::uint8_t) const { return add_to_odd(x, y); }
};
struct half_minus {
  double operator()(double x, double y, std::uint8_t) const { return add_to_odd(x, -y); }
};
struct half_times {
  double operator()(double x, double y, std::uint8_t) const { return x * y; }
};
struct half_fused {
  double operator()(double x, double y, double z, std::uint8_t) const { return add_to_odd(x * y, z); }
};
template <bool Larger>
struct half_choice {
  double operator()(double x, double y, std::uint8_t options) const {
    return (options & nan_wins) != 0 ? choice<Larger, true>{}(x, y) : choice<Larger, false>{}(x, y);
  }
};
template <class F>
struct half_function {
  double operator()(double x, std::uint8_t) const { return F{}(static_cast<float>(x)); }
};

template <class Half, class F, int Sources>
Half half_result(Half x, Half y, Half z, std::uint8_t options) {
  if constexpr (Sources == 1) return output<Half>(F{}(input(x, options), options), options);
  else if constexpr (Sources == 2) return output<Half>(F{}(input(x, options), input(y, options), options), options);
  else return output<Half>(F{}(input(x, options), input(y, options), input(z, options), options), options);
}
template <class T, class F, int Sources>
void half_handler(warp& w, instruction const& i, lane_mask m) {
  T r[32];
  for (int lane = 0; lane < 32; ++lane) {
    T const x = load<T>(w, i.a, lane), y = load<T>(w, i.b, lane), z = load<T>(w, i.c, lane);
    if constexpr (is_pair<T>)
      r[lane] = T::of(half_result<typename T::half, F, Sources>(x.low(), y.low(), z.low(), i.option),
                      half_result<typename T::half, F, Sources>(x.high(), y.high(), z.high(), i.option));
    else r[lane] = half_result<T, F, Sources>(x, y, z, i.option);
  }
  store(w, i.d, r, m);
}
template <class F, int Sources>
void halves(statement& s, type t, std::uint8_t allowed) {
  std::uint8_t options = 0;
  if ((allowed & flushes) != 0 && s.take("ftz")) options |= flushes;
  if ((allowed & saturates) != 0 && s.take("sat")) options |= saturates;
  if ((allowed & relu) != 0 && s.take("relu")) options |= relu;
  if ((allowed & nan_wins) != 0 && s.take("NaN")) options |= nan_wins;
  s.out.option = options;
  same_type(s, t, Sources, among<type::f16, type::bf16, type::f16x2, type::bf16x2>(t, [](auto l) -> handler {
              return half_handler<lane_of<decltype(l)>, F, Sources>;
            }));
}
/// Signs are bits, NaN or not.
template <bool Clear>
struct half_sign {
  template <class T>
  T operator()(T x) const {
    constexpr auto signs = static_cast<decltype(x.bits)>(is_pair<T> ? 0x80008000U : 0x8000U);
    return {static_cast<decltype(x.bits)>(Clear ? x.bits & ~signs : x.bits ^ signs)};
  }
};
template <bool Clear>
void half_signs(statement& s, type t) {
  same_type(s, t, 1, among<type::f16, type::bf16, type::f16x2, type::bf16x2>(t, [](auto l) -> handler {
              return unary<lane_of<decltype(l)>, half_sign<Clear>>;
            }));
}

bool is_single_or_double(type t) { return t == type::f32 || t == type::f64; }

template <class F, class Half>
void decode_arithmetic(statement& s, type t) {
  if (is_single_or_double(t)) return rounded<F, 2>(s, t, take_rounding(s, false));
  s.take("rn");
  halves<Half, 2>(s, t, flushes | saturates);
}
template <bool Larger>
void decode_choice(statement& s, type t) {
  if (t == type::f64) return same_type(s, t, 2, binary<double, choice<Larger, false>>);
  if (t != type::f32) return halves<half_choice<Larger>, 2>(s, t, flushes | nan_wins);
  if (s.take("NaN")) return approximate<choice<Larger, true>, 2>(s);
  approximate<choice<Larger, false>, 2>(s);
}
template <class F, bool Clear>
void decode_sign(statement& s, type t) {
  if (t == type::f64) return same_type(s, t, 1, unary<double, F>);
  if (t != type::f32) return half_signs<Clear>(s, t);
  if (s.take("ftz")) return same_type(s, t, 1, unary<float, single<F, true, false>>);
  same_type(s, t, 1, unary<float, F>);
}
void decode_quotient(statement& s, type t) {
  if (t == type::f32 && s.take_one({"approx", "full"}) >= 0) return approximate<over, 2>(s);
  rounded<over, 2>(s, t, take_rounding(s, true));
}

void decode_root(statement& s) {
  type const t = s.need_type();
  if (t == type::f32 && s.take("approx")) return approximate<root>(s);
  rounded<root, 1>(s, t, take_rounding(s, true));
}
void decode_reciprocal(statement& s) {
  type const t = s.need_type();
  if (!s.take("approx")) return rounded<reciprocal, 1>(s, t, take_rounding(s, true));
  if (t == type::f32) return approximate<reciprocal>(s);
  if (t != type::f64 || !s.take("ftz")) throw refusal("rcp.approx of type ." + std::string(name_of(t)));
  same_type(s, t, 1, unary<double, upper_word<reciprocal>>);
}
void decode_reciprocal_root(statement& s) {
  type const t = s.need_type();
  s.need_one({"approx"});
  if (t == type::f32) return approximate<reciprocal_root>(s);
  if (t != type::f64) throw refusal("rsqrt of type ." + std::string(name_of(t)));
  bool const ftz = s.take("ftz");
  same_type(s, t, 1, ftz ? unary<double, upper_word<reciprocal_root>> : unary<double, reciprocal_root>);
}
template <class F>
void decode_function(statement& s) {
  type const t = s.need_type();
  s.need_one({"approx"});
  if (t == type::f32) return approximate<F>(s);
  if (s.opcode() != "ex2" && s.opcode() != "tanh") throw refusal("type ." + std::string(name_of(t)));
  halves<half_function<F>, 1>(s, t, flushes);
}
void decode_fma(statement& s) { decode_fused(s, s.need_type()); }
void decode_copysign(statement& s) {
  type const t = s.need_type();
  same_type(s, t, 2, among<type::f32, type::f64>(t, [](auto l) -> handler {
              return binary<lane_of<decltype(l)>, sign_of_first>;
            }));
}

template <class T, int Class>
void test_class(warp& w, instruction const& i, lane_mask m) {
  lane_mask r = 0;
  for (int lane = 0; lane < 32; ++lane) {
    int const c = std::fpclassify(load<T>(w, i.a, lane));
    bool const is = Class == 0   ? c != FP_NAN && c != FP_INFINITE
                    : Class == 1 ? c == FP_INFINITE
                    : Class == 2 ? c != FP_NAN
                    : Class == 3 ? c == FP_NAN
                    : Class == 4 ? c == FP_NORMAL
                                 : c == FP_SUBNORMAL;
    r |= static_cast<lane_mask>(is) << lane;
  }
  w.set_predicate(i.d, r, m);
}
void decode_testp(statement& s) {
  type const t = s.need_type();
  int const which = s.need_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  s.need(2);
  s.out.d = s.write(0, type::pred);
  s.out.a = s.read(1, t);
  s(among<type::f32, type::f64>(t, [&](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    static constexpr handler tests[] = {test_class<T, 0>, test_class<T, 1>, test_class<T, 2>,
                                        test_class<T, 3>, test_class<T, 4>, test_class<T, 5>};
    return tests[which];
  }));
}

}  // namespace

void decode_real(statement& s, type t) {
  auto const opcode = s.opcode();
  if (opcode == "add") return decode_arithmetic<plus, half_plus>(s, t);
  if (opcode == "sub") return decode_arithmetic<minus, half_minus>(s, t);
  if (opcode == "mul") return decode_arithmetic<times, half_times>(s, t);
  if (opcode == "div") return decode_quotient(s, t);
  if (opcode == "min") return decode_choice<false>(s, t);
  if (opcode == "max") return decode_choice<true>(s, t);
  if (opcode == "neg") return decode_sign<opposite, false>(s, t);
  if (opcode == "abs") return decode_sign<magnitude, true>(s, t);
  throw refusal("type ." + std::string(name_of(t)));
}

void decode_fused(statement& s, type t) {
  if (is_single_or_double(t)) return rounded<fused, 3>(s, t, take_rounding(s, true));
  s.need_one({"rn"});
  halves<half_fused, 3>(s, t, flushes | saturates | relu);
}

void add_float_opcodes(opcode_table& t) {
  t["fma"] = decode_fma;
  t["sqrt"] = decode_root;
  t["rcp"] = decode_reciprocal;
  t["rsqrt"] = decode_reciprocal_root;
  t["ex2"] = decode_function<power_of_two>;
  t["lg2"] = decode_function<binary_logarithm>;
  t["sin"] = decode_function<sine>;
  t["cos"] = decode_function<cosine>;
  t["tanh"] = decode_function<hyperbolic_tangent>;
  t["copysign"] = decode_copysign;
  t["testp"] = decode_testp;
}

}  // namespace softgpu
