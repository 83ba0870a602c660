// Floating-point arithmetic: IEEE results in four directions, flushed and saturated ones, signs of zero, NaN.
#include <array>

#include "ptx_bench.hpp"

namespace softgpu_test {

namespace {

__extension__ using exact = __float128;
using u32 = std::uint32_t;

constexpr float nan_f = std::numeric_limits<float>::quiet_NaN(), inf_f = std::numeric_limits<float>::infinity();

/// Numbers whose sums and products 113 bits hold.
template <class T>
std::vector<T> moderate() {
  std::vector<T> all;
  T const e = std::numeric_limits<T>::epsilon();
  for (T x : {T{1}, 1 + e, 1 + 3 * e, T{1.5}, T(1) / 3, T{3}, T(0.1), T{7}, T(1e-3), T{12345.678}, T{0.999}}) {
    all.push_back(x);
    all.push_back(-x);
  }
  return all;
}
enum class direction { nearest, zero, down, up };
template <class T>
T rounded(exact x, direction d) {
  T const near = static_cast<T>(x);  // the compiler's conversion rounds to nearest even
  bool const above = exact{near} > x, below = exact{near} < x;
  T const inf = std::numeric_limits<T>::infinity();
  if (d == direction::down && above) return std::nextafter(near, -inf);
  if (d == direction::up && below) return std::nextafter(near, inf);
  if (d == direction::zero && (x > 0 ? above : below)) return std::nextafter(near, T{0});
  return near;
}
struct mode {
  char const* name;
  direction d;
};
constexpr std::array<mode, 4> modes{
    {{"rn", direction::nearest}, {"rz", direction::zero}, {"rm", direction::down}, {"rp", direction::up}}};

template <class T>
void check_directions() {
  std::string const t = sizeof(T) == 4 ? "f32" : "f64";
  auto const m = moderate<T>();
  for (auto const& [name, d] : modes) {
    std::string const tail = "." + std::string(name) + "." + t;
    check_values<T, T, T>(
        "add" + tail + " %d, %a, %b;", [d = d](T a, T b) { return rounded<T>(exact{a} + b, d); }, m,
        std::vector<T>{T{0.3}, T{5.7}, T(-1e-4)});
    check_values<T, T, T>(
        "sub" + tail + " %d, %a, %b;", [d = d](T a, T b) { return rounded<T>(exact{a} - b, d); }, m,
        std::vector<T>{T{0.3}, T{5.7}, T(-1e-4)});
    check_values<T, T, T>(
        "mul" + tail + " %d, %a, %b;", [d = d](T a, T b) { return rounded<T>(exact{a} * b, d); }, m, m);
    check_values<T, T, T, T>(
        "fma" + tail + " %d, %a, %b, %c;", [d = d](T a, T b, T c) { return rounded<T>(exact{a} * b + c, d); },
        sizeof(T) == 4 ? m : std::vector<T>{T{1}, T{3}}, sizeof(T) == 4 ? m : std::vector<T>{T{5}, T{-0.5}},
        std::vector<T>{T(0.3125), T(-7.3)});
    check_values<T, T, T>(
        "div" + tail + " %d, %a, %b;",
        [d = d](T a, T b) {
          // The quotient itself is no number of any format: compare its product with the dividend instead.
          T const q = static_cast<T>(exact{a} / b);
          exact const back = exact{q} * b;
          bool const above = b > 0 ? back > a : back<a, below = b> 0 ? back < a : back > a;
          T const inf = std::numeric_limits<T>::infinity();
          if (d == direction::down && above) return std::nextafter(q, -inf);
          if (d == direction::up && below) return std::nextafter(q, inf);
          if (d == direction::zero && (q > 0 ? above : below)) return std::nextafter(q, T{0});
          return q;
        },
        m, m);
    check_values<T, T>(
        "rcp" + tail + " %d, %a;",
        [d = d](T a) {
          T const q = static_cast<T>(exact{1} / a);
          exact const back = exact{q} * a;
          bool const above = a > 0 ? back > 1 : back<1, below = a> 0 ? back < 1 : back > 1;
          T const inf = std::numeric_limits<T>::infinity();
          if (d == direction::down && above) return std::nextafter(q, -inf);
          if (d == direction::up && below) return std::nextafter(q, inf);
          if (d == direction::zero && (q > 0 ? above : below)) return std::nextafter(q, T{0});
          return q;
        },
        m);
    check_values<T, T>(
        "sqrt" + tail + " %d, %a;",
        [d = d](T a) {
          if (a < 0) return std::numeric_limits<T>::quiet_NaN();
          T const q = std::sqrt(a);
          exact const back = exact{q} * q;
          if ((d == direction::down || d == direction::zero) && back > a) return std::nextafter(q, T{0});
          if (d == direction::up && back < a) return std::nextafter(q, std::numeric_limits<T>::infinity());
          return q;
        },
        m);
  }
}

template <class T>
void check_special() {
  std::string const t = sizeof(T) == 4 ? "f32" : "f64";
  check2<T, T, T>("add." + t + " %d, %a, %b;", [](T a, T b) { return a + b; });
  check2<T, T, T>("sub." + t + " %d, %a, %b;", [](T a, T b) { return a - b; });
  check2<T, T, T>("mul." + t + " %d, %a, %b;", [](T a, T b) { return a * b; });
  check2<T, T, T>("div.rn." + t + " %d, %a, %b;", [](T a, T b) { return a / b; });
  check1<T, T>("sqrt.rn." + t + " %d, %a;", [](T a) { return std::sqrt(a); });
  check1<T, T>("rcp.rn." + t + " %d, %a;", [](T a) { return 1 / a; });
  check3<T, T, T, T>("fma.rn." + t + " %d, %a, %b, %c;", [](T a, T b, T c) { return std::fma(a, b, c); });
  // Numbers win against NaN, and -0 < +0.
  auto const less = [](T a, T b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); };
  check2<T, T, T>("min." + t + " %d, %a, %b;", [&](T a, T b) {
    return std::isnan(a) ? b : std::isnan(b) ? a : less(b, a) ? b : a;
  });
  check2<T, T, T>("max." + t + " %d, %a, %b;", [&](T a, T b) {
    return std::isnan(a) ? b : std::isnan(b) ? a : less(a, b) ? b : a;
  });
  if constexpr (sizeof(T) == 4) {
    check2<T, T, T>("min.NaN.f32 %d, %a, %b;", [&](T a, T b) {
      return std::isnan(a) || std::isnan(b) ? nan_f : less(b, a) ? b : a;
    });
    check2<T, T, T>("max.NaN.f32 %d, %a, %b;", [&](T a, T b) {
      return std::isnan(a) || std::isnan(b) ? nan_f : less(a, b) ? b : a;
    });
  }
  std::vector<T> numbers;  // what neg and abs make of a NaN is not said
  for (T const x : edges<T>())
    if (!std::isnan(x)) numbers.push_back(x);
  check_values<T, T>(
      "neg." + t + " %d, %a;", [](T a) { return -a; }, numbers);
  check_values<T, T>(
      "abs." + t + " %d, %a;", [](T a) { return std::signbit(a) ? -a : a; }, numbers);
  check_values<T, T, T>(
      "copysign." + t + " %d, %a, %b;", [](T a, T b) { return std::signbit(a) == std::signbit(b) ? b : -b; }, numbers,
      numbers);
}

float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; }
float saturate(float x) { return std::isnan(x) || x < 0 || x == 0 ? 0.0F : x > 1 ? 1.0F : x; }

}  // namespace

