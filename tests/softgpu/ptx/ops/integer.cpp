// Integer arithmetic, with the carry forms.
#include <limits>

#include "ptx/ops/extremes.hpp"
#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

template <class T>
using bits_of = std::make_unsigned_t<T>;
/// Signed overflow wraps, and so do products of 16 bits that C++ would compute as int.
template <class T>
constexpr std::uint64_t wide_bits(T x) {
  return static_cast<std::uint64_t>(x);
}
template <class T>
using twice = std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, s128, u128>,
                                 std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
/// Of .wide: 16 bits give 32, and 32 give 64.
template <class T>
using twice_as_wide =
    std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, std::int32_t, std::uint32_t>,
                       std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
template <class T>
T high_part(T x, T y) {
  return static_cast<T>(twice<T>(x) * twice<T>(y) >> (8 * sizeof(T)));
}

struct plus {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(static_cast<bits_of<T>>(x) + static_cast<bits_of<T>>(y));
  }
};
struct minus {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(static_cast<bits_of<T>>(x) - static_cast<bits_of<T>>(y));
  }
};
struct times_low {
  template <class T>
  T operator()(T x, T y) const {
    if constexpr (sizeof(T) == 4) return static_cast<T>(static_cast<std::uint32_t>(x) * static_cast<std::uint32_t>(y));
    else return static_cast<T>(wide_bits(x) * wide_bits(y));
  }
};
struct times_high {
  template <class T>
  T operator()(T x, T y) const {
    return high_part(x, y);
  }
};
template <class D>
struct times_wide {
  template <class T>
  D operator()(T x, T y) const {
    return static_cast<D>(static_cast<D>(x) * static_cast<D>(y));
  }
};
struct clamp_plus {
  std::int32_t operator()(std::int32_t x, std::int32_t y) const { return clamped(std::int64_t{x} + y); }
  static std::int32_t clamped(std::int64_t v) {
    constexpr std::int64_t low = std::numeric_limits<std::int32_t>::min(),
                           high = std::numeric_limits<std::int32_t>::max();
    return static_cast<std::int32_t>(v < low ? low : v > high ? high : v);
  }
};
struct clamp_minus {
  std::int32_t operator()(std::int32_t x, std::int32_t y) const { return clamp_plus::clamped(std::int64_t{x} - y); }
};
template <class Product>
struct then_plus {
  template <class T, class C>
  C operator()(T x, T y, C z) const {
    return plus{}(static_cast<C>(Product{}(x, y)), z);
  }
};
struct times_high_then_clamp {
  std::int32_t operator()(std::int32_t x, std::int32_t y, std::int32_t z) const {
    return clamp_plus{}(high_part(x, y), z);
  }
};
template <bool High>
struct times_24 {
  template <class T>
  T operator()(T x, T y) const {
    auto const cut = [](T v) {
      return static_cast<std::int64_t>(std::is_signed_v<T> ? T(static_cast<bits_of<T>>(v) << 8) >> 8 : v & 0xffffff);
    };
    return static_cast<T>(cut(x) * cut(y) >> (High ? 16 : 0));
  }
};
// What division by zero and min / -1 give is unspecified; these are what the hardware is seen to give.
struct over {
  template <class T>
  T operator()(T x, T y) const {
    if (y == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && y == static_cast<T>(-1)) return minus{}(T{0}, x);
    return static_cast<T>(x / y);
  }
};
struct remainder {
  template <class T>
  T operator()(T x, T y) const {
    if (y == 0) return x;
    if (std::is_signed_v<T> && y == static_cast<T>(-1)) return 0;
    return static_cast<T>(x % y);
  }
};
template <class Choice>
struct not_negative {
  std::int32_t operator()(std::int32_t x, std::int32_t y) const { return larger{}(Choice{}(x, y), std::int32_t{0}); }
};
struct negative {
  template <class T>
  T operator()(T x) const {
    return minus{}(T{0}, x);
  }
};
struct magnitude {
  template <class T>
  T operator()(T x) const {
    return x < 0 ? minus{}(T{0}, x) : x;
  }
};
struct distance_plus {
  template <class T>
  T operator()(T x, T y, T z) const {
    return plus{}(x < y ? minus{}(y, x) : minus{}(x, y), z);
  }
};

/// Sum of products of four bytes, or of two half words with the low or high two bytes.
template <class A, class B, int Terms, bool High>
struct dot {
  template <class C>
  C operator()(std::uint32_t x, std::uint32_t y, C sum) const {
    auto r = static_cast<std::int64_t>(sum);
    for (int n = 0; n < Terms; ++n) {
      if constexpr (Terms == 4) r += std::int64_t{static_cast<A>(x >> (8 * n))} * static_cast<B>(y >> (8 * n));
      else r += std::int64_t{static_cast<A>(x >> (16 * n))} * static_cast<B>(y >> (8 * n + (High ? 16 : 0)));
    }
    return static_cast<C>(r);
  }
};

