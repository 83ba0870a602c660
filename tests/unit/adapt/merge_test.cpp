// Merging: one rounding, and an error that is told truly.
#include <doctest/doctest.h>

#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/merge.hpp"
#include "support/adapters.hpp"
#include "support/executors.hpp"

namespace merge_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("merge");

constexpr extents shape{48, 80};
constexpr std::array formats{frozen_format::fp32, frozen_format::bf16, frozen_format::int8, frozen_format::nf4};

template <class E>
matrix<float> dense_of(E& exec, frozen_matrix const& w) {
  exec.reserve(w.workspace_bytes());
  matrix<float> out{w.shape()};
  w.dense(exec, out.view());
  return out;
}
lora_adapter<float> trained(double size) {
  lora_adapter<float> out{{.rank = 4, .alpha = 4}, shape};
  stir(out, 3, size);
  return out;
}

TEST_CASE_TEMPLATE("merged = rounded once (W + ΔW), from any format to any format", E, LOWRANK_TEST_EXECUTORS) {
  E exec{{.threads = 2}};
  auto const w = random_matrix(shape, 1);
  auto const adapter = trained(0.1);
  auto const delta = plain_product(adapter.b(), adapter.a());
  for (auto const from : formats)
    for (auto const to : formats) {
      frozen_matrix const base{exec, w.view(), from};
      auto const before = dense_of(exec, base);
      auto const merged = merge(exec, base, adapter, to);
      CHECK(merged.matrix.format() == to);
      CHECK(same_bits(dense_of(exec, base), before));
      auto const after = dense_of(exec, merged.matrix);
      matrix<float> sum{shape};
      double squares = 0, largest = 0;
      for (index_t e = 0; e < shape.size(); ++e) {
        double const exact = static_cast<double>(before.data()[e]) + delta.data()[e];
        sum.data()[e] = static_cast<float>(exact);
        double const error = static_cast<double>(after.data()[e]) - exact;
        squares += error * error;
        largest = std::max(largest, std::abs(error));
      }
      auto const wanted = dense_of(exec, frozen_matrix{exec, sum.view(), to});
      // ΔW itself is an fp32 product: a number between two codes may go either way.
      index_t differ = 0;
      for (index_t e = 0; e < shape.size(); ++e) differ += std::abs(after.data()[e] - wanted.data()[e]) > 1e-5F ? 1 : 0;
      CHECK(differ <= shape.size() / 500);
      CHECK(merged.report.change / std::sqrt(squared_norm_of(delta.view())) == doctest::Approx(1).epsilon(1e-5));
      if (to == frozen_format::fp32) {
        CHECK(merged.report.error > 0);
        CHECK(merged.report.error < 1e-6 * std::sqrt(static_cast<double>(shape.size())));
      } else {
        CHECK(merged.report.error / std::sqrt(squares) == doctest::Approx(1).epsilon(1e-3));
        CHECK(merged.report.largest / largest == doctest::Approx(1).epsilon(1e-3));
      }
      CHECK(merged.report.relative() == merged.report.error / merged.report.change);
    }
}

TEST_CASE("matrices of several panels") {
  host_executor exec{{.threads = 2}};
  constexpr extents wide{65, 16400};
  auto const w = random_matrix(wide, 1);
  lora_adapter<float> adapter{{.rank = 1, .alpha = 1}, wide};
  stir(adapter, 3, 0.1);
  for (auto const format : {frozen_format::bf16, frozen_format::nf4}) {
    frozen_matrix const base{exec, w.view(), format};
    CHECK(base.panel_rows() < wide.rows);
    auto const merged = merge(exec, base, adapter);
    auto const before = dense_of(exec, base), after = dense_of(exec, merged.matrix);
    double squares = 0;
    for (index_t i = 0; i < wide.rows; ++i)
      for (index_t j = 0; j < wide.cols; ++j) {
        double const exact = static_cast<double>(before(i, j)) +
                             static_cast<double>(adapter.b()(i, 0)) * static_cast<double>(adapter.a()(0, j));
        squares += std::pow(static_cast<double>(after(i, j)) - exact, 2);
      }
    CHECK(merged.report.error / std::sqrt(squares) == doctest::Approx(1).epsilon(1e-3));
  }
}

TEST_CASE("merged and unmerged outputs agree to the rounding of fp32") {
  host_executor exec{{.threads = 2}};
  auto const w = random_matrix(shape, 1), x = random_matrix({6, shape.cols}, 2);
  auto const adapter = trained(0.5);
  frozen_matrix const base{exec, w.view(), frozen_format::nf4};
  auto const merged = merge(exec, base, adapter, frozen_format::fp32);
  exec.reserve(base.workspace_bytes() + adapter.workspace_bytes(6));
  matrix<float> apart{6, shape.rows}, together{6, shape.rows};
  std::vector<float> kept(24);
  base.apply(exec, x.view(), apart.view());
  adapter.forward(exec, x.view(), kept, apart.view());
  merged.matrix.apply(exec, x.view(), together.view());
  CHECK(largest_difference(apart.view(), together.view()) < 1e-4);
}

TEST_CASE("the report tells when a format is too coarse for a change") {
  host_executor exec;
  auto const w = random_matrix(shape, 1);
  auto const fine = trained(1e-3);
  auto const relative = [&](frozen_format format) {
    return merge(exec, frozen_matrix{exec, w.view(), format}, fine).report.relative();
  };
  CHECK(relative(frozen_format::fp32) < 0.1);
  // ΔW of 1e-6 beside weights of 1: nothing of it arrives.
  CHECK(relative(frozen_format::bf16) > 0.9);
  CHECK(relative(frozen_format::nf4) > 0.9);
  lora_adapter<float> const none{{.rank = 4}, shape};
  auto const same = merge(exec, frozen_matrix{exec, w.view(), frozen_format::bf16}, none);
  CHECK(same.report.change == 0);
  CHECK(same.report.relative() == 0);
}

TEST_CASE("other shapes and what is not finite are refused") {
  host_executor exec;
  auto const w = random_matrix({5, 80}, 1);
  CHECK_THROWS_AS((void)merge(exec, frozen_matrix{exec, w.view(), frozen_format::bf16}, trained(1)), shape_error);
  auto broken = trained(1);
  broken.tensors()[0].values(0, 0) = std::numeric_limits<float>::quiet_NaN();
  auto const fit = random_matrix(shape, 1);
  for (auto const format : formats)
    CHECK_THROWS_AS((void)merge(exec, frozen_matrix{exec, fit.view(), format}, broken), argument_error);
}

TEST_SUITE_END();

}  // namespace

}  // namespace merge_test