TEST_CASE("sums, products, quotients and roots in four directions") {
  check_directions<float>();
  check_directions<double>();
}
TEST_CASE("what cancels is -0 if rounded down") {
  check_values<float, float, float>("sub.rm.f32 %d, %a, %b;", [](float, float) { return -0.0F; }, {1.5F}, {1.5F});
  check_values<float, float, float>("sub.rp.f32 %d, %a, %b;", [](float, float) { return 0.0F; }, {1.5F}, {1.5F});
}
TEST_CASE("special values") {
  check_special<float>();
  check_special<double>();
}
TEST_CASE("flushed to zero, of the sign that was") {
  check2<float, float, float>("add.ftz.f32 %d, %a, %b;", [](float a, float b) { return flush(flush(a) + flush(b)); });
  check2<float, float, float>("sub.ftz.f32 %d, %a, %b;", [](float a, float b) { return flush(flush(a) - flush(b)); });
  check2<float, float, float>("mul.ftz.f32 %d, %a, %b;", [](float a, float b) { return flush(flush(a) * flush(b)); });
  check2<float, float, float>("div.rn.ftz.f32 %d, %a, %b;",
                              [](float a, float b) { return flush(flush(a) / flush(b)); });
  check3<float, float, float, float>("fma.rn.ftz.f32 %d, %a, %b, %c;", [](float a, float b, float c) {
    return flush(std::fma(flush(a), flush(b), flush(c)));
  });
  check1<float, float>("sqrt.rn.ftz.f32 %d, %a;", [](float a) { return std::sqrt(flush(a)); });
  check1<float, float>("rcp.rn.ftz.f32 %d, %a;", [](float a) { return flush(1 / flush(a)); });
  check2<float, float, float>("mul.rz.ftz.f32 %d, %a, %b;", [](float a, float b) {
    double const x = static_cast<double>(flush(a)) * flush(b);
    float r = static_cast<float>(x);
    if (std::isinf(r) && std::isfinite(x)) r = std::copysign(std::numeric_limits<float>::max(), r);
    if (std::fabs(static_cast<double>(r)) > std::fabs(x)) r = std::nextafter(r, 0.0F);
    return flush(r);
  });
  std::vector<float> numbers;
  for (float const x : edges<float>())
    if (!std::isnan(x)) numbers.push_back(x);
  check_values<float, float>(
      "neg.ftz.f32 %d, %a;", [](float a) { return -flush(a); }, numbers);
  check_values<float, float>(
      "abs.ftz.f32 %d, %a;", [](float a) { return std::fabs(flush(a)); }, numbers);
  check_values<float, float, float>(
      "max.ftz.f32 %d, %a, %b;",
      [](float a, float b) {
        float const x = flush(a), y = flush(b);
        return x == y ? (std::signbit(x) ? y : x) : std::max(x, y);
      },
      numbers, numbers);
}
TEST_CASE("saturated to the unit interval, NaN to zero") {
  check2<float, float, float>("add.sat.f32 %d, %a, %b;", [](float a, float b) { return saturate(a + b); });
  check2<float, float, float>("mul.sat.f32 %d, %a, %b;", [](float a, float b) { return saturate(a * b); });
  check3<float, float, float, float>("fma.rn.sat.f32 %d, %a, %b, %c;",
                                     [](float a, float b, float c) { return saturate(std::fma(a, b, c)); });
  check3<float, float, float, float>("fma.rn.ftz.sat.f32 %d, %a, %b, %c;", [](float a, float b, float c) {
    return saturate(flush(std::fma(flush(a), flush(b), flush(c))));
  });
}
TEST_CASE("approximations agree with the functions") {
  std::vector<column> x{{32, {}}};
  for (int n = 1; n < 400; ++n) x[0].values.push_back(to_bits(static_cast<float>(n) * 0.037F));
  struct row {
    char const* instruction;
    double (*f)(double);
  };
  row const rows[] = {{"rcp.approx.ftz.f32", [](double v) { return 1 / v; }},
                      {"rsqrt.approx.ftz.f32", [](double v) { return 1 / std::sqrt(v); }},
                      {"sqrt.approx.ftz.f32", [](double v) { return std::sqrt(v); }},
                      {"ex2.approx.ftz.f32", [](double v) { return std::exp2(v); }},
                      {"lg2.approx.ftz.f32", [](double v) { return std::log2(v); }},
                      {"sin.approx.f32", [](double v) { return std::sin(v); }},
                      {"cos.approx.ftz.f32", [](double v) { return std::cos(v); }},
                      {"tanh.approx.f32", [](double v) { return std::tanh(v); }},
                      {"rcp.approx.f32", [](double v) { return 1 / v; }},
                      {"ex2.approx.f32", [](double v) { return std::exp2(v); }}};
  for (row const& r : rows) {
    auto const got = evaluate(std::string(r.instruction) + " %d, %a;", 32, x);
    for (std::size_t n = 0; n < got.size(); ++n) {
      double const wanted = r.f(from_bits<float>(x[0].values[n]));
      CAPTURE(r.instruction);
      CHECK(std::fabs(from_bits<float>(got[n]) - wanted) <= 2e-7 * std::max(1.0, std::fabs(wanted)));
    }
  }
  check2<float, float, float>("div.full.f32 %d, %a, %b;", [](float a, float b) { return a / b; });
  check2<float, float, float>("div.approx.ftz.f32 %d, %a, %b;",
                              [](float a, float b) { return flush(flush(a) / flush(b)); });
}
TEST_CASE("gross reciprocals of double have 20 good bits and none below") {
  std::vector<column> x{{64, {}}};
  for (double v : {1.0, 3.0, -7.25, 1e10, 1e-300, 0.0, -0.0, HUGE_VAL, 4e-320}) x[0].values.push_back(to_bits(v));
  auto const got = evaluate("rcp.approx.ftz.f64 %d, %a;", 64, x);
  for (std::size_t n = 0; n < 5; ++n) {
    CHECK((got[n] & 0xffffffff) == 0);
    CHECK(from_bits<double>(got[n]) * from_bits<double>(x[0].values[n]) == doctest::Approx(1).epsilon(1e-5));
  }
  CHECK(from_bits<double>(got[5]) == HUGE_VAL);
  CHECK(from_bits<double>(got[6]) == -HUGE_VAL);
  CHECK(from_bits<double>(got[7]) == 0);
  CHECK(from_bits<double>(got[8]) == HUGE_VAL);
}
TEST_CASE("classes of numbers") {
  struct row {
    char const* name;
    bool (*f)(double, int);
  };
  row const rows[] = {{"finite", [](double x, int) { return std::isfinite(x); }},
                      {"infinite", [](double x, int) { return std::isinf(x); }},
                      {"number", [](double x, int) { return !std::isnan(x); }},
                      {"notanumber", [](double x, int) { return std::isnan(x); }},
                      {"normal", [](double, int c) { return c == FP_NORMAL; }},
                      {"subnormal", [](double, int c) { return c == FP_SUBNORMAL; }}};
  for (row const& r : rows) {
    check1<u32, float>("testp." + std::string(r.name) + ".f32 %p0, %a; selp.b32 %d, 1, 0, %p0;",
                       [&](float x) { return static_cast<u32>(r.f(x, std::fpclassify(x))); });
    check1<u32, double>("testp." + std::string(r.name) + ".f64 %p0, %a; selp.b32 %d, 1, 0, %p0;",
                        [&](double x) { return static_cast<u32>(r.f(x, std::fpclassify(x))); });
  }
}

}  // namespace softgpu_test
