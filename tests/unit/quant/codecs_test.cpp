// What single numbers become, exhaustively.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "lowrank/core/rng.hpp"
#include "lowrank/tile/int_pack.hpp"
#include "support/codecs.hpp"

namespace codecs_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("codecs");

constexpr float most_float = std::numeric_limits<float>::max();
constexpr block_scale one{.scale = 1, .zero = 0, .inverse = 1};

template <class Codec>
constexpr bool is_affine = Codec::stored_per_block == 2;
template <class Codec>
constexpr bool is_symmetric = Codec::dithers && !is_affine<Codec>;

/// Codes that nothing is ever encoded to: the negative number without a counterpart, and what fp8 has beside numbers.
template <class Codec>
bool is_unused(Codec const&, int q) {
  if constexpr (is_symmetric<Codec>) return q == 1 << (Codec::bits - 1);
  else if constexpr (requires { Codec::mantissa_bits; }) return (q & 0x7F) > (Codec::mantissa_bits == 3 ? 0x7E : 0x7B);
  else return false;
}

TEST_CASE("every code stands for a number that is encoded as that code, at any scale") {
  for_every_codec([](std::string const& name, auto const& codec) {
    CAPTURE(name);
    for (float const scale : {1.0F, 0.37F, 3.0F, 1.0e-7F / 3, 7e20F, 1.1e-33F})
      for (float const zero : {0.0F, 3.0F, 15.0F}) {
        using kind = std::remove_cvref_t<decltype(codec)>;
        if (!is_affine<kind> && zero != 0) continue;
        block_scale const shared{scale, zero, 1 / scale};
        for (int q = 0; q < 1 << kind::bits; ++q) {
          if (is_unused(codec, q)) continue;
          float const x = value_of(codec, q, shared);
          CAPTURE(q);
          CHECK(code_of(codec, x, shared) == q);
          if constexpr (kind::dithers) {
            // x / scale is the code up to rounding, so only a number next to 0 or 1 can move it.
            CHECK(code_of(codec, x, shared, 0.5F) == q);
            CHECK(std::abs(code_of(codec, x, shared, 0x1.FFFEp-1F) - q) <= (is_symmetric<kind> ? 1 << kind::bits : 1));
          }
        }
      }
  });
}

/// The entry nearest to x, by comparing twice x with sums of neighbours: both are exact in fp64.
int nearest_entry(std::vector<float> const& ascending, float x, tie_rule ties) {
  auto const above = std::lower_bound(ascending.begin(), ascending.end(), x) - ascending.begin();
  if (above == 0) return 0;
  if (above == static_cast<std::ptrdiff_t>(ascending.size())) return static_cast<int>(above) - 1;
  auto const at = static_cast<std::size_t>(above);
  double const sum = static_cast<double>(ascending[at - 1]) + static_cast<double>(ascending[at]);
  double const twice = 2 * static_cast<double>(x);
  bool const up = ties == tie_rule::up ? twice >= sum : twice > sum;
  return static_cast<int>(above) - (up ? 0 : 1);
}
template <class Codec>
std::vector<float> entries(Codec const& codec) {
  std::vector<float> out;
  for (int q = 0; q < 1 << Codec::bits; ++q) out.push_back(value_of(codec, q, one));
  return out;
}
/// Calls f(codec, ties) for the codecs with a book.
template <class F>
void for_every_book(F const& f) {
  using namespace lowrank::codec;
  constexpr auto floor = scale_floor::at_1e_12;
  for (auto const sign : {signedness::with_sign, signedness::nonnegative}) {
    f(dynamic8<tie_rule::down>{sign}, tie_rule::down);
    f(dynamic8<tie_rule::up, floor>{sign}, tie_rule::up);
  }
  for (auto const name : {book4_name::nf4, book4_name::dynamic, book4_name::sixteenths}) {
    f(book4<tie_rule::down>{name}, tie_rule::down);
    f(book4<tie_rule::up, floor>{name}, tie_rule::up);
  }
}

TEST_CASE("books: the nearest entry, for every upper half of an fp32 number in [-1, 1] and eight lower halves") {
  for_every_book([](auto const& codec, tie_rule ties) {
    auto const book = entries(codec);
    REQUIRE(std::is_sorted(book.begin(), book.end()));
    int wrong = 0;
    for (std::uint32_t upper = 0; upper < 65536; ++upper)
      for (std::uint32_t const lower : {0x0000U, 0x0001U, 0x1234U, 0x7FFFU, 0x8000U, 0x8001U, 0xC0DEU, 0xFFFFU}) {
        auto const x = std::bit_cast<float>(upper << 16 | lower);
        if (!(x >= -1 && x <= 1)) continue;
        wrong += code_of(codec, x, one) != nearest_entry(book, x, ties);
      }
    CHECK(wrong == 0);
  });
}

