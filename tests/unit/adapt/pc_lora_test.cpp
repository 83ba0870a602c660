#include "lowrank/adapt/pc_lora.hpp"

#include <doctest/doctest.h>

#include "lowrank/adapt/distillation.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace pc_lora_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

using adapt::decay_form;
using adapt::pc_lora;
using adapt::pc_lora_layer;

matrix<double> wide(extents shape, std::uint64_t seed) {
  matrix<double> out{shape};
  for (index_t e = 0; e < shape.size(); ++e)
    out.data()[e] = static_cast<double>(gaussian({.seed = seed}, static_cast<std::uint64_t>(e)));
  return out;
}
std::vector<double> wide_row(index_t count, std::uint64_t seed) {
  auto const row = wide({1, count}, seed);
  return {row.data(), row.data() + count};
}
template <class T>
void run(host_executor& exec, pc_lora_layer<T> const& layer, matrix_view<T const> x, std::vector<T>& kept,
         matrix_view<T> y) {
  exec.reserve(layer.workspace_bytes(x.rows));
  kept.assign(static_cast<std::size_t>(layer.kept_size(x.rows)), T{});
  layer.forward(exec, x, kept, y);
}

}  // namespace

TEST_SUITE("PC-LoRA") {
  TEST_CASE("decay schedules") {
    auto const share = [](decay_form form, index_t t, index_t period = 1) {
      adapt::decay_schedule const decay{.updates = 8, .form = form, .period = period};
      decay.check();
      return decay.share(t);
    };
    for (auto const form : {decay_form::sine, decay_form::cosine, decay_form::linear, decay_form::step}) {
      CHECK(share(form, 0) == 1);
      CHECK(share(form, 8) == 0);
      CHECK(share(form, 1000) == 0);
      CHECK(share(form, 7) > 0);
      for (index_t t = 0; t < 8; ++t) CHECK(share(form, t + 1) <= share(form, t));
    }
    CHECK(share(decay_form::sine, 4) == doctest::Approx(1 - std::sqrt(0.5)));
    CHECK(share(decay_form::cosine, 4) == doctest::Approx(std::sqrt(0.5)));
    CHECK(share(decay_form::linear, 2) == 0.75);
    CHECK(share(decay_form::step, 7) == 1);
    CHECK(share(decay_form::linear, 3, 2) == 0.75);  // renewed every other update
    CHECK(share(decay_form::linear, 4, 2) == 0.5);
    CHECK_THROWS_AS((adapt::decay_schedule{.updates = 0}.check()), argument_error);
    CHECK_THROWS_AS((adapt::decay_schedule{.period = 0}.check()), argument_error);
    CHECK_THROWS_AS((adapt::decay_schedule{.form = static_cast<decay_form>(9)}.check()), argument_error);
  }

  TEST_CASE("at first the student is the dense layer: bit for bit, from an SVD to rounding") {
    host_executor exec{{.threads = 2}};
    auto const w = random_matrix({9, 14}, 1), x = random_matrix({6, 14}, 2);
    std::vector<float> const bias{1, 2, 3, 4, 5, 6, 7, 8, 9};
    matrix<float> dense{6, 9}, y{6, 9};
    multiply(exec, 1.0F, x.view(), w.view().t(), 0.0F, dense.view());
    lowrank::detail::add_to_rows<host_executor, float>(exec, bias, dense.view());
    std::vector<float> kept;
    pc_lora_layer<float> const plain{exec, {.rank = 3}, w.view(), bias, {.seed = 3}};
    run<float>(exec, plain, x.view(), kept, y.view());
    CHECK(same_bits(y, dense));

    pc_lora_layer<float> svd{
        exec, {.rank = 3, .alpha = 5, .start = adapt::pc_lora_start::truncated_svd}, w.view(), bias, {.seed = 3}};
    run<float>(exec, svd, x.view(), kept, y.view());
    CHECK(largest_difference(y.view(), dense.view()) <= 1e-4);
    // Without its base it is the best approximation of rank 3, not nothing.
    svd.advance(svd.settings().decay.updates);
    auto const left = svd.finish(exec);
    matrix<float> again{w.shape()}, u{9, 9}, v{14, 9};
    merge(exec, left.view(), again.view());
    std::vector<double> values(9);
    exact_svd(exec, matrix_view<float const>(w.view()), {.u = u.view(), .values = values.data(), .v = v.view()});
    double lost = 0;
    for (index_t e = 0; e < w.shape().size(); ++e)
      lost += std::pow(static_cast<double>(w.data()[e]) - static_cast<double>(again.data()[e]), 2);
    CHECK(lost == doctest::Approx(energy(values, 3, 9)).epsilon(1e-3));
  }

  TEST_CASE("gradients are those of finite differences at every share, in fp64, and the base has none") {
    host_executor exec{{.threads = 2}};
    for (extents const shape : {extents{7, 5}, extents{5, 9}})
      for (index_t const update : {0, 3, 8}) {
        CAPTURE(update);
        auto const w = wide(shape, 1);
        auto const bias = wide_row(shape.rows, 2);
        pc_lora_layer<double> layer{exec, {.rank = 3, .alpha = 2, .decay = {.updates = 8}}, w.view(), bias, {}};
        std::uint64_t seed = 20;
        for (auto const& one : layer.tensors()) {
          auto const values = wide(one.values.shape(), seed++);
          copy(exec, values.view(), one.values);
        }
        layer.advance(update);
        auto x = wide({6, shape.cols}, 10);
        auto const dy = wide({6, shape.rows}, 11);
        auto const loss = [&] {
          matrix<double> y{6, shape.rows};
          std::vector<double> kept;
          run<double>(exec, layer, x.view(), kept, y.view());
          double sum = 0;
          for (index_t e = 0; e < y.shape().size(); ++e) sum += dy.data()[e] * y.data()[e];
          return sum;
        };
        auto const slope = [&](double& number) {
          double const at = number;
          number = at + 0.5;
          double const above = loss();
          number = at - 0.5;
          double const below = loss();
          number = at;
          return above - below;
        };
        matrix<double> y{6, shape.rows}, dx = wide(x.shape(), 30), da{3, shape.cols}, db{shape.rows, 3},
                                         d_bias{1, shape.rows};
        std::vector<double> kept;
        run<double>(exec, layer, x.view(), kept, y.view());
        std::array const gradients{da.view(), db.view(), d_bias.view()};
        layer.backward(exec, x.view(), kept, dy.view(), gradients, dx.view());
        std::size_t number = 0;
        for (auto const& one : layer.tensors()) {
          CAPTURE(one.name);
          for (index_t i = 0; i < one.values.rows; ++i)
            for (index_t j = 0; j < one.values.cols; ++j)
              CHECK(gradients[number](i, j) == doctest::Approx(slope(one.values(i, j))).epsilon(1e-9));
          ++number;
        }
        for (index_t e = 0; e < x.shape().size(); ++e)
          CHECK(dx.data()[e] == doctest::Approx(slope(x.data()[e])).epsilon(1e-9));
      }
  }

  TEST_CASE("the base goes when its share is 0, and the pair is the layer") {
    host_executor exec{{.threads = 2}};
    extents const shape{9, 14};
    auto const w = random_matrix(shape, 1), x = random_matrix({6, 14}, 2);
    std::vector<float> const bias{1, 2, 3, 4, 5, 6, 7, 8, 9};
    pc_lora_layer<float> layer{exec, {.rank = 3, .alpha = 5, .decay = {.updates = 4}}, w.view(), bias, {}};
    for (auto const& one : layer.tensors()) one.values(0, 0) += 1;
    CHECK(layer.parameter_count() == 3 * (9 + 14) + 9);
    CHECK(layer.bytes() == 4 * (layer.parameter_count() + shape.size()));
    layer.advance(3);
    CHECK(layer.has_base());
    CHECK(layer.share() == doctest::Approx(1 - std::sin(3 * std::acos(-1.0) / 8)));
    CHECK_THROWS_AS(std::ignore = layer.finish(exec), state_error);
    layer.advance(2);  // a share can come back as long as there is something to share
    layer.advance(4);
    CHECK_FALSE(layer.has_base());
    CHECK(layer.bytes() == 4 * layer.parameter_count());
    CHECK_THROWS_AS(layer.advance(3), state_error);
    CHECK(layer.share() == 0);

    std::vector<float> kept;
    matrix<float> y{6, 9}, z{6, 3}, other{6, 9};
    fill(exec, y.view(), 100.0F);
    run<float>(exec, layer, x.view(), kept, y.view());
    auto const pair = layer.finish(exec);
    CHECK(pair.parameters() == layer.parameter_count());
    forward(exec, pair.view(), x.view(), z.view(), other.view());
    CHECK(largest_difference(y.view(), other.view()) <= 1e-5);
    CHECK(pair.bias == std::vector<float>{2, 2, 3, 4, 5, 6, 7, 8, 9});
  }

  TEST_CASE("the teacher's memory is not the student's: training and dropping leave it alone") {
    host_executor exec{{.threads = 2}};
    auto const w = random_matrix({9, 14}, 1);
    auto const teacher = copy_of(w.view());
    pc_lora_layer<float> student{exec,
                                 {.rank = 3, .start = adapt::pc_lora_start::truncated_svd, .decay = {.updates = 1}},
                                 teacher.view(),
                                 {},
                                 {}};
    for (auto const& one : student.tensors()) fill(exec, one.values, 3.0F);
    student.advance(1);
    CHECK(same_bits(teacher, w));
  }

  TEST_CASE("what is refused") {
    host_executor exec{{.threads = 1}};
    auto w = random_matrix({9, 14}, 1);
    std::vector<float> const bias(8);
    auto const make = [&](pc_lora const& settings, std::span<float const> b) {
      pc_lora_layer<float> const layer{exec, settings, w.view(), b, {}};
    };
    CHECK_THROWS_AS(make({.rank = 3}, bias), shape_error);
    CHECK_THROWS_AS(make({.rank = 10}, {}), shape_error);
    CHECK_THROWS_AS(make({.rank = 3, .alpha = -1}, {}), argument_error);
    CHECK_THROWS_AS(make({.rank = 3, .decay = {.updates = 0}}, {}), argument_error);
    w(3, 3) = std::numeric_limits<float>::infinity();
    CHECK_THROWS_AS(make({.rank = 3}, {}), argument_error);
  }
}

