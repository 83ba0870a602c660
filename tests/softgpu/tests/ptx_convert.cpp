// Conversions, comparisons, selection, and moves.
#include "ptx_bench.hpp"

namespace softgpu_test {

namespace {

__extension__ using s128 = __int128;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

template <class T>
std::string type_name() {
  if constexpr (std::is_floating_point_v<T>) return "f" + std::to_string(8 * sizeof(T));
  else return (std::is_signed_v<T> ? "s" : "u") + std::to_string(8 * sizeof(T));
}
template <class F>
void for_integers(F f) {
  f(std::uint8_t{}), f(std::int8_t{}), f(std::uint16_t{}), f(std::int16_t{}), f(u32{}), f(s32{}), f(u64{}), f(s64{});
}

/// What is in a register beyond a type of 8 bits is its sign: the result is looked at in a register of 32 or 64 bits.
template <class D>
using seen = std::conditional_t<sizeof(D) == 8, D, std::conditional_t<std::is_signed_v<D>, s32, u32>>;

template <class D, class S>
void check_integers() {
  std::string const types = type_name<D>() + "." + type_name<S>();
  auto const clamp = [](S x) {
    s128 const v = x, low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
    return static_cast<seen<D>>(static_cast<D>(v < low ? low : v > high ? high : v));
  };
  if constexpr (sizeof(S) >= 4) {
    check1<seen<D>, S>("cvt." + types + " %d, %a;", [](S x) { return static_cast<seen<D>>(static_cast<D>(x)); });
    check1<seen<D>, S>("cvt.sat." + types + " %d, %a;", clamp);
  } else {
    std::vector<u32> words;  // with garbage above
    for (S const x : edges<S>())
      words.push_back(static_cast<u32>(static_cast<std::make_unsigned_t<S>>(x)) | (sizeof(S) == 1 ? 0xab00U : 0U));
    if constexpr (sizeof(S) == 2) {
      check_values<seen<D>, S>(
          "cvt." + types + " %d, %a;", [](S x) { return static_cast<seen<D>>(static_cast<D>(x)); }, edges<S>());
    } else {
      check_values<seen<D>, u32>(
          "cvt." + types + " %d, %a;", [](u32 x) { return static_cast<seen<D>>(static_cast<D>(static_cast<S>(x))); },
          words);
      check_values<seen<D>, u32>(
          "cvt.sat." + types + " %d, %a;", [&](u32 x) { return clamp(static_cast<S>(x)); }, words);
    }
  }
}
struct mode {
  char const* name;
  double (*f)(double);
};
constexpr mode modes[] = {{"rni", [](double x) { return std::nearbyint(x); }},
                          {"rzi", [](double x) { return std::trunc(x); }},
                          {"rmi", [](double x) { return std::floor(x); }},
                          {"rpi", [](double x) { return std::ceil(x); }}};
template <class D, class S>
void check_real_to_integer() {
  for (mode const& m : modes)
    check1<seen<D>, S>("cvt." + std::string(m.name) + "." + type_name<D>() + "." + type_name<S>() + " %d, %a;",
                       [&](S x) {
                         double const v = m.f(x);
                         if (std::isnan(v))
                           return static_cast<seen<D>>(sizeof(D) == 8 ? static_cast<D>(u64{1} << 63) : D{0});
                         if (v <= static_cast<double>(std::numeric_limits<D>::min()))
                           return static_cast<seen<D>>(std::numeric_limits<D>::min());
                         if (v >= static_cast<double>(std::numeric_limits<D>::max()))
                           return static_cast<seen<D>>(std::numeric_limits<D>::max());
                         return static_cast<seen<D>>(static_cast<D>(v));
                       });
}
template <class D, class S>
void check_integer_to_real() {
  std::string const types = type_name<D>() + "." + type_name<S>();
  auto const exact_of = [](D r) { return static_cast<s128>(r); };
  D const inf = std::numeric_limits<D>::infinity();
  check1<D, S>("cvt.rn." + types + " %d, %a;", [](S x) { return static_cast<D>(x); });
  check1<D, S>("cvt.rz." + types + " %d, %a;", [&](S x) {
    D r = static_cast<D>(x);
    while ((x < 0 ? exact_of(r) < x : exact_of(r) > x)) r = std::nextafter(r, D{0});
    return r;
  });
  check1<D, S>("cvt.rm." + types + " %d, %a;", [&](S x) {
    D r = static_cast<D>(x);
    while (exact_of(r) > x) r = std::nextafter(r, -inf);
    return r;
  });
  check1<D, S>("cvt.rp." + types + " %d, %a;", [&](S x) {
    D r = static_cast<D>(x);
    while (exact_of(r) < x) r = std::nextafter(r, inf);
    return r;
  });
}

template <class T>
void check_comparisons() {
  std::string const t = type_name<T>();
  bool const real = std::is_floating_point_v<T>;
  auto const both = [](T a, T b) { return a == a && b == b; };
  auto const check = [&](std::string const& name, auto f) {
    check2<u32, T, T>("setp." + name + "." + t + " %p0, %a, %b; selp.b32 %d, 1, 0, %p0;",
                      [&](T a, T b) { return f(a, b) ? 1U : 0U; });
    check2<u32, T, T>("set." + name + ".u32." + t + " %d, %a, %b;",
                      [&](T a, T b) { return f(a, b) ? 0xffffffffU : 0U; });
    check2<float, T, T>("set." + name + ".f32." + t + " %d, %a, %b;", [&](T a, T b) { return f(a, b) ? 1.0F : 0.0F; });
  };
  check("eq", [&](T a, T b) { return both(a, b) && a == b; });
  check("ne", [&](T a, T b) { return both(a, b) && a != b; });
  check("lt", [&](T a, T b) { return a < b; });
  check("le", [&](T a, T b) { return a <= b; });
  check("gt", [&](T a, T b) { return a > b; });
  check("ge", [&](T a, T b) { return a >= b; });
  if (real) {
    check("equ", [&](T a, T b) { return !both(a, b) || a == b; });
    check("neu", [&](T a, T b) { return !both(a, b) || a != b; });
    check("ltu", [&](T a, T b) { return !both(a, b) || a < b; });
    check("leu", [&](T a, T b) { return !both(a, b) || a <= b; });
    check("gtu", [&](T a, T b) { return !both(a, b) || a > b; });
    check("geu", [&](T a, T b) { return !both(a, b) || a >= b; });
    check("num", [&](T a, T b) { return both(a, b); });
    check("nan", [&](T a, T b) { return !both(a, b); });
  } else if (!std::is_signed_v<T>) {
    check("lo", [&](T a, T b) { return a < b; });
    check("ls", [&](T a, T b) { return a <= b; });
    check("hi", [&](T a, T b) { return a > b; });
    check("hs", [&](T a, T b) { return a >= b; });
  }
}

}  // namespace

TEST_CASE("integers to integers") {
  for_integers([](auto d) { for_integers([d](auto s) { check_integers<decltype(d), decltype(s)>(); }); });
}
TEST_CASE("numbers to integers, rounded in four ways and clamped") {
  for_integers([](auto d) {
    check_real_to_integer<decltype(d), float>();
    check_real_to_integer<decltype(d), double>();
  });
}
TEST_CASE("integers to numbers, rounded in four ways") {
  check_integer_to_real<float, u32>();
  check_integer_to_real<float, s32>();
  check_integer_to_real<float, u64>();
  check_integer_to_real<float, s64>();
  check_integer_to_real<double, u32>();
  check_integer_to_real<double, s32>();
  check_integer_to_real<double, u64>();
  check_integer_to_real<double, s64>();
}
TEST_CASE("numbers to numbers") {
  auto const flush = [](float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; };
  auto const saturate = [](float x) { return x > 0 ? std::min(x, 1.0F) : 0.0F; };
  check1<double, float>("cvt.f64.f32 %d, %a;", [](float x) { return static_cast<double>(x); });
  check1<float, double>("cvt.rn.f32.f64 %d, %a;", [](double x) { return static_cast<float>(x); });
  check1<float, double>("cvt.rn.ftz.f32.f64 %d, %a;", [&](double x) { return flush(static_cast<float>(x)); });
  check1<float, double>("cvt.rz.f32.f64 %d, %a;", [](double x) {
    float r = static_cast<float>(x);
    while (std::fabs(static_cast<double>(r)) > std::fabs(x)) r = std::nextafter(r, 0.0F);
    return r;
  });
  check1<float, double>("cvt.rm.f32.f64 %d, %a;", [](double x) {
    float r = static_cast<float>(x);
    while (static_cast<double>(r) > x) r = std::nextafter(r, -INFINITY);
    return r;
  });
  check1<float, double>("cvt.rp.f32.f64 %d, %a;", [](double x) {
    float r = static_cast<float>(x);
    while (static_cast<double>(r) < x) r = std::nextafter(r, INFINITY);
    return r;
  });
  check1<float, float>("cvt.sat.f32.f32 %d, %a;", saturate);
  check1<float, float>("cvt.ftz.sat.f32.f32 %d, %a;", [&](float x) { return saturate(flush(x)); });
  for (mode const& m : modes) {
    check1<float, float>("cvt." + std::string(m.name) + ".f32.f32 %d, %a;",
                         [&](float x) { return static_cast<float>(m.f(x)); });
    check1<float, float>("cvt." + std::string(m.name) + ".ftz.f32.f32 %d, %a;",
                         [&](float x) { return static_cast<float>(m.f(flush(x))); });
    check1<double, double>("cvt." + std::string(m.name) + ".f64.f64 %d, %a;", [&](double x) { return m.f(x); });
  }
  check1<s32, float>("cvt.rpi.ftz.s32.f32 %d, %a;", [&](float x) {
    float const v = std::ceil(flush(x));
    return std::isnan(v) ? 0 : v >= 0x1p31F ? INT32_MAX : v <= -0x1p31F ? INT32_MIN : static_cast<s32>(v);
  });
}
TEST_CASE("comparisons of every type") {
  check_comparisons<std::uint16_t>();
  check_comparisons<std::int16_t>();
  check_comparisons<u32>();
  check_comparisons<s32>();
  check_comparisons<u64>();
  check_comparisons<s64>();
  check_comparisons<float>();
  check_comparisons<double>();
}
TEST_CASE("comparisons with a predicate, and with two results") {
  std::vector<column> const rows{{32, {1, 1, 2, 2, 1, 2}}, {32, {1, 2, 1, 2, 1, 1}}, {1, {0, 0, 0, 1, 1, 1}}};
  struct row {
    char const* op;
    bool (*f)(bool, bool);
  };
  row const ops[] = {{"and", [](bool x, bool y) { return x && y; }},
                     {"or", [](bool x, bool y) { return x || y; }},
                     {"xor", [](bool x, bool y) { return x != y; }}};
  for (row const& r : ops)
    for (bool const negated : {false, true}) {
      auto const got = evaluate("setp.eq." + std::string(r.op) + ".u32 %p0|%p1, %a, %b, " + (negated ? "!" : "") +
                                    "%c; selp.b32 %r0, 1, 0, %p0; selp.b32 %r1, 2, 0, %p1; or.b32 %d, %r0, %r1;",
                                32, rows);
      for (std::size_t n = 0; n < got.size(); ++n) {
        bool const equal = rows[0].values[n] == rows[1].values[n], c = (rows[2].values[n] != 0) != negated;
        CHECK(got[n] == (r.f(equal, c) ? 1U : 0U) + (r.f(!equal, c) ? 2U : 0U));
      }
    }
  check2<u32, float, float>("setp.lt.ftz.f32 %p0, %a, %b; selp.b32 %d, 1, 0, %p0;", [](float a, float b) {
    auto const flush = [](float x) { return std::fpclassify(x) == FP_SUBNORMAL ? 0.0F : x; };
    return flush(a) < flush(b) ? 1U : 0U;
  });
}
TEST_CASE("selection and logic of predicates") {
  std::vector<column> const rows{{1, {0, 0, 1, 1}}, {1, {0, 1, 0, 1}}};
  auto const check = [&](std::string const& instruction, std::vector<std::uint64_t> const& wanted) {
    CHECK(evaluate(instruction + " selp.b32 %d, 1, 0, %p0;", 32, rows) == wanted);
  };
  check("and.pred %p0, %a, %b;", {0, 0, 0, 1});
  check("or.pred %p0, %a, %b;", {0, 1, 1, 1});
  check("xor.pred %p0, %a, %b;", {0, 1, 1, 0});
  check("not.pred %p0, %a;", {1, 1, 0, 0});
  check("mov.pred %p0, %b;", {0, 1, 0, 1});
  check("mov.pred %p0, 1;", {1, 1, 1, 1});
  check2<double, double, double>("setp.lt.f64 %p0, %a, %b; selp.f64 %d, %a, %b, %p0;",
                                 [](double a, double b) { return a < b ? a : b; });
  check_values<u32, u32, u32, s32>(
      "slct.u32.s32 %d, %a, %b, %c;", [](u32 a, u32 b, s32 c) { return c >= 0 ? a : b; }, {1U}, {2U}, edges<s32>());
  check_values<u32, u32, u32, float>(
      "slct.b32.f32 %d, %a, %b, %c;", [](u32 a, u32 b, float c) { return c >= 0 ? a : b; }, {1U}, {2U}, edges<float>());
}
TEST_CASE("registers made of parts") {
  check2<u64, u32, u32>("mov.b64 %d, {%a, %b};", [](u32 a, u32 b) { return a | u64{b} << 32; });
  check1<u32, u64>("mov.b64 {%r0, %r1}, %a; xor.b32 %d, %r0, %r1;",
                   [](u64 a) { return static_cast<u32>(a) ^ static_cast<u32>(a >> 32); });
  check1<u32, u64>("mov.b64 {_, %d}, %a;", [](u64 a) { return static_cast<u32>(a >> 32); });
  check2<u32, std::uint16_t, std::uint16_t>("mov.b32 %d, {%a, %b};",
                                            [](std::uint16_t a, std::uint16_t b) { return a | u32{b} << 16; });
  check1<std::uint16_t, u32>("mov.b32 {%h, %d}, %a;", [](u32 a) { return static_cast<std::uint16_t>(a >> 16); });
  check1<u32, float>("mov.b32 %d, %a;", [](float a) { return std::bit_cast<u32>(a); });
}
TEST_CASE("special registers") {
  auto const ids = evaluate("mov.u32 %d, %tid.x;", 32, {{32, std::vector<std::uint64_t>(200)}});
  auto const lanes = evaluate("mov.u32 %d, %laneid;", 32, {{32, std::vector<std::uint64_t>(200)}});
  auto const blocks = evaluate("mov.u32 %d, %ctaid.x;", 32, {{32, std::vector<std::uint64_t>(200)}});
  auto const less = evaluate("mov.u32 %d, %lanemask_lt;", 32, {{32, std::vector<std::uint64_t>(200)}});
  auto const greater = evaluate("mov.u32 %d, %lanemask_ge;", 32, {{32, std::vector<std::uint64_t>(200)}});
  for (std::size_t n = 0; n < 200; ++n) {
    CHECK(ids[n] == n % 128);
    CHECK(lanes[n] == n % 32);
    CHECK(blocks[n] == n / 128);
    CHECK(less[n] == (std::uint64_t{1} << n % 32) - 1);
    CHECK(greater[n] == (~less[n] & 0xffffffff));
  }
  CHECK(evaluate("mov.u32 %d, %nctaid.x;", 32, {{32, std::vector<std::uint64_t>(200)}})[0] == 2);
  CHECK(evaluate("mov.u32 %d, %ntid.x;", 32, {{32, {0}}})[0] == 128);
  CHECK(evaluate("mov.u32 %d, WARP_SZ;", 32, {{32, {0}}})[0] == 32);
}

}  // namespace softgpu_test
