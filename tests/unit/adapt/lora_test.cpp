// LoRA: where it starts, what it computes, what it costs, what it refuses.
#include <doctest/doctest.h>

#include "lowrank/adapt/lora.hpp"
#include "support/adapters.hpp"
#include "support/executors.hpp"

namespace lora_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("lora");

constexpr extents shape{24, 18};
constexpr rng_key key{.seed = 3, .step = 0, .tensor = 5};

template <class T = float, class E>
auto made(E& exec, lora const& settings, extents of = shape) {
  auto w = random_values<T>(of, 1);
  return make_adapter<T>(exec, settings, w.view(), key);
}

TEST_CASE_TEMPLATE("at first nothing changes: bit for bit with B = 0, to rounding with orthogonal halves", E,
                   LOWRANK_TEST_EXECUTORS) {
  E exec{{.threads = 2}};
  auto const x = random_matrix({7, shape.cols}, 2);
  for (auto const start : {lora_start::kaiming, lora_start::gaussian, lora_start::orthogonal}) {
    auto const adapter = made(exec, lora{.rank = 4, .start = start});
    exec.reserve(adapter.workspace_bytes(7));
    auto const base = random_matrix({7, shape.rows}, 4);
    auto y = copy_of(base.view());
    std::vector<float> kept(static_cast<std::size_t>(adapter.kept_size(7)));
    adapter.forward(exec, x.view(), kept, y.view());
    CHECK(same_bits(y, base) == (start != lora_start::orthogonal));
    CHECK(largest_difference(y.view(), base.view()) < 1e-6);
    CHECK(squared_norm_of(adapter.a()) > 0);
    CHECK((squared_norm_of(adapter.b()) > 0) == (start == lora_start::orthogonal));
  }
}

TEST_CASE("first values have the spread that is said, and other layers get others") {
  host_executor exec;
  constexpr extents wide{64, 4096};
  auto const moment = [&](lora_start start, int power) {
    auto const adapter = made(exec, lora{.rank = 16, .start = start}, wide);
    double sum = 0;
    for (index_t e = 0; e < adapter.a().size(); ++e) sum += std::pow(static_cast<double>(adapter.a().data[e]), power);
    return sum / static_cast<double>(adapter.a().size());
  };
  CHECK(moment(lora_start::kaiming, 2) * 4096 * 3 == doctest::Approx(1).epsilon(0.01));  // uniform in ±1/√n
  CHECK(moment(lora_start::kaiming, 4) * 4096 * 4096 * 5 == doctest::Approx(1).epsilon(0.02));
  CHECK(moment(lora_start::gaussian, 2) * 256 == doctest::Approx(1).epsilon(0.01));
  CHECK(std::abs(moment(lora_start::kaiming, 1)) < 3.0 / 64 / std::sqrt(3.0 * 16 * 4096));
  // A = (N Q)ᵀ / 10 with half as many normal numbers a column as rows: r/2 orthonormal rows of length r share them.
  CHECK(moment(lora_start::orthogonal, 2) * 200 == doctest::Approx(1).epsilon(0.02));
  auto w = random_matrix(shape, 1);
  auto const here = make_adapter(exec, lora{}, w.view(), key);
  auto const same = make_adapter(exec, lora{}, w.view(), key);
  auto const other = make_adapter(exec, lora{}, w.view(), {.seed = 3, .step = 0, .tensor = 6});
  CHECK(largest_difference(here.a(), same.a()) == 0);
  CHECK(largest_difference(here.a(), other.a()) > 0.01);
}

TEST_CASE("s is alpha / r, or alpha / √r; forward, add_to and factors are the same ΔW") {
  host_executor exec{{.threads = 2}};
  for (auto const rule : {scaling::rank, scaling::rank_root}) {
    auto adapter = made<double>(exec, lora{.rank = 5, .alpha = 3, .scale = rule});
    double const s = rule == scaling::rank ? 3.0 / 5 : 3 / std::sqrt(5.0);
    CHECK(adapter.scale() == doctest::Approx(s).epsilon(1e-7));
    stir(adapter, 9);
    auto wanted = plain_product(adapter.b(), adapter.a());
    for (index_t e = 0; e < shape.size(); ++e) wanted.data()[e] *= adapter.scale();
    auto const dense = change_of_weights(exec, adapter);
    CHECK(largest_difference(dense.view(), wanted.view()) < 1e-13);
    auto const pair = adapter.factors(exec);
    auto const product = plain_product(pair.left.view(), pair.right.view());
    CHECK(largest_difference(product.view(), wanted.view()) < 1e-13);
    CHECK(pair.rank() == 5);
    auto const x = random_values<double>({6, shape.cols}, 8);
    auto const y = change_of_outputs(exec, adapter, matrix_view<double const>(x.view()));
    CHECK(largest_difference(y.view(), plain_product(x.view(), wanted.view().t()).view()) < 1e-12);
  }
}