TEST_SUITE("feature distillation") {
  TEST_CASE("the gradient of the feature loss is a real one") {
    host_executor exec{{.threads = 2}};
    auto student = wide({5, 7}, 1), gradient = wide({5, 7}, 3);
    auto const teacher = wide({5, 7}, 2), before = wide({5, 7}, 3);
    adapt::distillation const mix{.task_share = 0.25F};
    CHECK(mix.task_weight() + 3 * mix.feature_weight(3) == doctest::Approx(1));
    double const weight = mix.feature_weight(3);
    double const loss =
        adapt::add_feature_loss<host_executor, double>(exec, student.view(), teacher.view(), weight, gradient.view());
    double expected = 0;
    for (index_t e = 0; e < 35; ++e) expected += std::pow(student.data()[e] - teacher.data()[e], 2) / 35;
    CHECK(loss == doctest::Approx(expected));
    auto const value = [&] {
      return adapt::add_feature_loss<host_executor, double>(exec, student.view(), teacher.view(), weight, {});
    };
    for (index_t e = 0; e < 35; ++e) {
      double& number = student.data()[e];
      double const at = number;
      number = at + 0.5;
      double const above = value();
      number = at - 0.5;
      double const below = value();
      number = at;
      CHECK(gradient.data()[e] - before.data()[e] == doctest::Approx(weight * (above - below)).epsilon(1e-9));
    }
    CHECK_THROWS_AS((adapt::distillation{.task_share = 1.5F}.check()), argument_error);
  }

  TEST_CASE("a student of rank r that distils learns its teacher's outputs") {
    host_executor exec{{.threads = 2}};
    extents const shape{12, 10};
    auto const w = with_spectrum(shape, {3, 2}, 4), x = random_matrix({64, 10}, 5);
    matrix<float> wanted{64, 12}, y{64, 12}, dy{64, 12}, da{2, 10}, db{12, 2};
    multiply(exec, 1.0F, x.view(), w.view().t(), 0.0F, wanted.view());
    constexpr index_t updates = 400;
    pc_lora_layer<float> layer{exec, {.rank = 2, .alpha = 2, .decay = {.updates = updates / 2}}, w.view(), {}, {}};
    std::array const gradients{da.view(), db.view()};
    std::vector<float> kept;
    double loss = 0;
    for (index_t t = 0; t <= updates; ++t) {
      layer.advance(t);
      run<float>(exec, layer, x.view(), kept, y.view());
      fill(exec, dy.view(), 0.0F);
      loss = adapt::add_feature_loss<host_executor, float>(exec, y.view(), wanted.view(), 1.0, dy.view());
      layer.backward(exec, x.view(), kept, dy.view(), gradients, {});
      std::size_t number = 0;
      for (auto const& one : layer.tensors()) axpy(exec, -1.0F, gradients[number++], one.values);
    }
    CHECK_FALSE(layer.has_base());
    CHECK(loss < 1e-6);
  }
}

}  // namespace pc_lora_test