// The carry is a flag of each thread: instructions named .cc write it, those named ..c read it.
enum class carry_op : std::uint8_t { plus, minus, low_plus, high_plus };
template <class T, carry_op Op, bool Reads, bool Writes>
void with_carry(warp& w, instruction const& i, lane_mask m) {
  T r[32];
  lane_mask out = 0;
  for (int lane = 0; lane < 32; ++lane) {
    auto x = load<T>(w, i.a, lane), y = load<T>(w, i.b, lane);
    T const in = Reads ? static_cast<T>(w.carry >> lane & 1) : T{0};
    if constexpr (Op == carry_op::low_plus || Op == carry_op::high_plus) {
      x = Op == carry_op::low_plus ? static_cast<T>(x * y) : high_part(x, y);
      y = load<T>(w, i.c, lane);
    }
    using wider = u128;
    wider const exact = Op == carry_op::minus ? wider{x} - y - in : wider{x} + y + in;
    r[lane] = static_cast<T>(exact);
    out |= static_cast<lane_mask>(exact >> (8 * sizeof(T)) & 1) << lane;
  }
  store(w, i.d, r, m);
  if (Writes) w.carry = (w.carry & ~m) | (out & m);
}
template <class T, carry_op Op>
handler carry_handler(bool reads, bool writes) {
  if (reads) return writes ? with_carry<T, Op, true, true> : with_carry<T, Op, true, false>;
  return with_carry<T, Op, false, true>;
}
template <carry_op Op>
void decode_carry(statement& s, type t, std::size_t sources, bool reads, bool writes) {
  handler const run = among<type::u32, type::s32, type::b32, type::u64, type::s64, type::b64>(
      t, [&](auto l) -> handler { return carry_handler<bits_of<lane_of<decltype(l)>>, Op>(reads, writes); });
  same_type(s, t, sources, run);
}

/// Carry, saturation, or half and float types: somebody else's.
bool is_real(statement& s, type t) {
  if (t != type::f32 && t != type::f64 && t != type::f16 && t != type::bf16 && t != type::f16x2 && t != type::bf16x2)
    return false;
  decode_real(s, t);
  return true;
}

template <class F>
handler for_integers(type t) {
  return among<type::u16, type::s16, type::u32, type::s32, type::u64, type::s64>(
      t, [](auto l) -> handler { return binary<lane_of<decltype(l)>, F>; });
}

template <class F, class Clamped, carry_op Carry>
void decode_sum(statement& s) {
  type const t = s.need_type();
  if (is_real(s, t)) return;
  if (s.take("cc")) return decode_carry<Carry>(s, t, 2, false, true);
  if (s.take("sat")) {
    if (t != type::s32) throw refusal(".sat of type ." + std::string(name_of(t)));
    return same_type(s, t, 2, binary<std::int32_t, Clamped>);
  }
  same_type(s, t, 2, for_integers<F>(t));
}
template <carry_op Carry>
void decode_sum_with_carry(statement& s) {
  type const t = s.need_type();
  bool const writes = s.take("cc");
  decode_carry<Carry>(s, t, 2, true, writes);
}

void decode_product(statement& s) {
  type const t = s.need_type();
  if (is_real(s, t)) return;
  switch (s.need_one({"lo", "hi", "wide"})) {
    case 0:
      return same_type(s, t, 2, for_integers<times_low>(t));
    case 1:
      return same_type(s, t, 2, for_integers<times_high>(t));
    default:
      break;
  }
  s(among<type::u16, type::s16, type::u32, type::s32>(t, [](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    return map2<twice_as_wide<T>, T, T, times_wide<twice_as_wide<T>>>;
  }));
  s.need(3);
  s.read_all(t);
  s.out.d = s.write(0, size_of(t) == 4 ? type::b64 : type::b32);
}

template <class F>
handler three_integers(type t) {
  return among<type::u16, type::s16, type::u32, type::s32, type::u64, type::s64>(
      t, [](auto l) -> handler { return ternary<lane_of<decltype(l)>, then_plus<F>>; });
}
void decode_product_sum(statement& s) {
  type const t = s.need_type();
  if (t == type::f32 || t == type::f64) return decode_fused(s, t);
  int const part = s.need_one({"lo", "hi", "wide"});
  if (part == 2) {
    s(among<type::u16, type::s16, type::u32, type::s32>(t, [](auto l) -> handler {
      using T = lane_of<decltype(l)>;
      using D = twice_as_wide<T>;
      return map3<D, T, T, D, then_plus<times_wide<D>>>;
    }));
    s.need(4);
    type const d = size_of(t) == 4 ? type::b64 : type::b32;
    s.out.d = s.write(0, d);
    s.out.a = s.read(1, t);
    s.out.b = s.read(2, t);
    s.out.c = s.read(3, d);
    return;
  }
  if (s.take("cc")) {
    if (t == type::s32 && part == 1) throw refusal("signed mad.hi.cc");
    return part == 0 ? decode_carry<carry_op::low_plus>(s, t, 3, false, true)
                     : decode_carry<carry_op::high_plus>(s, t, 3, false, true);
  }
  if (s.take("sat")) {
    if (t != type::s32 || part != 1) throw refusal("mad.sat of another form than .hi.s32");
    return same_type(s, t, 3, ternary<std::int32_t, times_high_then_clamp>);
  }
  same_type(s, t, 3, part == 0 ? three_integers<times_low>(t) : three_integers<times_high>(t));
}
void decode_product_sum_with_carry(statement& s) {
  type const t = s.need_type();
  int const part = s.need_one({"lo", "hi"});
  if (part == 1 && is_signed(t)) throw refusal("signed madc.hi");
  bool const writes = s.take("cc");
  if (part == 0) return decode_carry<carry_op::low_plus>(s, t, 3, true, writes);
  decode_carry<carry_op::high_plus>(s, t, 3, true, writes);
}