TEST_CASE("books: the neighbours of every midpoint go to the nearer entry, a tie as the rule says") {
  for_every_book([](auto const& codec, tie_rule ties) {
    auto const book = entries(codec);
    int exact = 0;
    for (std::size_t k = 0; k + 1 < book.size(); ++k) {
      auto const below = static_cast<int>(k);
      double const middle = (static_cast<double>(book[k]) + static_cast<double>(book[k + 1])) / 2;
      auto const near = static_cast<float>(middle);
      for (float x : {next_below(near), near, next_above(near)}) {
        CAPTURE(k);
        CHECK(code_of(codec, x, one) == nearest_entry(book, x, ties));
      }
      CHECK(code_of(codec, next_below(near), one) == below);
      CHECK(code_of(codec, next_above(near), one) == below + 1);
      if (static_cast<double>(near) == middle) {
        ++exact;
        CHECK(code_of(codec, near, one) == (ties == tie_rule::up ? below + 1 : below));
      }
    }
    CHECK(exact > 3);  // else nobody looked at a tie
  });
}

TEST_CASE("CUDA's dynamic codes: the same, but no negative number becomes zero") {
  using namespace lowrank::codec;
  dynamic8<> const plain;
  dynamic8<tie_rule::down, scale_floor::none, tiny_negative::stays_negative> const cuda;
  for (std::uint32_t upper = 0; upper < 65536; ++upper) {
    auto const x = std::bit_cast<float>(upper << 16 | 0x4321U);
    if (!(x >= -1 && x <= 1)) continue;
    int const q = code_of(plain, x, one);
    CHECK(code_of(cuda, x, one) == (x < 0 && q == 127 ? 126 : q));
  }
  CHECK(code_of(cuda, 0.0F, one) == 127);
}

TEST_CASE("a pack is encoded and decoded as its floats are") {
  rng_key const key{.seed = 3, .purpose = rng_purpose::data};
  for_every_codec([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    constexpr auto width = static_cast<std::size_t>(pack::width);
    std::vector<float> x(4096), u(4096);
    for (std::size_t i = 0; i < x.size(); ++i) {
      // Normal numbers, times powers of ten, and now and then zero.
      x[i] = i % 64 == 5 ? 0.0F : gaussian(key, i) * static_cast<float>(std::pow(10, -static_cast<int>(i % 7)));
      u[i] = static_cast<float>(random_16(key, i)) * 0x1p-16F;
    }
    auto const shared = shared_by(codec, x);
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); i += width) {
      std::array<std::uint8_t, width> codes;
      std::array<float, width> values;
      codec.encode(pack::load(x.data() + i), shared).store(codes.data());
      // Books of 256 decode one by one.
      if constexpr (requires { codec.values(); })
        for (std::size_t l = 0; l < width; ++l) values[l] = codec.values()[codes[l]] * shared.scale;
      else codec.decode(int_pack::load(codes.data()), shared).store(values.data());
      for (std::size_t l = 0; l < width; ++l) {
        wrong += codes[l] != code_of(codec, x[i + l], shared);
        wrong += values[l] != value_of(codec, codes[l], shared);
      }
      if constexpr (kind::dithers) {
        codec.encode(pack::load(x.data() + i), shared, pack::load(u.data() + i)).store(codes.data());
        for (std::size_t l = 0; l < width; ++l) wrong += codes[l] != code_of(codec, x[i + l], shared, u[i + l]);
      }
    }
    CHECK(wrong == 0);
  });
}

// ---- fp8 ---------------------------------------------------------------------------------------------------------------

