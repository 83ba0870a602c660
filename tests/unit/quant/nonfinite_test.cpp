// What blocks do with NaN and infinity, and what codecs promise under -Ofast, with which this file is compiled once more.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowrank/quant/blockwise.hpp"
#include "support/codecs.hpp"

namespace nonfinite_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("nonfinite");

float bad(int kind) {
  return std::bit_cast<float>(kind == 0   ? 0x7FC00000U
                              : kind == 1 ? 0x7F800000U
                              : kind == 2 ? 0xFF800000U
                                          : 0x7F000000U);
}

TEST_CASE("a block with a number that cannot be kept stays as it was, its neighbours do not, and somebody is told") {
  host_executor exec{{.threads = 2}};
  for_every_codec([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    constexpr index_t count = 300;  // blocks of 64: the last one has 44
    for (int what = 0; what < 4; ++what)
      for (index_t const place : {0, 63, 64, 130, 256, 299}) {
        CAPTURE(what);
        CAPTURE(place);
        std::vector<float> x(count), old(count), before(count), after(count);
        for (index_t i = 0; i < count; ++i) {
          auto const at = static_cast<std::size_t>(i);
          old[at] = static_cast<float>(i % 7 + 1);
          x[at] = 20 - static_cast<float>(i % 13);
        }
        blockwise<kind, 64> kept{{1, count}, codec};
        quantize(exec, old.data(), kept.view());
        dequantize(exec, kept.view(), before.data());
        std::int32_t told = 0;
        quantize(exec, x.data(), kept.view(), &told);
        CHECK(told == 0);
        quantize(exec, old.data(), kept.view());
        x[static_cast<std::size_t>(place)] = bad(what);
        quantize(exec, x.data(), kept.view(), &told);
        CHECK(told == 1);
        quantize(exec, x.data(), kept.view());  // nobody to tell
        if constexpr (kind::dithers) {
          told = 0;
          quantize_stochastic(exec, x.data(), kept.view(), {}, 0, &told);
          CHECK(told == 1);
        }
        dequantize(exec, kept.view(), after.data());
        int wrong = 0;
        for (index_t i = 0; i < count; ++i) {
          bool const same_block = i / 64 == place / 64;
          auto const at = static_cast<std::size_t>(i);
          wrong += same_block && after[at] != before[at];
          wrong += !same_block && std::abs(after[at] - x[at]) > 3;
        }
        CHECK(wrong == 0);
      }
  });
}

TEST_CASE("numbers up to the largest that is kept come back finite") {
  host_executor exec{{.threads = 1}};
  for_every_codec([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    for (bool const one_sign : {true, false}) {
      std::vector<float> x(64, blockwise_view<kind, 64>::largest_number), back(64);
      for (std::size_t i = 0; i < 64; i += 3) x[i] *= one_sign ? 0.3F : -1;
      blockwise<kind, 64> kept{{1, 64}, codec};
      std::int32_t told = 0;
      quantize(exec, x.data(), kept.view(), &told);
      CHECK(told == 0);
      dequantize(exec, kept.view(), back.data());
      CHECK(std::all_of(back.begin(), back.end(), [](float v) { return is_finite(v); }));
      CHECK(back[1] > x[1] * 0.9F);
    }
  });
}

TEST_CASE("codes are chosen and decoded right: every code of every codec, halves, and the subnormals of fp8") {
  for_every_codec([](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    block_scale const shared{0.75F, kind::stored_per_block == 2 ? 3.0F : 0.0F, 1 / 0.75F};
    for (int q = 0; q < 1 << kind::bits; ++q) {
      if (kind::dithers && kind::stored_per_block == 1 && q == 1 << (kind::bits - 1)) continue;
      if constexpr (requires { kind::mantissa_bits; })
        if ((q & 0x7F) > (kind::mantissa_bits == 3 ? 0x7E : 0x7B)) continue;
      CHECK(code_of(codec, value_of(codec, q, shared), shared) == q);
    }
    if constexpr (kind::dithers) {
      for (float const part : {0.3F, 0.49F, 0.51F, 0.8F})
        for (int whole : {1, 2}) {
          float const x = 0.75F * (static_cast<float>(whole) + part);
          int const below = code_of(codec, 0.75F * static_cast<float>(whole), shared);
          CHECK(code_of(codec, x, shared) == below + (part > 0.5F ? 1 : 0));
          CHECK(code_of(codec, x, shared, 0.0F) == below);
          CHECK(code_of(codec, x, shared, 1 - part - 0.01F) == below);
          CHECK(code_of(codec, x, shared, 1 - part + 0.01F) == below + 1);
        }
    }
  });
  block_scale const one{.scale = 1, .zero = 0, .inverse = 1};
  for (int q = 0; q < 8; ++q) CHECK(value_of(codec::fp8<>{}, q, one) == static_cast<float>(q) / 512);
  for (int q = 0; q < 4; ++q)
    CHECK(value_of(codec::fp8<codec::fp8_kind::e5m2>{}, q, one) == static_cast<float>(q) / 65536);
}

TEST_SUITE_END();

}  // namespace

}  // namespace nonfinite_test