void decode_product_24(statement& s) {
  type const t = s.need_type();
  bool const high = s.need_one({"lo", "hi"}) == 1;
  handler const run = among<type::u32, type::s32>(t, [&](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    if (s.opcode() == "mul24") return high ? binary<T, times_24<true>> : binary<T, times_24<false>>;
    return high ? ternary<T, then_plus<times_24<true>>> : ternary<T, then_plus<times_24<false>>>;
  });
  same_type(s, t, s.opcode() == "mul24" ? 2 : 3, run);
}

template <class F>
void decode_division(statement& s) {
  type const t = s.need_type();
  if (is_real(s, t)) return;
  same_type(s, t, 2, for_integers<F>(t));
}
template <class F>
void decode_choice(statement& s) {
  type const t = s.need_type();
  if (is_real(s, t)) return;
  if (s.take("relu")) {
    if (t != type::s32) throw refusal(".relu of type ." + std::string(name_of(t)));
    return same_type(s, t, 2, binary<std::int32_t, not_negative<F>>);
  }
  same_type(s, t, 2, for_integers<F>(t));
}
template <class F>
void decode_sign(statement& s) {
  type const t = s.need_type();
  if (is_real(s, t)) return;
  same_type(s, t, 1, among<type::s16, type::s32, type::s64>(t, [](auto l) -> handler {
              return unary<lane_of<decltype(l)>, F>;
            }));
}
void decode_distance(statement& s) {
  type const t = s.need_type();
  same_type(s, t, 3, among<type::u16, type::s16, type::u32, type::s32, type::u64, type::s64>(t, [](auto l) -> handler {
              return ternary<lane_of<decltype(l)>, distance_plus>;
            }));
}

template <class A, class B>
handler dot_handler(std::string_view opcode, bool high) {
  using C = std::conditional_t<std::is_signed_v<A> || std::is_signed_v<B>, std::int32_t, std::uint32_t>;
  using word = std::uint32_t;
  using A2 = std::conditional_t<std::is_signed_v<A>, std::int16_t, std::uint16_t>;
  if (opcode == "dp4a") return map3<C, word, word, C, dot<A, B, 4, false>>;
  return high ? map3<C, word, word, C, dot<A2, B, 2, true>> : map3<C, word, word, C, dot<A2, B, 2, false>>;
}
void decode_dot(statement& s) {
  type const a = s.need_type(), b = s.need_type();
  bool const high = s.opcode() == "dp2a" && s.need_one({"lo", "hi"}) == 1;
  handler const run = among<type::u32, type::s32>(a, [&](auto la) {
    return among<type::u32, type::s32>(b, [&](auto lb) -> handler {
      using A = std::conditional_t<std::is_signed_v<lane_of<decltype(la)>>, std::int8_t, std::uint8_t>;
      using B = std::conditional_t<std::is_signed_v<lane_of<decltype(lb)>>, std::int8_t, std::uint8_t>;
      return dot_handler<A, B>(s.opcode(), high);
    });
  });
  same_type(s, type::b32, 3, run);
}

}  // namespace

void add_integer_opcodes(opcode_table& t) {
  t["add"] = decode_sum<plus, clamp_plus, carry_op::plus>;
  t["sub"] = decode_sum<minus, clamp_minus, carry_op::minus>;
  t["addc"] = decode_sum_with_carry<carry_op::plus>;
  t["subc"] = decode_sum_with_carry<carry_op::minus>;
  t["mul"] = decode_product;
  t["mad"] = decode_product_sum;
  t["madc"] = decode_product_sum_with_carry;
  t["mul24"] = t["mad24"] = decode_product_24;
  t["div"] = decode_division<over>;
  t["rem"] = decode_division<remainder>;
  t["min"] = decode_choice<smaller>;
  t["max"] = decode_choice<larger>;
  t["neg"] = decode_sign<negative>;
  t["abs"] = decode_sign<magnitude>;
  t["sad"] = decode_distance;
  t["dp4a"] = t["dp2a"] = decode_dot;
}

}  // namespace softgpu