TEST_CASE_TEMPLATE("gradients are those of finite differences, with and without dropout", E, LOWRANK_TEST_EXECUTORS) {
  E exec{{.threads = 2}};
  for (float const dropout : {0.0F, 0.3F})
    for (auto const mode : {pass::training, pass::evaluation})
      for (index_t const tokens : {1, 5, 70}) {
        auto adapter = made<double>(exec, lora{.rank = 3, .alpha = 4, .dropout = dropout}, {6, 11});
        stir(adapter, 4);
        CHECK(gradient_error(exec, adapter, tokens, {.mode = mode, .step = 9}) < 1e-8);
      }
}

TEST_CASE("what is not asked for is not computed, and the rest is the same") {
  host_executor exec;
  auto adapter = made(exec, lora{.rank = 3});
  stir(adapter, 4);
  auto const x = random_matrix({5, shape.cols}, 2), dy = random_matrix({5, shape.rows}, 3);
  exec.reserve(adapter.workspace_bytes(5));
  std::vector<float> kept(15);
  matrix<float> y{5, shape.rows}, da{3, shape.cols}, db{shape.rows, 3}, dx{x.shape()}, again{x.shape()};
  adapter.forward(exec, x.view(), kept, y.view());
  std::vector<matrix_view<float>> both{da.view(), db.view()}, none;
  adapter.backward(exec, x.view(), kept, dy.view(), both, dx.view());
  CHECK(squared_norm_of(da.view()) * squared_norm_of(db.view()) > 0);
  adapter.backward(exec, x.view(), kept, dy.view(), none, again.view());
  CHECK(same_bits(dx, again));
  matrix<float> db_alone{db.shape()};
  std::vector<matrix_view<float>> second{matrix_view<float>{}, db_alone.view()};
  adapter.backward(exec, x.view(), kept, dy.view(), second, matrix_view<float>{});
  CHECK(same_bits(db, db_alone));
}

TEST_CASE("no tokens: gradients are zero") {
  host_executor exec;
  auto adapter = made(exec, lora{.rank = 3, .dropout = 0.5F});
  matrix<float> da{3, shape.cols}, db{shape.rows, 3};
  fill(exec, da.view(), 7.0F);
  fill(exec, db.view(), 7.0F);
  std::vector<matrix_view<float>> const both{da.view(), db.view()};
  matrix<float> const x{0, shape.cols}, dy{0, shape.rows};
  adapter.backward(exec, x.view(), {}, dy.view(), both, {}, {.mode = pass::training});
  CHECK(squared_norm_of(da.view()) + squared_norm_of(db.view()) == 0);
}

TEST_CASE("counts: r (m + n) numbers; GPT-2 L with r = 1 on q and v has 184 320") {
  host_executor exec;
  auto adapter = made(exec, lora{.rank = 4, .rate_ratio = 16});
  CHECK(adapter.parameter_count() == 4 * (24 + 18));
  CHECK(adapter.bytes() == 4 * adapter.parameter_count());
  CHECK(trained_bytes(adapter) == adapter.bytes());
  CHECK(adapter.kept_size(100) == 400);
  CHECK(36 * 2 * lora{.rank = 1}.parameter_count({1280, 1280}) == 184320);
  auto const [a, b] = adapter.tensors();
  CHECK(a.name == "lora_A");
  CHECK(b.name == "lora_B");
  CHECK(a.rate == 1);
  CHECK(b.rate == 16);
  auto* const place = a.values.data;
  auto const moved = std::move(adapter);
  CHECK(moved.a().data == place);
}

