// Integer instructions against what the PTX manual says of them.
#include "ptx_bench.hpp"

namespace softgpu_test {

namespace {

using u16 = std::uint16_t;
using s16 = std::int16_t;
using u32 = std::uint32_t;
using s32 = std::int32_t;
using u64 = std::uint64_t;
using s64 = std::int64_t;
__extension__ using u128 = unsigned __int128;
__extension__ using s128 = __int128;

template <class T>
std::string type_name() {
  return (std::is_signed_v<T> ? "s" : "u") + std::to_string(8 * sizeof(T));
}
template <class T>
using wide = std::conditional_t<std::is_signed_v<T>, s128, u128>;

template <class T>
void check_arithmetic() {
  std::string const t = type_name<T>();
  using W = wide<T>;
  check2<T, T, T>("add." + t + " %d, %a, %b;",
                  [](T a, T b) { return static_cast<T>(static_cast<u128>(W{a}) + static_cast<u128>(W{b})); });
  check2<T, T, T>("sub." + t + " %d, %a, %b;",
                  [](T a, T b) { return static_cast<T>(static_cast<u128>(W{a}) - static_cast<u128>(W{b})); });
  check2<T, T, T>("mul.lo." + t + " %d, %a, %b;",
                  [](T a, T b) { return static_cast<T>(static_cast<u128>(W{a}) * static_cast<u128>(W{b})); });
  check2<T, T, T>("mul.hi." + t + " %d, %a, %b;",
                  [](T a, T b) { return static_cast<T>((W{a} * W{b}) >> (8 * sizeof(T))); });
  check3<T, T, T, T>("mad.lo." + t + " %d, %a, %b, %c;", [](T a, T b, T c) {
    return static_cast<T>(static_cast<u128>(W{a}) * static_cast<u128>(W{b}) + static_cast<u128>(W{c}));
  });
  check3<T, T, T, T>("mad.hi." + t + " %d, %a, %b, %c;", [](T a, T b, T c) {
    return static_cast<T>(static_cast<u128>((W{a} * W{b}) >> (8 * sizeof(T))) + static_cast<u128>(W{c}));
  });
  check2<T, T, T>("min." + t + " %d, %a, %b;", [](T a, T b) { return a < b ? a : b; });
  check2<T, T, T>("max." + t + " %d, %a, %b;", [](T a, T b) { return a < b ? b : a; });
  check3<T, T, T, T>("sad." + t + " %d, %a, %b, %c;", [](T a, T b, T c) {
    return static_cast<T>(static_cast<u128>(W{c}) + static_cast<u128>(a < b ? W{b} - W{a} : W{a} - W{b}));
  });
  std::vector<T> divisors;  // division by zero is unspecified
  for (T const x : edges<T>())
    if (x != 0) divisors.push_back(x);
  check_values<T, T, T>(
      "div." + t + " %d, %a, %b;", [](T a, T b) { return static_cast<T>(W{a} / W{b}); }, edges<T>(), divisors);
  check_values<T, T, T>(
      "rem." + t + " %d, %a, %b;", [](T a, T b) { return static_cast<T>(W{a} % W{b}); }, edges<T>(), divisors);
}
template <class D, class T>
void check_wide() {
  std::string const t = type_name<T>();
  check2<D, T, T>("mul.wide." + t + " %d, %a, %b;", [](T a, T b) { return static_cast<D>(wide<T>{a} * wide<T>{b}); });
  check3<D, T, T, D>("mad.wide." + t + " %d, %a, %b, %c;", [](T a, T b, D c) {
    return static_cast<D>(static_cast<u128>(wide<T>{a} * wide<T>{b}) + static_cast<u128>(wide<T>{c}));
  });
}
template <class T>
void check_signs() {
  std::string const t = type_name<T>();
  check1<T, T>("neg." + t + " %d, %a;", [](T a) { return static_cast<T>(-s128{a}); });
  check1<T, T>("abs." + t + " %d, %a;", [](T a) { return static_cast<T>(a < 0 ? -s128{a} : s128{a}); });
}
template <class T>
void check_bits() {
  std::string const width = std::to_string(8 * sizeof(T)), b = "b" + width, u = "u" + width;
  check2<T, T, T>("and." + b + " %d, %a, %b;", [](T x, T y) { return static_cast<T>(x & y); });
  check2<T, T, T>("or." + b + " %d, %a, %b;", [](T x, T y) { return static_cast<T>(x | y); });
  check2<T, T, T>("xor." + b + " %d, %a, %b;", [](T x, T y) { return static_cast<T>(x ^ y); });
  check1<T, T>("not." + b + " %d, %a;", [](T x) { return static_cast<T>(~x); });
  check1<T, T>("cnot." + b + " %d, %a;", [](T x) { return static_cast<T>(x == 0 ? 1 : 0); });
  check2<T, T, u32>("shl." + b + " %d, %a, %b;",
                    [](T x, u32 n) { return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(u64{x} << n); });
  for (auto const& name : {b, u})
    check2<T, T, u32>("shr." + name + " %d, %a, %b;",
                      [](T x, u32 n) { return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(u64{x} >> n); });
  using S = std::make_signed_t<T>;
  check2<S, S, u32>("shr.s" + width + " %d, %a, %b;", [](S x, u32 n) {
    return n >= 8 * sizeof(T) ? static_cast<S>(x < 0 ? -1 : 0) : static_cast<S>(s64{x} >> n);
  });
}
/// As the manual writes it: bit by bit.
template <class T>
T extracted(T a, u32 b, u32 c) {
  unsigned const msb = 8 * sizeof(T) - 1, pos = b & 0xff, len = c & 0xff;
  auto const bit = [&](unsigned n) { return static_cast<bool>(static_cast<u64>(a) >> n & 1); };
  bool const sign = std::is_signed_v<T> && len != 0 && bit(std::min(pos + len - 1, msb));
  u64 d = 0;
  for (unsigned i = 0; i <= msb; ++i) d |= u64{(i < len && pos + i <= msb) ? bit(pos + i) : sign} << i;
  return static_cast<T>(d);
}
template <class T>
T inserted(T a, T b, u32 c, u32 d) {
  unsigned const msb = 8 * sizeof(T) - 1, pos = c & 0xff, len = d & 0xff;
  u64 f = b;
  for (unsigned i = 0; i < len && pos + i <= msb; ++i)
    f = (f & ~(u64{1} << (pos + i))) | (u64{a} >> i & 1) << (pos + i);
  return static_cast<T>(f);
}
template <class T>
void check_fields() {
  std::string const t = type_name<T>(), width = std::to_string(8 * sizeof(T));
  std::vector<u32> const small{0, 1, 3, 8, 15, 31, 32, 33, 63, 64, 65, 200, 255, 256, 0xffffffff};
  check_values<T, T, u32, u32>("bfe." + t + " %d, %a, %b, %c;", extracted<T>, edges<T>(), small, small);
  if constexpr (!std::is_signed_v<T>)
    check_values<T, T, T, u32, u32>("bfi.b" + width + " %d, %a, %b, %c, %e;", inserted<T>,
                                    {T{0}, T{5}, T(-1), T(0xdeadbeefcafebabeULL)},
                                    {T{0}, T(-1), T(0x123456789abcdefULL)}, small, small);
  check1<u32, T>("bfind." + t + " %d, %a;", [](T x) {
    for (int n = 8 * sizeof(T) - 1; n >= 0; --n)
      if ((static_cast<u64>(x) >> n & 1) != (x < 0 ? 0 : 1) ? false : true) return static_cast<u32>(n);
    return 0xffffffffU;
  });
  check1<u32, T>("bfind.shiftamt." + t + " %d, %a;", [](T x) {
    for (int n = 8 * sizeof(T) - 1; n >= 0; --n)
      if (static_cast<bool>(static_cast<u64>(x) >> n & 1) != (x < 0))
        return static_cast<u32>(8 * sizeof(T) - 1) - static_cast<u32>(n);
    return 0xffffffffU;
  });
}

}  // namespace

TEST_CASE("arithmetic of every integer type") {
  check_arithmetic<u16>();
  check_arithmetic<s16>();
  check_arithmetic<u32>();
  check_arithmetic<s32>();
  check_arithmetic<u64>();
  check_arithmetic<s64>();
}
TEST_CASE("products twice as wide") {
  check_wide<u32, u16>();
  check_wide<s32, s16>();
  check_wide<u64, u32>();
  check_wide<s64, s32>();
}
TEST_CASE("signs") {
  check_signs<s16>();
  check_signs<s32>();
  check_signs<s64>();
}
TEST_CASE("saturation") {
  auto const clamp = [](s64 x) { return static_cast<s32>(std::min<s64>(std::max<s64>(x, INT32_MIN), INT32_MAX)); };
  check2<s32, s32, s32>("add.sat.s32 %d, %a, %b;", [&](s32 a, s32 b) { return clamp(s64{a} + b); });
  check2<s32, s32, s32>("sub.sat.s32 %d, %a, %b;", [&](s32 a, s32 b) { return clamp(s64{a} - b); });
  check3<s32, s32, s32, s32>("mad.hi.sat.s32 %d, %a, %b, %c;",
                             [&](s32 a, s32 b, s32 c) { return clamp((s64{a} * b >> 32) + c); });
  check2<s32, s32, s32>("max.relu.s32 %d, %a, %b;", [](s32 a, s32 b) { return std::max({a, b, 0}); });
  check2<s32, s32, s32>("min.relu.s32 %d, %a, %b;", [](s32 a, s32 b) { return std::max(std::min(a, b), 0); });
}
TEST_CASE("products of 24 bits") {
  auto const low = [](u32 x) { return u64{x & 0xffffff}; };
  auto const sign = [](s32 x) { return s64{static_cast<s32>(static_cast<u32>(x) << 8) >> 8}; };
  check2<u32, u32, u32>("mul24.lo.u32 %d, %a, %b;", [&](u32 a, u32 b) { return static_cast<u32>(low(a) * low(b)); });
  check2<u32, u32, u32>("mul24.hi.u32 %d, %a, %b;",
                        [&](u32 a, u32 b) { return static_cast<u32>(low(a) * low(b) >> 16); });
  check2<s32, s32, s32>("mul24.lo.s32 %d, %a, %b;", [&](s32 a, s32 b) { return static_cast<s32>(sign(a) * sign(b)); });
  check2<s32, s32, s32>("mul24.hi.s32 %d, %a, %b;",
                        [&](s32 a, s32 b) { return static_cast<s32>(sign(a) * sign(b) >> 16); });
  check3<u32, u32, u32, u32>("mad24.lo.u32 %d, %a, %b, %c;",
                             [&](u32 a, u32 b, u32 c) { return static_cast<u32>(low(a) * low(b) + c); });
}
TEST_CASE("dot products of bytes") {
  check3<u32, u32, u32, u32>("dp4a.u32.u32 %d, %a, %b, %c;", [](u32 a, u32 b, u32 c) {
    for (int n = 0; n < 32; n += 8) c += (a >> n & 255) * (b >> n & 255);
    return c;
  });
  check3<s32, u32, u32, s32>("dp4a.s32.s32 %d, %a, %b, %c;", [](u32 a, u32 b, s32 c) {
    s64 r = c;
    for (int n = 0; n < 32; n += 8) r += s64{static_cast<std::int8_t>(a >> n)} * static_cast<std::int8_t>(b >> n);
    return static_cast<s32>(r);
  });
  check3<s32, u32, u32, s32>("dp2a.hi.s32.u32 %d, %a, %b, %c;", [](u32 a, u32 b, s32 c) {
    return static_cast<s32>(c + s64{static_cast<s16>(a)} * (b >> 16 & 255) +
                            s64{static_cast<s16>(a >> 16)} * (b >> 24));
  });
}
TEST_CASE("carry: 128-bit sums and products from 64-bit halves") {
  check_values<u64, u64, u64, u64>("add.cc.u64 %rd0, %a, %b; addc.u64 %d, %c, 0;",
                                   [](u64 a, u64 b, u64 c) { return static_cast<u64>(((u128{a} + b) >> 64) + c); },
                                   edges<u64>(), edges<u64>(), {u64{0}, u64{1}, ~u64{0}});
  check_values<u64, u64, u64, u64>("sub.cc.u64 %rd0, %a, %b; subc.u64 %d, %c, 5;",
                                   [](u64 a, u64 b, u64 c) { return c - 5 - (a < b ? 1 : 0); }, edges<u64>(),
                                   edges<u64>(), {u64{0}, u64{5}, ~u64{0}});
  check3<u32, u32, u32, u32>("add.cc.u32 %r0, %a, %b; addc.cc.u32 %r0, %c, %a; addc.u32 %d, 0, 0;",
                             [](u32 a, u32 b, u32 c) {
                               u64 const first = u64{a} + b;
                               return static_cast<u32>((u64{c} + a + (first >> 32)) >> 32);
                             });
  check3<u32, u32, u32, u32>("sub.cc.u32 %r0, %a, %b; subc.cc.u32 %r0, %c, %a; subc.u32 %d, 0, 0;",
                             [](u32 a, u32 b, u32 c) { return u64{c} < u64{a} + (a < b ? 1 : 0) ? 0xffffffffU : 0U; });
  check3<u32, u32, u32, u32>("mad.lo.cc.u32 %r0, %a, %b, %c; madc.hi.u32 %d, %a, %b, 7;", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>((u64{a} * b + c + (u64{7} << 32)) >> 32);
  });
  check3<u32, u32, u32, u32>("mad.hi.cc.u32 %r0, %a, %b, %c; addc.u32 %d, 0, 0;",
                             [](u32 a, u32 b, u32 c) { return static_cast<u32>(((u64{a} * b >> 32) + c) >> 32); });
  check3<u64, u64, u64, u64>("mad.lo.cc.u64 %rd0, %a, %b, %c; madc.hi.u64 %d, %a, %b, 0;",
                             [](u64 a, u64 b, u64 c) { return static_cast<u64>((u128{a} * b + c) >> 64); });
  check3<u32, u32, u32, u32>("mad.lo.cc.u32 %r0, %a, %b, %c; madc.lo.cc.u32 %r1, %a, %a, 1; addc.u32 %d, 0, 0;",
                             [](u32 a, u32 b, u32 c) {
                               u32 const carry = (u64{static_cast<u32>(a * b)} + c) >> 32 != 0 ? 1 : 0;
                               return static_cast<u32>((u64{static_cast<u32>(a * a)} + 1 + carry) >> 32);
                             });
}
TEST_CASE("logic and shifts, with distances beyond the width") {
  check_bits<u16>();
  check_bits<u32>();
  check_bits<u64>();
  check_values<u32, u32, u32, u32>(
      "shf.l.wrap.b32 %d, %a, %b, %c;",
      [](u32 a, u32 b, u32 c) { return static_cast<u32>(((u64{b} << 32 | a) << (c & 31)) >> 32); }, edges<u32>(),
      edges<u32>(), edges<u32>());
  check3<u32, u32, u32, u32>("shf.r.wrap.b32 %d, %a, %b, %c;",
                             [](u32 a, u32 b, u32 c) { return static_cast<u32>((u64{b} << 32 | a) >> (c & 31)); });
  check3<u32, u32, u32, u32>("shf.l.clamp.b32 %d, %a, %b, %c;", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>(static_cast<u128>(u64{b} << 32 | a) << std::min(c, 32U) >> 32);
  });
  check3<u32, u32, u32, u32>("shf.r.clamp.b32 %d, %a, %b, %c;", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>((u64{b} << 32 | a) >> std::min(c, 32U));
  });
  check3<u32, u32, u32, u32>("lop3.b32 %d, %a, %b, %c, 0xE8;",
                             [](u32 a, u32 b, u32 c) { return (a & b) | (a & c) | (b & c); });
  check3<u32, u32, u32, u32>("lop3.b32 %d, %a, %b, %c, 0x96;", [](u32 a, u32 b, u32 c) { return a ^ b ^ c; });
  check3<u32, u32, u32, u32>("lop3.b32 %d, %a, %b, %c, 0x40;", [](u32 a, u32 b, u32 c) { return a & b & ~c; });
}
TEST_CASE("counting bits") {
  check1<u32, u32>("popc.b32 %d, %a;", [](u32 x) { return static_cast<u32>(__builtin_popcount(x)); });
  check1<u32, u64>("popc.b64 %d, %a;", [](u64 x) { return static_cast<u32>(__builtin_popcountll(x)); });
  check1<u32, u32>("clz.b32 %d, %a;", [](u32 x) { return x == 0 ? 32U : static_cast<u32>(__builtin_clz(x)); });
  check1<u32, u64>("clz.b64 %d, %a;", [](u64 x) { return x == 0 ? 64U : static_cast<u32>(__builtin_clzll(x)); });
  auto const reverse = [](auto x) {
    decltype(x) r = 0;
    for (std::size_t n = 0; n < 8 * sizeof x; ++n, x >>= 1) r = static_cast<decltype(x)>(r << 1 | (x & 1));
    return r;
  };
  check1<u32, u32>("brev.b32 %d, %a;", reverse);
  check1<u64, u64>("brev.b64 %d, %a;", reverse);
}
TEST_CASE("fields") {
  check_fields<u32>();
  check_fields<s32>();
  check_fields<u64>();
  check_fields<s64>();
  std::vector<u32> const small{0, 1, 5, 31, 32, 33, 64, 0xffffffff};
  check_values<u32, u32, u32>(
      "bmsk.clamp.b32 %d, %a, %b;",
      [](u32 a, u32 b) {
        u64 mask = 0;
        for (u64 n = a; n < std::min<u64>(u64{a} + b, 32); ++n) mask |= u64{1} << n;
        return static_cast<u32>(mask);
      },
      small, small);
}
TEST_CASE("bytes in any order") {
  std::vector<u32> const words{0x33221100, 0x87654321}, high{0x77665544, 0xfedcba98};
  auto const byte = [](u32 a, u32 b, unsigned n) { return static_cast<u32>((u64{b} << 32 | a) >> (8 * n)) & 255; };
  check_values<u32, u32, u32, u32>("prmt.b32 %d, %a, %b, %c;",
                                   [&](u32 a, u32 b, u32 c) {
                                     u32 r = 0;
                                     for (unsigned n = 0; n < 4; ++n) {
                                       u32 const selector = c >> (4 * n) & 15;
                                       u32 const x = byte(a, b, selector & 7);
                                       r |= (selector < 8 ? x : x > 127 ? 255U : 0U) << (8 * n);
                                     }
                                     return r;
                                   },
                                   words, high, {0x3210U, 0x7654U, 0x0246U, 0x8f9eU, 0xbadcU, 0xffff1357U});
  struct row {
    char const* mode;
    unsigned picks[4][4];  // by selector, from the lowest byte
  };
  row const rows[] = {{"f4e", {{0, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}}},
                      {"b4e", {{0, 7, 6, 5}, {1, 0, 7, 6}, {2, 1, 0, 7}, {3, 2, 1, 0}}},
                      {"rc8", {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}},
                      {"ecl", {{0, 1, 2, 3}, {1, 1, 2, 3}, {2, 2, 2, 3}, {3, 3, 3, 3}}},
                      {"ecr", {{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 1, 2, 2}, {0, 1, 2, 3}}},
                      {"rc16", {{0, 1, 0, 1}, {2, 3, 2, 3}, {0, 1, 0, 1}, {2, 3, 2, 3}}}};
  for (row const& r : rows)
    check_values<u32, u32, u32, u32>("prmt.b32." + std::string(r.mode) + " %d, %a, %b, %c;",
                                     [&](u32 a, u32 b, u32 c) {
                                       u32 d = 0;
                                       for (unsigned n = 0; n < 4; ++n) d |= byte(a, b, r.picks[c & 3][n]) << (8 * n);
                                       return d;
                                     },
                                     words, high, {0U, 1U, 2U, 3U, 6U});
}

}  // namespace softgpu_test
