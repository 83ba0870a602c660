// A LoRA that begins with what rounding has taken.
#include "lowrank/adapt/loftq.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "lowrank/adapt/extract.hpp"
#include "lowrank/adapt/peft.hpp"
#include "lowrank/linalg/host/decompositions.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/optimizers.hpp"
#include "support/statistics.hpp"

namespace loftq_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

/// W - W'.
matrix<float> lost_of(host_executor& exec, matrix<float> const& w, frozen_matrix const& kept) {
  matrix<float> out{w.shape()};
  exec.reserve(kept.workspace_bytes());
  kept.dense(exec, out.view());
  for (index_t e = 0; e < w.shape().size(); ++e) out.data()[e] = w.data()[e] - out.data()[e];
  return out;
}
/// tr(D E C Eᵀ) of what is still lost beside the adapter.
double loss_beside(host_executor& exec, matrix<float> const& lost, lora_adapter<float> const& adapter,
                   activation_statistics const& inputs, activation_statistics const& outputs) {
  auto left = copy_of(lost.view());
  adapter.add_to(exec, -1.0F, left.view());
  index_t const m = lost.shape().rows, n = lost.shape().cols;
  matrix<double> c{n, n}, d{m, m};
  inputs.second_moment(c.view());
  outputs.second_moment(d.view());
  double sum = 0;
  for (index_t i = 0; i < m; ++i)
    for (index_t k = 0; k < m; ++k)
      for (index_t j = 0; j < n; ++j)
        for (index_t l = 0; l < n; ++l)
          sum += d(i, k) * static_cast<double>(left(k, j)) * c(j, l) * static_cast<double>(left(i, l));
  return sum;
}

}  // namespace

