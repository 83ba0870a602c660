// Weights that exist in codes only.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "lowrank/quant/quantized_weight.hpp"
#include "support/optimizers.hpp"

namespace quantized_weight_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("quantized weights");

step_record const taken{};

template <class Codec, int Block>
blockwise<Codec, Block> codes_of(host_executor& exec, matrix<float> const& w, block_layout layout) {
  blockwise<Codec, Block> out{layout};
  quantize(exec, w.data(), out.view());
  return out;
}
/// `change` of every panel of up to `height` rows.
template <class W, class F>
void in_panels(host_executor& exec, W const& weight, index_t height, rng_key key, F const& change) {
  index_t const quantum = weight.row_quantum(), step = (height + quantum - 1) / quantum * quantum;
  for (index_t begin = 0; begin < weight.shape().rows; begin += step) {
    scratch_scope const scope{exec};
    index_t const end = std::min(weight.shape().rows, begin + step);
    auto const panel = weight.open(exec, begin, end);
    change(panel, begin);
    weight.close(exec, begin, end, panel, key, &taken);
  }
}

TEST_CASE("panels start where blocks do: whole rows that are whole blocks") {
  auto const quantum = [&](extents shape, block_layout layout) {
    return quantized_weight<>{{nullptr, nullptr, layout}, shape}.row_quantum();
  };
  for (auto const& [cols, rows] :
       {std::pair<index_t, index_t>{256, 1}, {512, 1}, {128, 2}, {40, 32}, {1, 256}, {77, 256}, {96, 8}}) {
    CHECK(quantum({600, cols}, {1, 600 * cols}) == rows);
    CHECK(rows * cols % 256 == 0);
  }
  CHECK(quantum({600, 77}, {600, 77}) == 1);  // a line for each row
  CHECK(quantum({1, 77}, {1, 77}) == 1);
  CHECK(quantum({600, 0}, {1, 0}) == 1);
}

TEST_CASE("a weight is the same in panels of any height as in one, nearest or at random") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const check = [&]<class Codec>(Codec, extents shape, block_layout layout) {
    CAPTURE(shape);
    CAPTURE(layout.lines);
    auto const start = random_matrix(shape, 1), update = random_matrix(shape, 2);
    for (auto const rounding : {weight_rounding::nearest, weight_rounding::stochastic}) {
      auto const updated = [&](index_t height) {
        auto codes = codes_of<Codec, 64>(exec, start, layout);
        auto weight = as_weight(codes, shape);
        weight.rounding = rounding;
        in_panels(exec, weight, height, {1, 2, 3, rng_purpose::basis}, [&](matrix_view<float> panel, index_t begin) {
          CHECK(panel.is_row_major());
          for (index_t i = 0; i < panel.rows; ++i)
            for (index_t j = 0; j < panel.cols; ++j) panel(i, j) += 0.1F * update(begin + i, j);
        });
        return saved(codes);
      };
      auto const whole = updated(shape.rows);
      for (index_t const height : {1, 7, 64, 100}) CHECK(updated(height) == whole);
      // And it is what quantizing the whole matrix gives.
      auto codes = codes_of<Codec, 64>(exec, start, layout);
      matrix<float> wide{shape};
      dequantize(exec, codes.view(), wide.data());
      for (index_t e = 0; e < shape.size(); ++e) wide.data()[e] += 0.1F * update.data()[e];
      if constexpr (Codec::dithers) {
        if (rounding == weight_rounding::stochastic)
          quantize_stochastic(exec, wide.data(), codes.view(), {1, 2, 3, rng_purpose::basis});
      }
      if (rounding == weight_rounding::nearest || !Codec::dithers) quantize(exec, wide.data(), codes.view());
      CHECK(saved(codes) == whole);
    }
  };
  auto const formats = [&](auto const& codec) {
    for (extents const shape :
         {extents{200, 24}, extents{150, 77}, extents{70, 128}, extents{1, 500}, extents{90, 1}}) {
      check(codec, shape, {1, shape.size()});
      check(codec, shape, {shape.rows, shape.cols});
    }
  };
  formats(codec::affine<8>{});
  formats(codec::affine<4>{});
  formats(codec::symmetric<8>{});
  formats(codec::book4<>{});
}

TEST_CASE("every step, seed and tensor rounds otherwise") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  extents const shape{40, 64};
  auto const start = random_matrix(shape, 1);
  auto const rounded = [&](rng_key key) {
    auto codes = codes_of<codec::affine<8>, 256>(exec, start, {1, shape.size()});
    in_panels(exec, as_weight(codes, shape), 40, key, [](matrix_view<float> panel, index_t) {
      for (index_t e = 0; e < panel.size(); ++e) panel.data[e] *= 0.99F;
    });
    return saved(codes);
  };
  auto const base = rounded({1, 2, 3});
  CHECK(rounded({1, 2, 3}) == base);
  CHECK(rounded({2, 2, 3}) != base);
  CHECK(rounded({1, 3, 3}) != base);
  CHECK(rounded({1, 2, 4}) != base);
}

