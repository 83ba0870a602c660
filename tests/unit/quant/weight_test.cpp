// How weights of 16 bits take their updates.
#include <doctest/doctest.h>

#include <cmath>

#include "lowrank/quant/weight.hpp"
#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace weight_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("weights");

matrix<bf16> narrow_copy(matrix<float> const& a) {
  matrix<bf16> out{a.shape()};
  for (index_t e = 0; e < a.shape().size(); ++e) out.data()[e] = to_bf16(a.data()[e]);
  return out;
}

TEST_CASE("open widens and close rounds, in panels of any height, on any strides") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 16}};
  extents const shape{9, 7};
  auto const start = random_matrix(shape, 1);
  matrix<bf16> kept{shape.t()};
  bf16_weight<> const weight{kept.view().t(), weight_rounding::nearest};
  step_record const record{};
  {
    scratch_scope const scope{exec};
    auto const panel = weight.open(exec, 2, 6);
    CHECK(panel.shape() == extents{4, 7});
    for (index_t i = 0; i < 4; ++i)
      for (index_t j = 0; j < 7; ++j) panel(i, j) = start(2 + i, j);
    weight.close(exec, 2, 6, panel, {}, &record);
  }
  scratch_scope const scope{exec};
  auto const again = weight.open(exec, 0, 9);
  for (index_t i = 0; i < 9; ++i)
    for (index_t j = 0; j < 7; ++j) CHECK(again(i, j) == (i >= 2 && i < 6 ? to_bf16(start(i, j)).value() : 0.0F));
}

TEST_CASE("a skipped step leaves 16-bit weights alone") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  matrix<bf16> kept{3, 3};
  matrix<float> master{3, 3};
  step_record const skipped{.skip = 1};
  scratch_scope const scope{exec};
  bf16_weight<> const weight{kept.view()};
  auto const panel = weight.open(exec, 0, 3);
  for (index_t e = 0; e < 9; ++e) panel.data[e] = 5, master.data()[e] = 5;
  weight.close(exec, 0, 3, panel, {}, &skipped);
  master_weight<bf16>{kept.view(), master.view()}.close(exec, 0, 3, master.view(), {}, &skipped);
  for (index_t e = 0; e < 9; ++e) CHECK(kept.data()[e] == bf16{});
}

TEST_CASE("stochastic rounding is keyed by seed, step, tensor and element, not by the panel it happens in") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  extents const shape{300, 40};
  auto const start = random_matrix(shape, 1);
  step_record const record{};
  auto const rounded = [&](rng_key key, index_t height) {
    matrix<bf16> out{shape};
    bf16_weight<> const weight{out.view()};
    for (index_t begin = 0; begin < shape.rows; begin += height) {
      scratch_scope const scope{exec};
      index_t const end = std::min(shape.rows, begin + height);
      auto const panel = weight.open(exec, begin, end);
      copy(exec, read(start).row_range(begin, end), panel);
      weight.close(exec, begin, end, panel, key, &record);
    }
    return out;
  };
  rng_key const key{1, 2, 3, rng_purpose::basis};
  auto const base = rounded(key, 300);
  CHECK(same_bits(rounded(key, 128), base));
  CHECK(same_bits(rounded(key, 7), base));
  CHECK_FALSE(same_bits(rounded({2, 2, 3, rng_purpose::basis}, 300), base));
  CHECK_FALSE(same_bits(rounded({1, 3, 3, rng_purpose::basis}, 300), base));
  CHECK_FALSE(same_bits(rounded({1, 2, 4, rng_purpose::basis}, 300), base));
  index_t up = 0, wrong = 0;
  for (index_t e = 0; e < shape.size(); ++e) {
    float const x = start.data()[e], y = base.data()[e].value();
    wrong += std::abs(y - x) > std::abs(x) * 0x1p-7F;
    up += std::abs(y) > std::abs(x);
  }
  CHECK(wrong == 0);
  CHECK(up > shape.size() * 4 / 10);
  CHECK(up < shape.size() * 6 / 10);
}

/// 4096 weights of 1, pushed 64 times by 1/32 of the distance to the next bf16 below (2^-8).
std::vector<double> movement(weight_rounding rounding, int threads, std::string const& name,
                             std::string const& options) {
  host_executor exec{{.threads = threads, .scratch_bytes = 1 << 20}};
  extents const shape{64, 64};
  auto o = make_named(exec, name, options, shape, 1, {{}, identity_basis(64)});
  matrix<bf16> w{shape};
  matrix<float> g{shape};
  for (index_t e = 0; e < shape.size(); ++e) w.data()[e] = to_bf16(1), g.data()[e] = 1;
  for (int k = 0; k < 64; ++k) o->step(exec, bf16_weight<>{w.view(), rounding}, read(g), {.learning_rate = 0x1p-13F});
  std::vector<double> out;
  for (index_t e = 0; e < shape.size(); ++e) out.push_back(1 - static_cast<double>(w.data()[e].value()));
  return out;
}