/// The numbers of an 8-bit float by its definition, without a sign; infinities and NaN are left out.
std::vector<double> magnitudes_of(int mantissa_bits, int bias, int count) {
  std::vector<double> out;
  int const steps = 1 << mantissa_bits;
  for (int q = 0; q < count; ++q) {
    int const exponent = q / steps, mantissa = q % steps;
    out.push_back(exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                : std::ldexp(steps + mantissa, exponent - bias - mantissa_bits));
  }
  return out;
}
template <class Codec>
void check_fp8(Codec const& codec, std::vector<double> const& magnitudes, double most) {
  REQUIRE(magnitudes.back() == most);
  REQUIRE(static_cast<double>(Codec::most) == most);
  int const count = static_cast<int>(magnitudes.size());
  for (int q = 0; q < count; ++q) {
    auto const x = static_cast<float>(magnitudes[static_cast<std::size_t>(q)]);
    CHECK(std::bit_cast<std::uint32_t>(value_of(codec, q, one)) == std::bit_cast<std::uint32_t>(x));
    CHECK(std::bit_cast<std::uint32_t>(value_of(codec, q | 0x80, one)) == std::bit_cast<std::uint32_t>(-x));
    CHECK(code_of(codec, x, one) == q);
    CHECK(code_of(codec, -x, one) == (q | 0x80));
    if (q + 1 == count) break;
    // Halfway between two numbers lies one that fp32 holds: it goes to the even code.
    auto const middle = static_cast<float>((static_cast<double>(x) + magnitudes[static_cast<std::size_t>(q) + 1]) / 2);
    for (int const sign : {0, 0x80}) {
      auto const with = [&](float y) { return sign != 0 ? -y : y; };
      CHECK(code_of(codec, with(next_below(middle)), one) == (q | sign));
      CHECK(code_of(codec, with(middle), one) == ((q + q % 2) | sign));
      CHECK(code_of(codec, with(next_above(middle)), one) == ((q + 1) | sign));
    }
  }
  float const top = static_cast<float>(most);
  for (float const beyond : {next_above(top), top * 1.0625F, top * 2, most_float}) {
    CHECK(code_of(codec, beyond, one) == count - 1);
    CHECK(code_of(codec, -beyond, one) == count + 127);
  }
  CHECK(code_of(codec, std::numeric_limits<float>::denorm_min(), one) == 0);
}

TEST_CASE("fp8: all numbers of both kinds, and the neighbours of every boundary between them") {
  check_fp8(codec::fp8<codec::fp8_kind::e4m3>{}, magnitudes_of(3, 7, 127), 448);
  check_fp8(codec::fp8<codec::fp8_kind::e5m2>{}, magnitudes_of(2, 15, 124), 57344);
}

// ---- equal steps -------------------------------------------------------------------------------------------------------

struct group {
  std::string name;
  std::vector<float> x;
};
std::vector<group> groups() {
  rng_key const key{.seed = 8, .purpose = rng_purpose::data};
  std::vector<group> out;
  auto const add = [&](std::string name, auto const& f) {
    std::vector<float> x;
    for (std::uint64_t i = 0; i < 256; ++i) x.push_back(f(i));
    out.push_back({std::move(name), std::move(x)});
  };
  auto const uniform = [&](std::uint64_t i) { return static_cast<float>(lowrank::uniform(key, i)); };
  add("normal", [&](auto i) { return gaussian(key, i); });
  add("0.5 ... 1", [&](auto i) { return 0.5F + 0.5F * uniform(i); });
  add("-2 ... -1", [&](auto i) { return -1 - uniform(i); });
  add("1000 ... 1001", [&](auto i) { return 1000 + uniform(i); });
  add("one value", [&](auto) { return 0.3F; });
  add("one negative value", [&](auto) { return -7.7F; });
  add("zero", [&](auto) { return 0.0F; });
  add("negative zero", [&](auto) { return -0.0F; });
  add("one spike", [&](auto i) { return i == 77 ? 1e4F : 1e-3F * gaussian(key, i); });
  add("small", [&](auto i) { return 1e-30F * gaussian(key, i); });
  add("up to 8e37", [&](auto i) { return 8e37F * (2 * uniform(i) - 1); });
  add("8e37", [&](auto i) { return i % 2 == 0 ? 8e37F : -8e37F; });
  return out;
}

