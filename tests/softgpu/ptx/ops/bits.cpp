// Logic, shifts, and the fields of words.
#include <algorithm>
#include <bit>

#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

struct both {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(x & y);
  }
};
struct either {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(x | y);
  }
};
struct differs {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(x ^ y);
  }
};
struct complement {
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(~x);
  }
};
struct is_zero {
  template <class T>
  T operator()(T x) const {
    return x == 0;
  }
};

template <class F, bool Unary>
void predicate_logic(warp& w, instruction const& i, lane_mask m) {
  if constexpr (Unary) w.set_predicate(i.d, F{}(w.truth(i, i.a, 0)), m);
  else w.set_predicate(i.d, F{}(w.truth(i, i.a, 0), w.truth(i, i.b, 1)), m);
}
template <class F>
void decode_logic(statement& s) {
  type const t = s.need_type();
  if (t == type::pred) {
    s.need(3);
    s.out.d = s.write(0, t);
    s.out.a = s.read_predicate(1, 0);
    s.out.b = s.read_predicate(2, 1);
    return s(predicate_logic<F, false>);
  }
  same_type(s, t, 2, among<type::b16, type::b32, type::b64>(t, [](auto l) -> handler {
              return binary<lane_of<decltype(l)>, F>;
            }));
}
void decode_not(statement& s) {
  type const t = s.need_type();
  if (t == type::pred) {
    s.need(2);
    s.out.d = s.write(0, t);
    s.out.a = s.read_predicate(1, 0);
    return s(predicate_logic<complement, true>);
  }
  same_type(s, t, 1, among<type::b16, type::b32, type::b64>(t, [](auto l) -> handler {
              return unary<lane_of<decltype(l)>, complement>;
            }));
}
void decode_cnot(statement& s) {
  type const t = s.need_type();
  same_type(s, t, 1, among<type::b16, type::b32, type::b64>(t, [](auto l) -> handler {
              return unary<lane_of<decltype(l)>, is_zero>;
            }));
}

/// Any function of three bits: bit k of the table belongs to k = 4 a + 2 b + c.
void any_logic(warp& w, instruction const& i, lane_mask m) {
  std::uint32_t r[32];
  for (int lane = 0; lane < 32; ++lane) {
    auto const x = load<std::uint32_t>(w, i.a, lane), y = load<std::uint32_t>(w, i.b, lane),
               z = load<std::uint32_t>(w, i.c, lane);
    r[lane] = 0;
    for (unsigned k = 0; k < 8; ++k)
      if ((i.option >> k & 1) != 0)
        r[lane] |= ((k & 4) != 0 ? x : ~x) & ((k & 2) != 0 ? y : ~y) & ((k & 1) != 0 ? z : ~z);
  }
  store(w, i.d, r, m);
}
void decode_lop3(statement& s) {
  if (s.need_type() != type::b32) throw refusal("lop3 of another type than .b32");
  s.need(5);
  std::uint32_t const table = s.literal(4);
  if (table > 255) throw refusal("lop3 table");
  s.out.d = s.write(0, type::b32);
  s.out.a = s.read(1, type::b32);
  s.out.b = s.read(2, type::b32);
  s.out.c = s.read(3, type::b32);
  s.out.option = static_cast<std::uint8_t>(table);
  s(any_logic);
}

// ---- shifts: distances from the width on give zeros, or signs