TEST_CASE("updates below half a unit: nearest stands still, stochastic moves by what was meant, on average") {
  for (auto const& [name, options] :
       {std::pair<std::string, std::string>{"sgd", ""}, {"galore_sgd", "rank=64, scale=1, finder=given"}}) {
    CAPTURE(name);
    for (double const moved : movement(weight_rounding::nearest, 2, name, options)) REQUIRE(moved == 0);
    auto const moved = movement(weight_rounding::stochastic, 2, name, options);
    // 64 steps of 2^-13, in jumps of 2^-8: variance of a weight 64 * 2^-16 * (1/32) (31/32).
    double mean = 0;
    for (double const x : moved) mean += x / 4096;
    double const meant = 64 * 0x1p-13, deviation = std::sqrt(64 * 0x1p-16 * 31 / 1024.0 / 4096);
    CHECK(std::abs(mean - meant) < 4 * deviation);
    double variance = 0;
    for (double const x : moved) variance += (x - mean) * (x - mean) / 4096;
    CHECK(variance == doctest::Approx(64 * 0x1p-16 * 31 / 1024).epsilon(0.1));
    for (int const threads : {1, 3, 8}) CHECK(movement(weight_rounding::stochastic, threads, name, options) == moved);
  }
}

TEST_CASE("stochastic rounding has no bias, away from zero or towards it, step after step") {
  // The mean over 2^16 roundings of one number against that number: within 4 standard deviations, for each of 40 numbers.
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  extents const shape{256, 256};
  step_record const record{};
  auto const numbers = random_matrix({1, 40}, 6);
  double worst = 0, sum = 0;
  for (index_t n = 0; n < 40; ++n) {
    float const x = numbers(0, n);
    matrix<bf16> out{shape};
    bf16_weight<> const weight{out.view()};
    scratch_scope const scope{exec};
    auto const panel = weight.open(exec, 0, 256);
    fill(exec, panel, x);
    weight.close(exec, 0, 256, panel, {9, static_cast<std::uint32_t>(n), 1, rng_purpose::rounding}, &record);
    double mean = 0;
    for (index_t e = 0; e < shape.size(); ++e) mean += static_cast<double>(out.data()[e].value()) / 65536;
    float const below = to_bf16_stochastic(x, 0).value(), above = to_bf16_stochastic(x, 0xFFFF).value();
    double const unit = std::abs(static_cast<double>(above) - static_cast<double>(below));
    double const p = std::abs(static_cast<double>(x) - static_cast<double>(below)) / unit;
    double const z = (mean - static_cast<double>(x)) / (unit * std::sqrt(p * (1 - p) / 65536));
    worst = std::max(worst, std::abs(z));
    sum += z * (x < 0 ? -1 : 1);
  }
  CHECK(worst < 4);
  CHECK(std::abs(sum) < 4 * std::sqrt(40.0));
}

TEST_CASE("training a bf16 weight far below its resolution follows the fp32 weight") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  extents const shape{64, 64};
  auto a = make_named(exec, "adamw", "", shape), b = make_named(exec, "adamw", "", shape);
  auto w = random_matrix(shape, 1);
  auto v = narrow_copy(w);
  for (index_t e = 0; e < shape.size(); ++e) w.data()[e] = v.data()[e].value();
  auto const start = copy_of(read(w));
  auto const g = random_matrix(shape, 2);
  for (int k = 0; k < 200; ++k) {
    a->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 1e-4F});
    b->step(exec, bf16_weight<>{v.view()}, read(g), {.learning_rate = 1e-4F});
  }
  double meant = 0, moved = 0;
  for (index_t e = 0; e < shape.size(); ++e) {
    double const sign = g.data()[e] > 0 ? -1 : 1;
    meant += sign * static_cast<double>(w.data()[e] - start.data()[e]);
    moved += sign * static_cast<double>(v.data()[e].value() - start.data()[e]);
  }
  CHECK(moved / meant == doctest::Approx(1).epsilon(0.02));
}

TEST_SUITE_END();

}  // namespace

}  // namespace weight_test
