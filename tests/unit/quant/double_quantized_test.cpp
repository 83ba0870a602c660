// NF4 whose scales are codes again.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "lowrank/quant/double_quantized.hpp"
#include "support/codecs.hpp"
#include "support/optimizers.hpp"

namespace double_quantized_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("double quantisation");

matrix<float> weights(index_t count) {
  auto w = random_matrix({1, count}, 3);
  for (index_t e = 0; e < count; ++e) w.data()[e] *= 0.02F * static_cast<float>(1 + e / 640 % 5);
  return w;
}

TEST_CASE("4.127 bits an element, of which the scales are 0.127 and not 0.5") {
  constexpr index_t count = 1 << 24;
  CHECK(double_quantized<>::bytes(count) == count / 2 + count / 64 + count / 64 / 256 * 4 + 4);
  CHECK(static_cast<double>(double_quantized<>::bytes(count) * 8) / count == doctest::Approx(4.127).epsilon(1e-4));
  CHECK(static_cast<double>(blockwise_bytes<codec::book4<>, 64>({1, count}) * 8) / count == 4.5);
  for (index_t const n : {0, 1, 63, 64, 65, 16384, 16385, 50001}) {
    double_quantized<> const kept{n};
    CHECK(state_bytes(kept) == double_quantized<>::bytes(n));
    CHECK(kept.bytes() == double_quantized<>::bytes(n));
  }
}

TEST_CASE("codes as without; a scale is the mean and the nearest of 256 steps from it") {
  codec::book4<> const nf4;
  codec::dynamic8<> const map;
  for (index_t const count : {1, 64, 1000, 16384, 16448, 40001}) {
    CAPTURE(count);
    host_executor exec{{.threads = 2, .scratch_bytes = double_quantized<>::workspace_bytes(count)}};
    auto const w = weights(count);
    double_quantized<> kept{count};
    quantize(exec, w.data(), kept);
    matrix<float> back{1, count};
    dequantize(exec, kept, back.data());

    std::vector<float> most;
    for (index_t first = 0; first < count; first += 64) {
      most.push_back(0);
      for (index_t e = first; e < std::min(count, first + 64); ++e)
        most.back() = std::max(most.back(), std::abs(w.data()[e]));
    }
    double sum = 0;
    for (float const m : most) sum += static_cast<double>(m);
    auto const mean = values_of<float>(kept, "scale.mean").at(0);
    CHECK(mean == doctest::Approx(sum / static_cast<double>(most.size())).epsilon(1e-6));
    auto const codes = values_of<std::uint8_t>(kept, "codes");
    auto const scale_codes = values_of<std::uint8_t>(kept, "scale.codes");
    REQUIRE(scale_codes.size() == most.size());
    int wrong = 0;
    for (std::size_t first = 0; first < most.size(); first += 256) {
      std::vector<float> part;
      for (std::size_t b = first; b < std::min(most.size(), first + 256); ++b) part.push_back(most[b] - mean);
      auto const shared = shared_by(map, part);
      for (std::size_t i = 0; i < part.size(); ++i) {
        int const q = code_of(map, part[i], shared);
        wrong += int{scale_codes[first + i]} != q;
        float const scale = value_of(map, q, shared) + mean;
        auto const begin = static_cast<index_t>(64 * (first + i));
        for (index_t e = begin; e < std::min(count, begin + 64); ++e) {
          int const code = code_of(nf4, w.data()[e], nf4.fit({.low = -most[first + i], .high = most[first + i]}));
          int const byte = codes[static_cast<std::size_t>(e / 2)];
          wrong += (e % 2 == 0 ? byte >> 4 : byte & 0xF) != code;
          wrong += back.data()[e] != value_of(nf4, code, {.scale = scale});
        }
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a part is what the whole has there, wherever its scales lie, in the scratch that is said") {
  constexpr index_t count = 70000;  // 1094 blocks, in five groups of scales
  host_executor exec{{.threads = 2, .scratch_bytes = double_quantized<>::workspace_bytes(count)}};
  auto const w = weights(count);
  double_quantized<> kept{count};
  quantize(exec, w.data(), kept);
  matrix<float> whole{1, count};
  dequantize(exec, kept, whole.data());
  for (auto const& [begin, end] : {std::pair<index_t, index_t>{0, 1},
                                   {64, 200},
                                   {16320, 16448},
                                   {16384, 16385},
                                   {32704, 70000},
                                   {69952, 70000},
                                   {128, 128}}) {
    CAPTURE(begin);
    host_executor tight{{.threads = 1, .scratch_bytes = double_quantized<>::part_workspace_bytes(end - begin)}};
    std::vector<float> part(static_cast<std::size_t>(end - begin) + 1, 7.0F);
    dequantize(tight, kept, begin, end, part.data());
    CHECK(std::equal(part.begin(), part.end() - 1, whole.data() + begin));
    CHECK(part.back() == 7.0F);
  }
  std::vector<float> part(200);
  CHECK_THROWS_AS(dequantize(exec, kept, 32, 64, part.data()), shape_error);
  CHECK_THROWS_AS(dequantize(exec, kept, 69952, 70001, part.data()), shape_error);
  CHECK_THROWS_AS(dequantize(exec, kept, 128, 64, part.data()), shape_error);
}

TEST_CASE("the second rounding costs little beside the first") {
  constexpr index_t count = 1 << 16;
  host_executor exec{{.threads = 2, .scratch_bytes = double_quantized<>::workspace_bytes(count)}};
  auto const w = weights(count);
  blockwise<codec::book4<>, 64> once{{1, count}};
  double_quantized<> twice{count};
  quantize(exec, w.data(), once.view());
  quantize(exec, w.data(), twice);
  matrix<float> a{1, count}, b{1, count};
  dequantize(exec, once.view(), a.data());
  dequantize(exec, twice, b.data());
  double first = 0, second = 0;
  for (index_t e = 0; e < count; ++e) {
    first += std::pow(static_cast<double>(a.data()[e] - w.data()[e]), 2);
    second += std::pow(static_cast<double>(b.data()[e] - w.data()[e]), 2);
  }
  CHECK(second < 1.05 * first);
  CHECK(second > first);
}

TEST_CASE("a new one and one of zeros hold zeros; other codecs and blocks; what is not finite is told") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  double_quantized<> kept{300};
  matrix<float> back{1, 300};
  fill(exec, back.view(), 9.0F);
  dequantize(exec, kept, back.data());
  CHECK(squared_norm_of(back.view()) == 0);
  matrix<float> w{1, 300};
  quantize(exec, w.data(), kept);
  dequantize(exec, kept, back.data());
  CHECK(squared_norm_of(back.view()) == 0);

  double_quantized<codec::dynamic8<>, 32> eight{300};
  auto const x = random_matrix({1, 300}, 5);
  std::int32_t told = 0;
  quantize(exec, x.data(), eight, &told);
  dequantize(exec, eight, back.data());
  CHECK(told == 0);
  CHECK(largest_difference(back.view(), x.view()) < 0.1);

  w.data()[7] = std::bit_cast<float>(0x7F800000U);
  quantize(exec, w.data(), kept, &told);
  CHECK(told == 1);
  double_quantized<> nothing{0};
  quantize(exec, w.data(), nothing);
  dequantize(exec, nothing, back.data());
}

TEST_SUITE_END();

}  // namespace

}  // namespace double_quantized_test
