// Dropout without a stored mask.
#include <doctest/doctest.h>

#include "lowrank/adapt/dropout.hpp"
#include "lowrank/adapt/lora.hpp"
#include "support/adapters.hpp"
#include "support/executors.hpp"

namespace dropout_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("dropout");

constexpr rng_key key{.seed = 11, .step = 0, .tensor = 2};

TEST_CASE("the mask is a function of seed, step, tensor and place, whatever part of it is drawn") {
  host_executor exec{{.threads = 3}};
  for (index_t const features : {1, 7, 8, 255, 256, 257, 600}) {
    extents const whole{37, features};
    dropout_mask const mask{0.25F, key};
    matrix<float> ones{whole}, all{whole}, added{whole};
    fill(exec, ones.view(), 1.0F);
    mask.apply(exec, 4, whole, 0, ones.view(), all.view());
    mask.add(exec, 4, whole, 20, ones.view().row_range(20, 37), added.view().row_range(20, 37));
    int wrong = 0;
    for (index_t t = 0; t < whole.rows; ++t)
      for (index_t j = 0; j < features; ++j) {
        wrong += all(t, j) != mask.factor<float>(4, whole, t, j);
        wrong += added(t, j) != (t < 20 ? 0.0F : all(t, j));
      }
    CHECK(wrong == 0);
    // As it is written down: a row takes a multiple of eight numbers of the stream.
    rng_key const stream{.seed = 11, .step = 4, .tensor = 2, .purpose = rng_purpose::dropout};
    auto const padded = static_cast<std::uint64_t>((features + 7) / 8 * 8);
    for (std::uint64_t const t : {0U, 1U, 36U})
      CHECK((all(static_cast<index_t>(t), 0) == 0) == (random_16(stream, t * padded) < 16384));
  }
}

TEST_CASE("the mean stays, the share of zeros is the probability, other steps and layers have other zeros") {
  host_executor exec{{.threads = 2}};
  constexpr extents whole{500, 600};
  matrix<double> ones{whole}, first{whole}, next{whole}, other{whole};
  fill(exec, ones.view(), 1.0);
  for (float const p : {0.05F, 0.5F, 0.9F}) {
    dropout_mask const mask{p, key}, layer{p, {.seed = 11, .step = 0, .tensor = 3}};
    mask.apply(exec, 1, whole, 0, ones.view(), first.view());
    mask.apply(exec, 2, whole, 0, ones.view(), next.view());
    layer.apply(exec, 1, whole, 0, ones.view(), other.view());
    double sum = 0, zeros = 0, both = 0, both_layers = 0;
    for (index_t e = 0; e < whole.size(); ++e) {
      sum += first.data()[e];
      zeros += first.data()[e] == 0 ? 1 : 0;
      both += first.data()[e] == 0 && next.data()[e] == 0 ? 1 : 0;
      both_layers += first.data()[e] == 0 && other.data()[e] == 0 ? 1 : 0;
    }
    auto const count = static_cast<double>(whole.size()), q = static_cast<double>(p);
    double const five_sigma = 5 * std::sqrt(q * (1 - q) / count);
    CHECK(std::abs(zeros / count - q) < five_sigma);
    CHECK(std::abs(sum / count - 1) < five_sigma / (1 - q));
    CHECK(std::abs(both / count - q * q) < five_sigma);
    CHECK(std::abs(both_layers / count - q * q) < five_sigma);
    // Exact: probability and scale belong to one multiple of 2^-16.
    CHECK(mask.scale<double>() * (1 - std::round(q * 65536) / 65536) == doctest::Approx(1).epsilon(1e-15));
  }
}

TEST_CASE("forward and backward have the same zeros, and evaluation none") {
  host_executor exec{{.threads = 2}};
  constexpr extents shape{5, 40};
  constexpr index_t tokens = 130;
  lora_adapter<double> adapter{{.rank = 2, .dropout = 0.4F}, shape, key};
  stir(adapter, 3);
  exec.reserve(adapter.workspace_bytes(tokens));
  pass_info const info{.mode = pass::training, .step = 6};
  auto const x = random_values<double>({tokens, shape.cols}, 1), dy = random_values<double>({tokens, shape.rows}, 2);
  matrix<double> seen{x.shape()}, y{dy.shape()}, dx{x.shape()}, da{2, shape.cols};
  adapter.mask().apply(exec, 6, x.shape(), 0, x.view(), seen.view());
  std::vector<double> kept(2 * tokens);
  adapter.forward(exec, x.view(), kept, y.view(), info);
  auto const delta = change_of_weights(exec, adapter);
  CHECK(largest_difference(y.view(), plain_product(seen.view(), delta.view().t()).view()) < 1e-12);
  std::vector<matrix_view<double>> const gradients{da.view(), matrix_view<double>{}};
  adapter.backward(exec, x.view(), kept, dy.view(), gradients, dx.view(), info);
  auto const through = plain_product(dy.view(), delta.view());
  int wrong = 0;
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < shape.cols; ++j) {
      double const factor = adapter.mask().factor<double>(6, x.shape(), t, j);
      wrong += std::abs(dx(t, j) - factor * through(t, j)) > 1e-12;
      wrong += (dx(t, j) == 0) != (seen(t, j) == 0);
    }
  CHECK(wrong == 0);
  auto dz = plain_product(dy.view(), adapter.b());
  for (index_t e = 0; e < dz.shape().size(); ++e) dz.data()[e] *= adapter.scale();
  CHECK(largest_difference(da.view(), plain_product(dz.view().t(), seen.view()).view()) < 1e-11);

  auto const plain = change_of_outputs(exec, adapter, matrix_view<double const>(x.view()), {.step = 6});
  CHECK(largest_difference(plain.view(), plain_product(x.view(), delta.view().t()).view()) < 1e-12);
  CHECK(largest_difference(plain.view(), y.view()) > 0.1);
}

TEST_CASE("a probability of zero draws nothing; one just below one leaves finite numbers") {
  CHECK_FALSE(dropout_mask{}.acts({.mode = pass::training}));
  CHECK_FALSE(dropout_mask{0.0F, key}.acts({.mode = pass::training}));
  dropout_mask const nearly{0.9999999F, key};
  CHECK(nearly.acts({.mode = pass::training}));
  CHECK_FALSE(nearly.acts({.mode = pass::evaluation}));
  CHECK(nearly.scale<float>() == 65536.0F);
}

TEST_SUITE_END();

}  // namespace

}  // namespace dropout_test
