// Half precision and bfloat16: one rounding, of the exact result.
#include "ptx_bench.hpp"

namespace softgpu_test {

namespace {

__extension__ using exact = __float128;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

template <class H>
struct format;
template <>
struct format<half_bits> {
  static constexpr int exponent_bits = 5, fraction_bits = 10;
  static constexpr char const* name = "f16";
};
template <>
struct format<bf16_bits> {
  static constexpr int exponent_bits = 8, fraction_bits = 7;
  static constexpr char const* name = "bf16";
};

/// From the definition of the format.
template <class H>
double number(H h) {
  constexpr int e_bits = format<H>::exponent_bits, f_bits = format<H>::fraction_bits, bias = (1 << (e_bits - 1)) - 1;
  int const exponent = h.bits >> f_bits & ((1 << e_bits) - 1), fraction = h.bits & ((1 << f_bits) - 1);
  double const sign = (h.bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << e_bits) - 1) return fraction != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - f_bits);
  return sign * std::ldexp((1 << f_bits) + fraction, exponent - bias - f_bits);
}
/// The nearest of all 65536 numbers, ties to even; found by bisection over the ordered positive ones.
template <class H>
H nearest(exact x, bool negative_zero = false) {
  if (x != x) return {0x7fff};
  exact const magnitude = x < 0 ? -x : x;
  unsigned const sign = x < 0 || (x == 0 && negative_zero) ? 0x8000 : 0;
  unsigned const infinity = ((1U << format<H>::exponent_bits) - 1) << format<H>::fraction_bits;
  unsigned low = 0, high = infinity;  // number(low) <= magnitude < number(high), the latter as if the format went on
  auto const ordinary = [&](unsigned bits) {
    if (bits < infinity) return exact{number(H{static_cast<u16>(bits)})};
    return exact{2} * number(H{static_cast<u16>(infinity - (1U << format<H>::fraction_bits))});
  };
  if (magnitude >= ordinary(infinity)) return {static_cast<u16>(sign | infinity)};
  while (high - low > 1) {
    unsigned const middle = (low + high) / 2;
    (ordinary(middle) <= magnitude ? low : high) = middle;
  }
  exact const below = magnitude - ordinary(low), above = ordinary(high) - magnitude;
  unsigned const pick = below < above ? low : above < below ? high : (low & 1) == 0 ? low : high;
  return {static_cast<u16>(sign | pick)};
}
template <class H>
H nearest_double(double x) {
  if (std::isinf(x))
    return {
        static_cast<u16>((x < 0 ? 0x8000 : 0) | ((1U << format<H>::exponent_bits) - 1) << format<H>::fraction_bits)};
  return nearest<H>(x, std::signbit(x));
}
/// x + y where 113 bits hold it, and what IEEE says of infinities and zeros otherwise.
template <class H>
H sum(double x, double y) {
  double const d = x + y;
  if (!std::isfinite(d) || d == 0) return nearest_double<H>(d);
  // 2^127 + 2^-133 does not fit into 113 bits either: the smaller one only breaks ties.
  double const big = std::fabs(x) > std::fabs(y) ? x : y, small = big == x ? y : x;
  if (small != 0 && std::fabs(small) < std::fabs(big) * 0x1p-60)
    return nearest<H>(exact{big} + std::copysign(std::fabs(big) * 0x1p-60, small));
  return nearest<H>(exact{x} + y);
}