TEST_SUITE("loftq") {
  TEST_CASE("what the loss notices of the rounding is taken back, as well as a pair of the rank can") {
    host_executor exec{{.threads = 2}};
    extents const shape{24, 36};
    auto const w = random_matrix(shape, 1);
    auto const inputs = statistics_of(exec, shape.cols, 300, 2), outputs = statistics_of(exec, shape.rows, 300, 3);
    frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
    auto const lost = lost_of(exec, w, kept);
    factor::fisher const exact{.input_damping = 0, .output_damping = 1e-9};
    for (index_t const r : {1, 4, 24}) {
      CAPTURE(r);
      // A scale that is not 1, which B A has to make up for.
      lora const settings{.rank = r, .alpha = 2.5F * static_cast<float>(r)};
      auto const adapter = loftq(exec, settings, w.view(), kept, inputs, outputs, {.seed = 4}, exact);
      CHECK(adapter.settings().rank == r);
      double const wanted = exact.decompose(exec, lost.view(), inputs, outputs).loss(r);
      double const nothing = loss_beside(exec, lost, lora_adapter<float>{settings, shape}, inputs, outputs);
      CHECK(std::abs(loss_beside(exec, lost, adapter, inputs, outputs) - wanted) < 1e-5 * nothing);
      double const rise = loss_increase_beside_loftq(exec, w.view(), kept, inputs, outputs, r, exact);
      CHECK(std::abs(2 * rise - loss_beside(exec, lost, adapter, inputs, outputs)) < 1e-5 * nothing);
      if (r == 4) {
        auto const plain = extract(exec, matrix<float>{shape}.view(), lost.view(), {.rank = r}).adapter;
        CHECK(wanted < 0.9 * loss_beside(exec, lost, plain, inputs, outputs));
      }
    }
  }

  TEST_CASE("where nothing has been seen, the nearest of the rank is taken back") {
    host_executor exec{{.threads = 2}};
    extents const shape{24, 36};
    auto const w = random_matrix(shape, 1);
    frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
    auto const lost = lost_of(exec, w, kept);
    auto const norm_beside = [&](lora_adapter<float> const& adapter) {
      auto left = copy_of(lost.view());
      adapter.add_to(exec, -1.0F, left.view());
      double sum = 0;
      squared_norm(exec, std::as_const(left).view(), &sum);
      return std::sqrt(sum);
    };
    std::vector<double> exact(24);
    CHECK(exact_singular_values(exec, lost.view(), exact.data()) == svd_status::converged);
    for (index_t const r : {1, 4, 24}) {
      CAPTURE(r);
      lora const settings{.rank = r, .alpha = 2.5F * static_cast<float>(r)};
      double rest = 0;
      for (auto k = static_cast<std::size_t>(r); k < exact.size(); ++k) rest += exact[k] * exact[k];
      auto const adapter = loftq(exec, settings, w.view(), kept, {.seed = 4}, {.oversampling = 20});
      CHECK(std::abs(norm_beside(adapter) - std::sqrt(rest)) < 1e-3 * exact.front());
    }
  }

  TEST_CASE("where nothing is lost it is a LoRA as any other") {
    host_executor exec{{.threads = 2}};
    extents const shape{12, 20};
    auto const w = random_matrix(shape, 1);
    auto const inputs = statistics_of(exec, shape.cols, 60, 2), outputs = statistics_of(exec, shape.rows, 60, 3);
    frozen_matrix const kept{exec, w.view(), frozen_format::fp32};
    rng_key const key{.seed = 4};
    auto const usual = lora{.rank = 3}.make<float>(exec, copy_of(w.view()).view(), key);
    auto const adapter = loftq(exec, {.rank = 3}, w.view(), kept, inputs, outputs, key);
    CHECK(same_bits(copy_of(adapter.a()), copy_of(usual.a())));
    CHECK(same_bits(copy_of(adapter.b()), copy_of(usual.b())));
    auto const unseen = loftq(exec, {.rank = 3}, w.view(), kept, key);
    CHECK(same_bits(copy_of(unseen.a()), copy_of(usual.a())));
    CHECK(same_bits(copy_of(unseen.b()), copy_of(usual.b())));
  }

  TEST_CASE("components beyond the rank of what is lost are those of a new LoRA, and can learn") {
    host_executor exec{{.threads = 2}};
    extents const shape{12, 20};
    auto w = random_matrix(shape, 1);
    frozen_matrix const kept{exec, w.view(), frozen_format::fp32};
    for (index_t i = 0; i < shape.rows; ++i) w(i, 3) += 1.0F;
    rng_key const key{.seed = 4};
    auto const usual = lora{.rank = 3}.make<float>(exec, copy_of(w.view()).view(), key);
    auto const inputs = statistics_of(exec, shape.cols, 60, 2), outputs = statistics_of(exec, shape.rows, 60, 3);
    for (bool const seen : {false, true}) {
      CAPTURE(seen);
      lora const settings{.rank = 3};
      auto const adapter = seen ? loftq(exec, settings, w.view(), kept, inputs, outputs, key)
                                : loftq(exec, settings, w.view(), kept, key);
      CHECK(adapter.b()(0, 0) != 0);
      for (index_t i = 0; i < shape.rows; ++i) CHECK(adapter.b()(i, 1) == 0);
      CHECK(same_bits(copy_of(adapter.a().row_range(1, 3)), copy_of(usual.a().row_range(1, 3))));
    }
  }

  TEST_CASE("a start that is not its own is not mixed with what is lost") {
    host_executor exec{{.threads = 2}};
    auto w = random_matrix({12, 20}, 1);
    frozen_matrix const kept{exec, w.view(), frozen_format::fp32};
    for (index_t i = 0; i < 12; ++i) w(i, 3) += 1.0F;
    auto const lost = lost_of(exec, w, kept);
    auto const adapter = loftq(exec, {.rank = 4, .start = lora_start::orthogonal}, w.view(), kept, {.seed = 4});
    auto left = copy_of(lost.view());
    adapter.add_to(exec, -1.0F, left.view());
    CHECK(largest_difference(left.view(), matrix<float>{left.shape()}.view()) < 1e-5);
  }

  TEST_CASE("what has been learnt since the start") {
    host_executor exec{{.threads = 2}};
    auto const w = random_matrix({12, 20}, 1);
    frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
    auto const start = loftq(exec, {.rank = 3}, w.view(), kept);
    auto now = loftq(exec, {.rank = 4, .alpha = 5}, w.view(), kept);
    now.tensors()[0].values(1, 2) += 1;
    now.tensors()[1].values(3, 2) -= 1;
    auto const pair = change_since(exec, start, now);
    CHECK(pair.rank() == 7);
    matrix<float> wanted{w.shape()}, product{w.shape()};
    now.add_to(exec, 1.0F, wanted.view());
    start.add_to(exec, -1.0F, wanted.view());
    multiply(exec, 1.0F, pair.left.view(), pair.right.view(), 0.0F, product.view());
    CHECK(largest_difference(product.view(), wanted.view()) < 1e-6);
    lora_adapter<float> const other{{.rank = 3}, {12, 19}};
    CHECK_THROWS_AS(std::ignore = change_since(exec, start, other), shape_error);
    auto const saved = to_peft_module("q", change_since(exec, start, now));
    CHECK(saved.alpha == 7);
    CHECK(saved.rank() == 7);
    CHECK(same_bits(saved.b, pair.left));
    CHECK(same_bits(saved.a, pair.right));
  }

  TEST_CASE("other shapes and ranks are refused, and statistics of nothing") {
    host_executor exec{{.threads = 1}};
    auto const w = random_matrix({6, 9}, 1);
    auto const inputs = statistics_of(exec, 9, 40, 2), outputs = statistics_of(exec, 6, 40, 3);
    frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
    auto const made = [&](index_t r, frozen_matrix const& k, activation_statistics const& c,
                          activation_statistics const& d) { (void)loftq(exec, {.rank = r}, w.view(), k, c, d); };
    CHECK_NOTHROW(made(6, kept, inputs, outputs));
    CHECK_THROWS_AS(made(7, kept, inputs, outputs), shape_error);
    CHECK_THROWS_AS(made(2, frozen_matrix{}, inputs, outputs), shape_error);
    for (index_t const r : {-1, 7})
      CHECK_THROWS_AS(std::ignore = loss_increase_beside_loftq(exec, w.view(), kept, inputs, outputs, r), shape_error);
    CHECK_THROWS_AS(made(2, kept, outputs, inputs), shape_error);
    CHECK_THROWS_AS(made(2, kept, activation_statistics{9}, outputs), state_error);
    CHECK_THROWS_AS(made(2, kept, inputs, activation_statistics{6}), state_error);
    auto bad = copy_of(w.view());
    bad(3, 4) = std::numeric_limits<float>::infinity();
    CHECK_THROWS_AS((void)loftq(exec, {.rank = 2}, bad.view(), kept, inputs, outputs), argument_error);
    CHECK_THROWS_AS((void)loftq(exec, {.rank = 2}, bad.view(), kept), argument_error);
    CHECK_THROWS_AS((void)loftq(exec, {.rank = 7}, w.view(), kept), shape_error);
    CHECK_THROWS_AS((void)loftq(exec, {.rank = 2}, w.view(), frozen_matrix{}), shape_error);
  }
}

}  // namespace loftq_test