struct left {
  template <class T>
  T operator()(T x, std::uint32_t n) const {
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(static_cast<std::uint64_t>(x) << n);
  }
};
struct right {
  template <class T>
  T operator()(T x, std::uint32_t n) const {
    constexpr std::uint32_t width = 8 * sizeof(T);
    return n >= width ? static_cast<T>(x < 0 ? -1 : 0) : static_cast<T>(x >> n);
  }
};
void decode_shl(statement& s) {
  type const t = s.need_type();
  s.need(3);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, type::u32);
  s(among<type::b16, type::b32, type::b64>(t, [](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    return map2<T, T, std::uint32_t, left>;
  }));
}
void decode_shr(statement& s) {
  type const t = s.need_type();
  s.need(3);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, type::u32);
  s(among<type::b16, type::b32, type::b64, type::u16, type::u32, type::u64, type::s16, type::s32, type::s64>(
      t, [](auto l) -> handler {
        using T = lane_of<decltype(l)>;
        return map2<T, T, std::uint32_t, right>;
      }));
}
template <bool Left, bool Clamp>
struct funnel {
  std::uint32_t operator()(std::uint32_t low, std::uint32_t high, std::uint32_t n) const {
    std::uint64_t const x = low | std::uint64_t{high} << 32;
    n = Clamp ? std::min(n, 32U) : n & 31;
    return static_cast<std::uint32_t>(Left ? (n == 32 ? low : x << n >> 32) : x >> n);
  }
};
void decode_shf(statement& s) {
  if (s.need_type() != type::b32) throw refusal("shf of another type than .b32");
  bool const to_left = s.need_one({"l", "r"}) == 0, wraps = s.need_one({"wrap", "clamp"}) == 0;
  handler const run =
      to_left ? (wraps ? ternary<std::uint32_t, funnel<true, false>> : ternary<std::uint32_t, funnel<true, true>>)
              : (wraps ? ternary<std::uint32_t, funnel<false, false>> : ternary<std::uint32_t, funnel<false, true>>);
  same_type(s, type::b32, 3, run);
}

// ---- counting

struct ones {
  template <class T>
  std::uint32_t operator()(T x) const {
    return static_cast<std::uint32_t>(std::popcount(x));
  }
};
struct leading_zeros {
  template <class T>
  std::uint32_t operator()(T x) const {
    return static_cast<std::uint32_t>(std::countl_zero(x));
  }
};
template <class F>
void decode_count(statement& s) {
  type const t = s.need_type();
  s.need(2);
  s.out.d = s.write(0, type::u32);
  s.out.a = s.read(1, t);
  s(among<type::b32, type::b64>(t, [](auto l) -> handler { return map1<std::uint32_t, lane_of<decltype(l)>, F>; }));
}
template <bool Distance>
struct leading_bit {
  template <class T>
  std::uint32_t operator()(T x) const {
    using U = std::make_unsigned_t<T>;
    auto const u = static_cast<U>(x < 0 ? ~x : x);
    if (u == 0) return ~0U;
    auto const zeros = static_cast<std::uint32_t>(std::countl_zero(u));
    return Distance ? zeros : static_cast<std::uint32_t>(8 * sizeof(T)) - 1 - zeros;
  }
};
void decode_bfind(statement& s) {
  type const t = s.need_type();
  bool const distance = s.take("shiftamt");
  s.need(2);
  s.out.d = s.write(0, type::u32);
  s.out.a = s.read(1, t);
  s(among<type::u32, type::s32, type::u64, type::s64>(t, [&](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    return distance ? map1<std::uint32_t, T, leading_bit<true>> : map1<std::uint32_t, T, leading_bit<false>>;
  }));
}
struct reversed {
  template <class T>
  T operator()(T x) const {
    T r = 0;
    for (unsigned k = 0; k < 8 * sizeof(T); ++k) r |= static_cast<T>(x >> k & 1) << (8 * sizeof(T) - 1 - k);
    return r;
  }
};
void decode_brev(statement& s) {
  type const t = s.need_type();
  same_type(s, t, 1,
            among<type::b32, type::b64>(t, [](auto l) -> handler { return unary<lane_of<decltype(l)>, reversed>; }));
}

// ---- fields