TEST_CASE("a skipped step leaves codes and scales alone") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  extents const shape{16, 64};
  auto codes = codes_of<codec::affine<8>, 256>(exec, random_matrix(shape, 1), {1, shape.size()});
  auto const before = saved(codes);
  step_record const skipped{.skip = 1};
  for (auto const rounding : {weight_rounding::nearest, weight_rounding::stochastic}) {
    auto weight = as_weight(codes, shape);
    weight.rounding = rounding;
    scratch_scope const scope{exec};
    auto const panel = weight.open(exec, 0, 16);
    fill(exec, panel, 3.0F);
    weight.close(exec, 0, 16, panel, {}, &skipped);
    CHECK(saved(codes) == before);
    weight.close(exec, 0, 16, panel, {}, &taken);
    CHECK(saved(codes) != before);
    codes = codes_of<codec::affine<8>, 256>(exec, random_matrix(shape, 1), {1, shape.size()});
  }
}

/// How far 64 pushes of a 64th of a code move weights of 0, in codes. Each block's ends, 127 codes away on either side,
/// are exact and stay, and with them the scale.
std::vector<double> movement(weight_rounding rounding, float push, int threads) {
  host_executor exec{{.threads = threads, .scratch_bytes = 1 << 20}};
  extents const shape{64, 256};
  constexpr float code = 0x1p-7F;
  matrix<float> start{shape};
  for (index_t i = 0; i < shape.rows; ++i) start(i, 0) = -127 * code, start(i, 255) = 127 * code;
  auto codes = codes_of<codec::affine<8>, 256>(exec, start, {1, shape.size()});
  auto weight = as_weight(codes, shape);
  weight.rounding = rounding;
  for (std::uint32_t k = 0; k < 64; ++k)
    in_panels(exec, weight, 24, {.seed = 6, .step = k, .tensor = 1}, [&](matrix_view<float> panel, index_t) {
      for (index_t i = 0; i < panel.rows; ++i)
        for (index_t j = 1; j < 255; ++j) panel(i, j) += push * code;
    });
  matrix<float> end{shape};
  dequantize(exec, codes.view(), end.data());
  std::vector<double> out;
  for (index_t i = 0; i < shape.rows; ++i) {
    REQUIRE(end(i, 0) == start(i, 0));
    REQUIRE(end(i, 255) == start(i, 255));
    for (index_t j = 1; j < 255; ++j) out.push_back(static_cast<double>(end(i, j) / code));
  }
  return out;
}

TEST_CASE("updates below half a code: nearest stands still, stochastic moves by what was meant, on average") {
  for (float const push : {1.0F / 64, -1.0F / 64, 31.0F / 64}) {
    CAPTURE(push);
    for (double const moved : movement(weight_rounding::nearest, push, 2)) REQUIRE(moved == 0);
    auto const moved = movement(weight_rounding::stochastic, push, 2);
    // 64 steps, each a whole code with probability |push|: a binomial. Five standard errors of the mean of 16256 weights.
    double const p = std::abs(static_cast<double>(push)), n = static_cast<double>(moved.size());
    double mean = 0, variance = 0;
    for (double const x : moved) mean += x / n;
    for (double const x : moved) variance += (x - mean) * (x - mean) / n;
    CHECK(std::abs(mean - 64 * static_cast<double>(push)) < 5 * std::sqrt(64 * p * (1 - p) / n));
    CHECK(variance == doctest::Approx(64 * p * (1 - p)).epsilon(0.06));
    for (int const threads : {1, 3}) CHECK(movement(weight_rounding::stochastic, push, threads) == moved);
  }
}

TEST_CASE("a row that cannot be kept keeps what it was") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  extents const shape{4, 100};
  auto codes = codes_of<codec::affine<8>, 256>(exec, random_matrix(shape, 1), {4, 100});
  matrix<float> before{shape}, after{shape};
  dequantize(exec, codes.view(), before.data());
  in_panels(exec, as_weight(codes, shape), 4, {}, [](matrix_view<float> panel, index_t) {
    for (index_t j = 0; j < 100; ++j) panel(1, j) += 1, panel(2, j) += 1;
    panel(2, 57) = std::bit_cast<float>(0x7FC00000U);
  });
  dequantize(exec, codes.view(), after.data());
  for (index_t j = 0; j < 100; ++j) {
    CHECK(after(2, j) == before(2, j));
    CHECK(std::abs(after(1, j) - before(1, j) - 1) < 0.1F);
  }
}

TEST_CASE("codes that do not fit a weight are refused") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  blockwise<codec::affine<8>> codes{{1, 100}}, lines{{20, 5}};
  CHECK(refusal<shape_error>([&] { (void)as_weight(codes, {10, 11}); }).find("100") != std::string::npos);
  // As many elements, but lines that are not the weight's rows.
  CHECK(refusal<shape_error>([&] {
          (void)as_weight(lines, {10, 10}).open(exec, 0, 10);
        }).find("20 lines of 5") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace

}  // namespace quantized_weight_test
