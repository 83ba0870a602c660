// Rounding at random: without bias anywhere, and nowhere met by a clamp that would bring one.
#include <doctest/doctest.h>

#include <vector>

#include "lowrank/quant/blockwise.hpp"
#include "support/codecs.hpp"

namespace stochastic_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("stochastic rounding");

/// Calls f(name, codec) for the codecs that promise no bias.
template <class F>
void for_every_unbiased(F const& f) {
  using namespace lowrank::codec;
  f("affine8", affine<8>{});
  f("affine4", affine<4>{});
  f("affine8, fp32 scales", affine<8, range_rule::headroom, float>{});
  f("affine4, fp32 scales", affine<4, range_rule::headroom, float>{});
  f("symmetric8", symmetric<8>{});
  f("symmetric4", symmetric<4>{});
  f("symmetric8, bf16 scales", symmetric<8, bf16>{});
}

TEST_CASE("both ends of any range keep clear of the clamp, at the smallest and at the largest random number") {
  rng_key const key{.seed = 4, .purpose = rng_purpose::data};
  for_every_unbiased([&](std::string const& name, auto const& codec) {
    using kind = std::remove_cvref_t<decltype(codec)>;
    if constexpr (kind::stored_per_block == 2) {
      CAPTURE(name);
      int outside = 0;
      for (std::uint64_t i = 0; i < 50000; ++i) {
        float low = gaussian(key, 2 * i), high = gaussian(key, 2 * i + 1);
        // Equal ends, and ends that are whole steps but for rounding, are where the rounding of the scale shows.
        if (i % 5 == 1) high = -low;
        if (i % 5 >= 2) {
          auto const below = static_cast<float>(i % static_cast<std::uint64_t>(kind::most - 1));
          float const step = std::abs(high);
          low = -step * below;
          high = step * (kind::most - 1 - below);
        }
        if (low > high) std::swap(low, high);
        auto const shared = codec.fit({.low = low, .high = high});
        for (float const x : {low, high, std::min(low, 0.0F), std::max(high, 0.0F)})
          for (float const u : {0.0F, 0x1.FFFEp-1F}) {
            float const whole = lowrank::detail::whole_below(x * shared.inverse + u) + shared.zero;
            outside += whole < 0 || whole > kind::most;
          }
      }
      CHECK(outside == 0);
    }
  });
}

TEST_CASE("the mean over all 65536 random numbers is the number itself, to a 65536th of a step") {
  for_every_unbiased([](std::string const& name, auto const& codec) {
    CAPTURE(name);
    for (auto const& x : {std::vector<float>{-1.3F, 2.1F, 0.001F, -0.0F, 0.7654F},
                          {0.5F, 1.0F, 0.83F},
                          {-2.0F, -1.0F, -1.99F},
                          {1e-20F, -3e-21F, 2e-22F},
                          {-127.0F, 127.0F, 5.0F, 5.5F}}) {
      auto const shared = shared_by(codec, x);
      for (float const v : x) {
        CAPTURE(v);
        double sum = 0;
        for (int k = 0; k < 65536; ++k)
          sum +=
              static_cast<double>(value_of(codec, code_of(codec, v, shared, static_cast<float>(k) * 0x1p-16F), shared));
        double const off = (sum / 65536 - static_cast<double>(v)) / static_cast<double>(shared.scale);
        // A mean of whole 65536ths; x / scale itself is rounded, at up to 256 by as much again.
        CHECK(std::abs(off) <= 2 * 0x1p-16);
      }
    }
  });
}

TEST_CASE("a number that is a code stays that code for nearly all random numbers, one between goes to its neighbours") {
  for_every_unbiased([](std::string const& name, auto const& codec) {
    CAPTURE(name);
    auto const shared = shared_by(codec, {-1.0F, 0.9F});
    for (int q : {2, 3, 5}) {
      float const at = value_of(codec, q, shared), above = value_of(codec, q + 1, shared);
      int moved = 0, wrong = 0, up = 0;
      for (int k = 0; k < 65536; ++k) {
        auto const u = static_cast<float>(k) * 0x1p-16F;
        moved += code_of(codec, at, shared, u) != q;
        int const between = code_of(codec, at + (above - at) / 4, shared, u);
        wrong += between != q && between != q + 1;
        up += between == q + 1;
      }
      CHECK(moved <= 3);
      CHECK(wrong == 0);
      CHECK(std::abs(up - 16384) <= 3);
    }
  });
}

/// (mean of many decoded copies of x - x) in standard errors; copies share blocks with `ends`.
template <class Codec>
double mean_in_errors(host_executor& exec, Codec codec, float x, std::vector<float> const& ends, std::uint32_t step) {
  constexpr index_t count = 1 << 16;
  std::vector<float> values(count, x), back(count);
  for (std::size_t i = 0; i < values.size(); i += 256)
    std::copy(ends.begin(), ends.end(), values.begin() + static_cast<std::ptrdiff_t>(i));
  blockwise<Codec, 256> kept{{1, count}, codec};
  quantize_stochastic(exec, values.data(), kept.view(), {.seed = 11, .step = step, .tensor = 2});
  dequantize(exec, kept.view(), back.data());
  auto const shared = shared_by(codec, ends);
  double sum = 0, n = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (i % 256 >= ends.size()) sum += static_cast<double>(back[i]) - static_cast<double>(x), ++n;
  double const steps = static_cast<double>(x) / static_cast<double>(shared.scale), p = steps - std::floor(steps);
  return sum / n / (static_cast<double>(shared.scale) * std::sqrt(std::max(p * (1 - p), 0x1p-16) / n));
}

TEST_CASE("the mean of 65024 roundings is the number: within four standard errors, for 40 numbers and at both ends") {
  // Four standard errors of 42 means of seven codecs: a right one fails once in 50 other choices of the keys.
  host_executor exec{{.threads = 2}};
  for_every_unbiased([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    std::vector<float> const ends{-1.0F, 0.8F};
    std::vector<float> numbers{-1.0F, 0.8F};
    for (std::uint64_t i = 0; i < 40; ++i)
      numbers.push_back(-1 + 1.8F * static_cast<float>(uniform({.seed = 5, .purpose = rng_purpose::data}, i)));
    double worst = 0, signed_sum = 0;
    std::uint32_t step = 0;
    for (float const x : numbers) {
      double const z = mean_in_errors(exec, codec, x, ends, ++step);
      worst = std::max(worst, std::abs(z));
      signed_sum += z;
    }
    CHECK(worst < 4);
    CHECK(std::abs(signed_sum) < 4 * std::sqrt(static_cast<double>(numbers.size())));
  });
}

TEST_SUITE_END();

}  // namespace

}  // namespace stochastic_test