template <class H>
void check_arithmetic() {
  std::string const t = format<H>::name;
  check2<H, H, H>("add." + t + " %d, %a, %b;", [](H a, H b) { return sum<H>(number(a), number(b)); });
  check2<H, H, H>("sub.rn." + t + " %d, %a, %b;", [](H a, H b) { return sum<H>(number(a), -number(b)); });
  check2<H, H, H>("mul." + t + " %d, %a, %b;", [](H a, H b) { return nearest_double<H>(number(a) * number(b)); });
  check3<H, H, H, H>("fma.rn." + t + " %d, %a, %b, %c;",
                     [](H a, H b, H c) { return sum<H>(number(a) * number(b), number(c)); });
  check3<H, H, H, H>("fma.rn.relu." + t + " %d, %a, %b, %c;", [](H a, H b, H c) {
    H const r = sum<H>(number(a) * number(b), number(c));
    return r.bits >= 0x8000 && !std::isnan(number(r)) ? H{0} : r;
  });
  auto const order = [](H a, H b) { return number(a) < number(b) || (number(a) == number(b) && a.bits > b.bits); };
  check2<H, H, H>("min." + t + " %d, %a, %b;", [&](H a, H b) {
    if (std::isnan(number(a))) return std::isnan(number(b)) ? H{0x7fff} : b;
    return std::isnan(number(b)) ? a : order(b, a) ? b : a;
  });
  check2<H, H, H>("max.NaN." + t + " %d, %a, %b;", [&](H a, H b) {
    if (std::isnan(number(a)) || std::isnan(number(b))) return H{0x7fff};
    return order(a, b) ? b : a;
  });
  check1<H, H>("neg." + t + " %d, %a;", [](H a) { return H{static_cast<u16>(a.bits ^ 0x8000)}; });
  check1<H, H>("abs." + t + " %d, %a;", [](H a) { return H{static_cast<u16>(a.bits & 0x7fff)}; });
}
template <class H>
void check_pairs() {
  std::string const t = std::string(format<H>::name) + "x2";
  std::vector<u32> pairs;
  auto const all = edges<H>();
  for (std::size_t n = 0; n < all.size(); ++n)
    pairs.push_back(all[n].bits | u32{all[(n * 7 + 3) % all.size()].bits} << 16);
  auto const each = [](auto f, u32 a, u32 b) {
    return u32{f(H{static_cast<u16>(a)}, H{static_cast<u16>(b)}).bits} |
           u32{f(H{static_cast<u16>(a >> 16)}, H{static_cast<u16>(b >> 16)}).bits} << 16;
  };
  auto const add = [](H a, H b) { return sum<H>(number(a), number(b)); };
  auto const times = [](H a, H b) { return nearest_double<H>(number(a) * number(b)); };
  check_values<u32, u32, u32>(
      "add." + t + " %d, %a, %b;", [&](u32 a, u32 b) { return each(add, a, b); }, pairs, pairs);
  check_values<u32, u32, u32>(
      "mul." + t + " %d, %a, %b;", [&](u32 a, u32 b) { return each(times, a, b); }, pairs, pairs);
  check_values<u32, u32, u32>(
      "fma.rn." + t + " %d, %a, %b, %a;",
      [&](u32 a, u32 b) { return each([](H x, H y) { return sum<H>(number(x) * number(y), number(x)); }, a, b); },
      pairs, pairs);
  check_values<u32, u32>(
      "neg." + t + " %d, %a;", [](u32 a) { return a ^ 0x80008000; }, pairs);
  check_values<u32, u32>(
      "abs." + t + " %d, %a;", [](u32 a) { return a & 0x7fff7fff; }, pairs);
  check_values<u32, u32, u32>(
      "set.gt.u32." + t + " %d, %a, %b;",
      [&](u32 a, u32 b) {
        return each([](H x, H y) { return H{static_cast<u16>(number(x) > number(y) ? 0xffff : 0)}; }, a, b);
      },
      pairs, pairs);
  u16 const one = nearest_double<H>(1).bits;
  check_values<u32, u32, u32>(
      "set.leu." + t + "." + t + " %d, %a, %b;",
      [&](u32 a, u32 b) { return each([&](H x, H y) { return H{number(x) > number(y) ? u16{0} : one}; }, a, b); },
      pairs, pairs);
}
template <class H>
void check_conversions() {
  std::string const t = format<H>::name;
  check1<float, H>("cvt.f32." + t + " %d, %a;", [](H a) { return static_cast<float>(number(a)); });
  check1<double, H>("cvt.f64." + t + " %d, %a;", [](H a) { return number(a); });
  check1<H, float>("cvt.rn." + t + ".f32 %d, %a;", [](float a) { return nearest_double<H>(a); });
  check1<H, double>("cvt.rn." + t + ".f64 %d, %a;", [](double a) { return nearest_double<H>(a); });
  check1<H, float>("cvt.rz." + t + ".f32 %d, %a;", [](float a) {
    H r = nearest_double<H>(a);
    if (std::isfinite(a) && std::fabs(number(r)) > std::fabs(a)) --r.bits;
    return r;
  });
  check1<H, float>("cvt.rn.relu." + t + ".f32 %d, %a;", [](float a) { return a < 0 ? H{0} : nearest_double<H>(a); });
  check1<H, std::int32_t>("cvt.rn." + t + ".s32 %d, %a;", [](std::int32_t a) { return nearest_double<H>(a); });
  check1<std::int32_t, H>("cvt.rni.s32." + t + " %d, %a;", [](H a) {
    double const x = std::nearbyint(number(a));
    return std::isnan(x) ? 0 : x >= 0x1p31 ? INT32_MAX : x <= -0x1p31 ? INT32_MIN : static_cast<std::int32_t>(x);
  });
  check2<u32, float, float>("cvt.rn." + t + "x2.f32 %d, %a, %b;", [](float a, float b) {
    return u32{nearest_double<H>(b).bits} | u32{nearest_double<H>(a).bits} << 16;
  });
  check2<u32, H, H>("setp.lt." + t + " %p0, %a, %b; selp.b32 %d, 1, 0, %p0;",
                    [](H a, H b) { return number(a) < number(b) ? 1U : 0U; });
  check2<u32, H, H>("setp.neu." + t + " %p0, %a, %b; selp.b32 %d, 1, 0, %p0;",
                    [](H a, H b) { return number(a) != number(b) ? 1U : 0U; });
}

}  // namespace