struct extract {
  template <class T>
  T operator()(T x, std::uint32_t from, std::uint32_t length) const {
    constexpr std::uint32_t width = 8 * sizeof(T);
    from &= 255;
    length &= 255;
    if (length == 0) return 0;
    if (from >= width) return static_cast<T>(x < 0 ? -1 : 0);
    std::uint32_t const top = std::min(from + length, width);
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<T>(static_cast<U>(x) << (width - top)) >> (width - top + from));
  }
};
void decode_bfe(statement& s) {
  type const t = s.need_type();
  s.need(4);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, type::u32);
  s.out.c = s.read(3, type::u32);
  s(among<type::u32, type::s32, type::u64, type::s64>(t, [](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    return map3<T, T, std::uint32_t, std::uint32_t, extract>;
  }));
}
template <class T>
void insert(warp& w, instruction const& i, lane_mask m) {
  T r[32];
  constexpr std::uint32_t width = 8 * sizeof(T);
  for (int lane = 0; lane < 32; ++lane) {
    auto const field = load<T>(w, i.a, lane), into = load<T>(w, i.b, lane);
    std::uint32_t const at = load<std::uint32_t>(w, i.c, lane) & 255, length = load<std::uint32_t>(w, i.e, lane) & 255;
    T const ones_of_length = length >= width ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << length) - 1);
    T const mask = at >= width ? T{0} : static_cast<T>(ones_of_length << at);
    r[lane] = at >= width ? into : static_cast<T>((into & ~mask) | (static_cast<T>(field << at) & mask));
  }
  store(w, i.d, r, m);
}
void decode_bfi(statement& s) {
  type const t = s.need_type();
  s.need(5);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, t);
  s.out.c = s.read(3, type::u32);
  s.out.e = s.read(4, type::u32);
  s(among<type::b32, type::b64>(t, [](auto l) -> handler { return insert<lane_of<decltype(l)>>; }));
}
template <bool Clamp>
struct field_mask {
  std::uint32_t operator()(std::uint32_t at, std::uint32_t length) const {
    if (!Clamp) at &= 31, length &= 31;
    if (at >= 32 || length == 0) return 0;
    return static_cast<std::uint32_t>(((std::uint64_t{1} << std::min(length, 32U)) - 1) << at);
  }
};
void decode_bmsk(statement& s) {
  if (s.need_type() != type::b32) throw refusal("bmsk of another type than .b32");
  bool const clamps = s.need_one({"clamp", "wrap"}) == 0;
  same_type(s, type::b32, 2,
            clamps ? binary<std::uint32_t, field_mask<true>> : binary<std::uint32_t, field_mask<false>>);
}

// ---- bytes

template <int Mode>  // 0: any bytes; then f4e b4e rc8 ecl ecr rc16
struct permuted {
  std::uint32_t operator()(std::uint32_t low, std::uint32_t high, std::uint32_t selector) const {
    std::uint64_t const x = low | std::uint64_t{high} << 32;
    std::uint32_t const k = selector & 3;
    std::uint32_t r = 0;
    for (std::uint32_t n = 0; n < 4; ++n) {
      std::uint32_t which = 0;
      switch (Mode) {
        case 0:
          which = selector >> (4 * n) & 15;
          break;
        case 1:
          which = k + n;
          break;
        case 2:
          which = (k - n) & 7;
          break;
        case 3:
          which = k;
          break;
        case 4:
          which = std::max(k, n);
          break;
        case 5:
          which = std::min(k, n);
          break;
        default:
          which = 2 * (k & 1) + (n & 1);
      }
      std::uint32_t byte = static_cast<std::uint32_t>(x >> (8 * (which & 7))) & 255;
      if (Mode == 0 && (which & 8) != 0) byte = (byte & 128) != 0 ? 255 : 0;
      r |= byte << (8 * n);
    }
    return r;
  }
};
void decode_prmt(statement& s) {
  if (s.need_type() != type::b32) throw refusal("prmt of another type than .b32");
  using word = std::uint32_t;
  static constexpr handler modes[] = {
      ternary<word, permuted<0>>, ternary<word, permuted<1>>, ternary<word, permuted<2>>, ternary<word, permuted<3>>,
      ternary<word, permuted<4>>, ternary<word, permuted<5>>, ternary<word, permuted<6>>};
  same_type(s, type::b32, 3, modes[s.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1]);
}

}  // namespace

void add_bit_opcodes(opcode_table& t) {
  t["and"] = decode_logic<both>;
  t["or"] = decode_logic<either>;
  t["xor"] = decode_logic<differs>;
  t["not"] = decode_not;
  t["cnot"] = decode_cnot;
  t["lop3"] = decode_lop3;
  t["shl"] = decode_shl;
  t["shr"] = decode_shr;
  t["shf"] = decode_shf;
  t["popc"] = decode_count<ones>;
  t["clz"] = decode_count<leading_zeros>;
  t["bfind"] = decode_bfind;
  t["brev"] = decode_brev;
  t["bfe"] = decode_bfe;
  t["bfi"] = decode_bfi;
  t["bmsk"] = decode_bmsk;
  t["prmt"] = decode_prmt;
}

}  // namespace softgpu