TEST_CASE("equal steps: a group is rebuilt to half a step, whatever its signs, and zero is exact") {
  for_every_codec([](std::string const& name, auto const& codec) {
    using kind = std::remove_cvref_t<decltype(codec)>;
    if constexpr (kind::dithers) {
      CAPTURE(name);
      for (auto const& [what, x] : groups()) {
        CAPTURE(what);
        auto const shared = shared_by(codec, x);
        auto const range = range_of(x);
        double const high = std::max(0.0, static_cast<double>(range.high)),
                     low = std::min(0.0, static_cast<double>(range.low)), most = static_cast<double>(kind::most);
        // The step is as wide as it must be: bf16 scales are rounded up, headroom costs one code.
        double const span = is_affine<kind> ? (high - low) / (most - 1) : std::max(high, -low) / most;
        double const step = static_cast<double>(shared.scale);
        CHECK(step <= std::max(span * (1 + 0x1p-7), 1e-5 * (1 + 0x1p-7) / most));
        CHECK(shared.zero == std::floor(shared.zero));
        CHECK((shared.zero >= 0 && shared.zero <= (is_affine<kind> ? kind::most : 0.0F)));
        CHECK(value_of(codec, code_of(codec, 0.0F, shared), shared) == 0);
        int wrong = 0;
        for (float const v : x) {
          int const q = code_of(codec, v, shared);
          wrong += q < 0 || q >= 1 << kind::bits;
          double const back = static_cast<double>(value_of(codec, q, shared)), value = static_cast<double>(v);
          wrong += !(std::abs(back - value) <= 0.5 * step + 1e-6 * std::abs(value));
        }
        CHECK(wrong == 0);
      }
    }
  });
}

TEST_CASE("numbers so small that their scale would be subnormal become zero") {
  using namespace lowrank::codec;
  auto const check = [](auto const& codec) {
    std::vector<float> const x{1e-40F, -3e-39F, std::numeric_limits<float>::denorm_min(), 0};
    auto const shared = shared_by(codec, x);
    CHECK(shared.scale == 0);
    for (float const v : x) {
      CHECK(value_of(codec, code_of(codec, v, shared), shared) == 0);
      CHECK(value_of(codec, code_of(codec, v, shared, 0x1.FFFEp-1F), shared) == 0);
    }
  };
  check(affine<8>{});
  check(affine<4>{});
  check(affine<8, range_rule::headroom, float>{});
  check(symmetric<8>{});
  check(symmetric<4, bf16>{});
}

TEST_CASE("as_measured: a group of one sign far from zero collapses, as in the published code") {
  codec::affine<8, codec::range_rule::as_measured, float> const published;
  std::vector<float> x;
  for (int i = 0; i < 256; ++i) x.push_back(0.5F + static_cast<float>(i) / 512);
  auto const shared = shared_by(published, x);
  CHECK(shared.zero == 0);
  for (float const v : x)
    CHECK(value_of(published, code_of(published, v, shared), shared) == doctest::Approx(0.498F).epsilon(0.01));
  // Far beyond what nearest_whole promises: still the end of the codes.
  auto const far = shared_by(published, {1e9F, 1e9F + 64});
  CHECK(code_of(published, 1e9F, far) == 255);
  auto const below = shared_by(published, {-1e9F, -1e9F - 64});
  CHECK(code_of(published, -1e9F, below) == 0);
}

TEST_CASE("with scale zero every code stands for zero") {
  for_every_codec([](std::string const& name, auto const& codec) {
    CAPTURE(name);
    for (int q = 0; q < 1 << std::remove_cvref_t<decltype(codec)>::bits; ++q) CHECK(value_of(codec, q, {}) == 0);
  });
}

TEST_CASE("a block of zeros: what is stored of it") {
  using namespace lowrank::codec;
  value_range const zeros{.low = 0, .high = 0};
  CHECK(affine<8>{}.fit(zeros).scale == 0);
  CHECK(symmetric<4>{}.fit(zeros).scale == 0);
  CHECK(dynamic8<>{}.fit(zeros).scale == 0);
  CHECK(dynamic8<tie_rule::up, scale_floor::at_1e_12>{}.fit(zeros).scale == 1e-12F);
  CHECK(book4<>{}.fit(zeros).scale == 0);
  CHECK(fp8<>{}.fit(zeros).scale == 1e-12F / 448);
  CHECK((affine<8, range_rule::with_zero, float>{}.fit(zeros).scale == 1e-5F / 255));
  CHECK(code_of(dynamic8<>{}, 0.0F, {}) == 127);
  CHECK(code_of(dynamic8<>{signedness::nonnegative}, 0.0F, {}) == 0);
  CHECK(code_of(book4<>{}, 0.0F, {}) == 7);
}

TEST_CASE("a dynamic block's negative extreme shrinks, its positive one does not") {
  codec::dynamic8<> const codec;
  auto const shared = shared_by(codec, {-2.0F, 0.5F});
  CHECK(value_of(codec, code_of(codec, -2.0F, shared), shared) == -2 * 0.99296875F);
  CHECK(value_of(codec, code_of(codec, 2.0F, shared), shared) == 2);
}

TEST_SUITE_END();

}  // namespace

}  // namespace codecs_test