TEST_CASE("it takes the scratch it says, no more and no less") {
  for (float const dropout : {0.0F, 0.5F})
    for (index_t const tokens : {1, 63, 64, 200}) {
      host_executor exec;
      auto const adapter = made(exec, lora{.rank = 3, .dropout = dropout});
      host_executor tight{{.threads = 1, .scratch_bytes = adapter.workspace_bytes(tokens)}};
      auto const x = random_matrix({tokens, shape.cols}, 2);
      std::vector<float> kept(static_cast<std::size_t>(adapter.kept_size(tokens)));
      matrix<float> y{tokens, shape.rows}, dx{x.shape()}, da{3, shape.cols}, db{shape.rows, 3};
      std::vector<matrix_view<float>> const both{da.view(), db.view()};
      pass_info const info{.mode = pass::training, .step = 1};
      adapter.forward(tight, x.view(), kept, y.view(), info);
      adapter.backward(tight, x.view(), kept, y.view(), both, dx.view(), info);
      CHECK(tight.arena().peak() == adapter.workspace_bytes(tokens));
    }
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("threads");

TEST_CASE("lora: the same bits on any number of threads") {
  auto const run = [](int threads) {
    host_executor exec{{.threads = threads}};
    auto adapter = made(exec, lora{.rank = 4, .dropout = 0.2F}, {96, 130});
    stir(adapter, 4);
    exec.reserve(adapter.workspace_bytes(150));
    auto const x = random_matrix({150, 130}, 2);
    std::vector<float> kept(600);
    matrix<float> y{150, 96}, dx{x.shape()}, da{4, 130}, db{96, 4};
    std::vector<matrix_view<float>> const both{da.view(), db.view()};
    pass_info const info{.mode = pass::training, .step = 3};
    adapter.forward(exec, x.view(), kept, y.view(), info);
    adapter.backward(exec, x.view(), kept, y.view(), both, dx.view(), info);
    std::vector<float> all;
    for (auto const* each : {&y, &dx, &da, &db})
      all.insert(all.end(), each->data(), each->data() + each->shape().size());
    return all;
  };
  auto const one = run(1);
  CHECK(one == run(2));
  CHECK(one == run(5));
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("lora");

TEST_CASE("what cannot be meant is refused, and the tensor named") {
  host_executor exec;
  CHECK_THROWS_AS(lora{.rank = 0}.check(shape), shape_error);
  CHECK_THROWS_AS(lora{.rank = 19}.check(shape), shape_error);
  CHECK_THROWS_AS(lora{.alpha = 0}.check(shape), argument_error);
  CHECK_THROWS_AS((lora{.rank = 3, .start = lora_start::orthogonal}.check(shape)), argument_error);
  for (float const bad : {-0.1F, 1.0F, std::numeric_limits<float>::quiet_NaN()})
    CHECK_THROWS_AS(lora{.dropout = bad}.check(shape), argument_error);
  for (float const bad : {0.5F, std::numeric_limits<float>::infinity()})
    CHECK_THROWS_AS(lora{.rate_ratio = bad}.check(shape), argument_error);
  auto w = random_matrix(shape, 1);
  w(2, 3) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS((void)make_adapter(exec, lora{}, w.view(), key), argument_error);
  CHECK_THROWS_WITH_AS(naming("model.layers.3.q_proj", [&] { (void)make_adapter(exec, lora{}, w.view(), key); }),
                       doctest::Contains("\"model.layers.3.q_proj\": lowrank::make_adapter: needs finite weights"),
                       argument_error);

  auto const adapter = made(exec, lora{.rank = 3});
  exec.reserve(adapter.workspace_bytes(5));
  matrix<float> const x{5, 18}, dy{5, 24};
  matrix<float> y{5, 24}, wrong{5, 23}, da{3, 18};
  std::vector<float> kept(15);
  CHECK_THROWS_AS(adapter.forward(exec, x.view(), kept, wrong.view()), shape_error);
  CHECK_THROWS_AS(adapter.forward(exec, x.view(), std::span{kept}.first(14), y.view()), shape_error);
  std::vector<matrix_view<float>> const swapped{da.view(), da.view()}, one{da.view()};
  CHECK_THROWS_WITH_AS(adapter.backward(exec, x.view(), kept, dy.view(), swapped, {}),
                       doctest::Contains("needs the gradient of lora_B of 24x3, got 3x18"), shape_error);
  CHECK_THROWS_AS(adapter.backward(exec, x.view(), kept, dy.view(), one, {}), shape_error);
  CHECK_THROWS_AS(adapter.backward(exec, x.view(), kept, wrong.view(), {}, {}), shape_error);
  CHECK_THROWS_AS(adapter.add_to(exec, 1, y.view()), shape_error);
}

TEST_SUITE_END();

}  // namespace

}  // namespace lora_test