TEST_CASE("arithmetic rounds the exact result once") {
  check_arithmetic<half_bits>();
  check_arithmetic<bf16_bits>();
}
TEST_CASE("pairs are two of the same") {
  check_pairs<half_bits>();
  check_pairs<bf16_bits>();
}
TEST_CASE("halves flushed to zero, and saturated") {
  auto const flush = [](half_bits h) {
    return std::fabs(number(h)) < 0x1p-14 ? half_bits{static_cast<u16>(h.bits & 0x8000)} : h;
  };
  auto const saturate = [](half_bits h) {
    double const x = number(h);
    return std::isnan(x) || x <= 0 ? half_bits{0} : x > 1 ? half_bits{0x3c00} : h;
  };
  using H = half_bits;
  check2<H, H, H>("add.ftz.f16 %d, %a, %b;",
                  [&](H a, H b) { return flush(sum<H>(number(flush(a)), number(flush(b)))); });
  check2<H, H, H>("mul.ftz.f16 %d, %a, %b;",
                  [&](H a, H b) { return flush(nearest_double<H>(number(flush(a)) * number(flush(b)))); });
  check2<H, H, H>("add.sat.f16 %d, %a, %b;", [&](H a, H b) { return saturate(sum<H>(number(a), number(b))); });
  check3<H, H, H, H>("fma.rn.sat.f16 %d, %a, %b, %c;",
                     [&](H a, H b, H c) { return saturate(sum<H>(number(a) * number(b), number(c))); });
  check3<H, H, H, H>("fma.rn.ftz.f16 %d, %a, %b, %c;", [&](H a, H b, H c) {
    return flush(sum<H>(number(flush(a)) * number(flush(b)), number(flush(c))));
  });
}
TEST_CASE("conversions of 16 bits") {
  check_conversions<half_bits>();
  check_conversions<bf16_bits>();
}
TEST_CASE("every bfloat16 and half survives the way through float") {
  for (std::string const t : {"f16", "bf16"}) {
    std::vector<column> all{{16, {}}};
    for (u32 n = 0; n < 65536; ++n) all[0].values.push_back(n);
    auto const got = evaluate("cvt.f32." + t + " %r0, %a; cvt.rn." + t + ".f32 %d, %r0;", 16, all);
    int wrong = 0;
    for (u32 n = 0; n < 65536; ++n) {
      double const x = t == "f16" ? number(half_bits{static_cast<u16>(n)}) : number(bf16_bits{static_cast<u16>(n)});
      wrong += (got[n] & 0xffff) != (std::isnan(x) ? 0x7fff : n);
    }
    CHECK(wrong == 0);
  }
}
TEST_CASE("approximate functions of halves") {
  auto const near = [](double got, double wanted) {
    return std::fabs(got - wanted) <= 0.01 * std::max(1.0, std::fabs(wanted));
  };
  std::vector<column> x{{16, {nearest_double<half_bits>(0.5).bits, nearest_double<half_bits>(-1.25).bits}}};
  auto const got = evaluate("tanh.approx.f16 %d, %a;", 16, x);
  CHECK(near(number(half_bits{static_cast<u16>(got[0])}), std::tanh(0.5)));
  CHECK(near(number(half_bits{static_cast<u16>(got[1])}), std::tanh(-1.25)));
  x[0].values = {nearest_double<bf16_bits>(3.5).bits, nearest_double<bf16_bits>(-1.25).bits};
  auto const power = evaluate("ex2.approx.ftz.bf16 %d, %a;", 16, x);
  CHECK(near(number(bf16_bits{static_cast<u16>(power[0])}), std::exp2(3.5)));
  CHECK(near(number(bf16_bits{static_cast<u16>(power[1])}), std::exp2(-1.25)));
}

}  // namespace softgpu_test
