// A frozen matrix and adapters that take turns on it.
#include <doctest/doctest.h>

#include "lowrank/adapt/adapted_linear.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/lora_xs.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "support/adapters.hpp"

namespace adapted_linear_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("adapted linear");

constexpr extents shape{20, 32};
constexpr index_t tokens = 6;
constexpr std::array formats{frozen_format::fp32, frozen_format::bf16, frozen_format::int8, frozen_format::nf4};
using lora_layer = adapted_linear<lora_adapter<float>>;

lora_adapter<float> trained(std::uint64_t seed, index_t rank = 3) {
  lora_adapter<float> out{{.rank = rank, .alpha = 2}, shape};
  stir(out, seed, 0.3);
  return out;
}
template <class E>
lora_layer made(E& exec, frozen_format format) {
  auto const w = random_matrix(shape, 1);
  lora_layer out{"blocks.7.down", frozen_matrix{exec, w.view(), format}};
  out.add("one", trained(10));
  out.add("two", trained(20, 5));
  return out;
}
template <class E, class Layer>
matrix<float> outputs(E& exec, Layer const& layer, matrix_view<float const> x) {
  exec.reserve(layer.workspace_bytes(x.rows));
  std::vector<float> kept(static_cast<std::size_t>(layer.kept_size(x.rows)));
  matrix<float> y{x.rows, layer.shape().rows};
  layer.forward(exec, x, kept, y.view());
  return y;
}
template <class E>
matrix<float> dense_of(E& exec, frozen_matrix const& w) {
  exec.reserve(w.workspace_bytes());
  matrix<float> out{w.shape()};
  w.dense(exec, out.view());
  return out;
}

TEST_CASE("a fresh adapter leaves the outputs as they are, bit for bit, in every format") {
  host_executor exec{{.threads = 2}};
  auto const x = random_matrix({tokens, shape.cols}, 2);
  auto w = random_matrix(shape, 1);
  for (auto const format : formats) {
    auto layer = made(exec, format);
    auto const base = outputs(exec, layer, x.view());
    layer.add("fresh", make_adapter(exec, lora{.rank = 4}, w.view(), {.seed = 1}));
    layer.select("fresh");
    CHECK(same_bits(outputs(exec, layer, x.view()), base));
  }
}

TEST_CASE("adapters are switched without touching the base") {
  host_executor exec{{.threads = 2}};
  auto const x = random_matrix({tokens, shape.cols}, 2);
  for (auto const format : formats) {
    auto layer = made(exec, format);
    auto const w = dense_of(exec, layer.base());
    auto const base = outputs(exec, layer, x.view());
    CHECK(layer.kept_size(tokens) == 0);
    for (auto const& [name, seed, rank] : {std::tuple{"one", 10, 3}, {"two", 20, 5}, {"one", 10, 3}}) {
      layer.select(name);
      CHECK(layer.kept_size(tokens) == tokens * rank);
      auto wanted = copy_of(base.view());
      auto const change = change_of_outputs(exec, trained(static_cast<std::uint64_t>(seed), rank), x.view());
      axpy(exec, 1.0F, change.view(), wanted.view());
      CHECK(largest_difference(outputs(exec, layer, x.view()).view(), wanted.view()) < 1e-5);
    }
    layer.select_none();
    CHECK(same_bits(outputs(exec, layer, x.view()), base));
    CHECK(same_bits(dense_of(exec, layer.base()), w));
  }
}

TEST_CASE("backward: the adapter's gradients, and dX through what the codes stand for") {
  host_executor exec{{.threads = 2}};
  auto const x = random_matrix({tokens, shape.cols}, 2), dy = random_matrix({tokens, shape.rows}, 3);
  for (auto const format : formats) {
    auto layer = made(exec, format);
    auto const w = dense_of(exec, layer.base());
    layer.select("two");
    exec.reserve(layer.workspace_bytes(tokens));
    std::vector<float> kept(static_cast<std::size_t>(layer.kept_size(tokens)));
    matrix<float> y{tokens, shape.rows}, da{5, shape.cols}, db{shape.rows, 5}, alone_a{5, shape.cols}, none{x.shape()};
    auto dx = random_matrix(x.shape(), 4);
    auto const before = copy_of(dx.view());
    layer.forward(exec, x.view(), kept, y.view());
    std::vector<matrix_view<float>> const gradients{da.view(), db.view()}, first{alone_a.view(), {}};
    layer.backward(exec, x.view(), kept, dy.view(), gradients, 1.0F, dx.view());
    auto whole = copy_of(w.view());
    layer.adapter("two").add_to(exec, 1, whole.view());
    auto wanted = plain_product(dy.view(), whole.view());
    for (index_t e = 0; e < x.shape().size(); ++e) wanted.data()[e] += static_cast<double>(before.data()[e]);
    CHECK(largest_difference(dx.view(), wanted.view()) < 1e-4);
    // Without dX the rest is the same; with keep = 0 what was there is not read.
    layer.backward(exec, x.view(), kept, dy.view(), first, 0.0F, {});
    CHECK(same_bits(alone_a, da));
    fill(exec, none.view(), std::numeric_limits<float>::quiet_NaN());
    layer.backward(exec, x.view(), kept, dy.view(), {}, 0.0F, none.view());
    CHECK(largest_difference(none.view(), plain_product(dy.view(), whole.view()).view()) < 1e-4);
  }
}

TEST_CASE("merged, it computes the same; taken back, it is what it was, bit for bit") {
  host_executor exec{{.threads = 2}};
  auto const x = random_matrix({tokens, shape.cols}, 2);
  for (auto const format : formats) {
    auto layer = made(exec, format);
    auto const w = dense_of(exec, layer.base());
    index_t const alone = layer.bytes();
    layer.select("one");
    auto const apart = outputs(exec, layer, x.view());
    auto const report = layer.merge(exec);
    CHECK(layer.merged() == "one");
    CHECK(layer.selected() == nullptr);
    CHECK(layer.bytes() == alone + layer.base().bytes());
    double const bound = 1e-4 + report.error * std::sqrt(squared_norm_of(x.view()));
    CHECK(largest_difference(outputs(exec, layer, x.view()).view(), apart.view()) < bound);
    if (format == frozen_format::fp32) CHECK(report.relative() < 1e-6);
    CHECK_THROWS_AS(layer.select("two"), state_error);
    CHECK_THROWS_AS(layer.select_none(), state_error);
    CHECK_THROWS_AS((void)layer.merge(exec), state_error);
    CHECK_THROWS_AS((void)layer.remove("one"), state_error);
    layer.unmerge();
    CHECK(same_bits(dense_of(exec, layer.base()), w));
    CHECK(same_bits(outputs(exec, layer, x.view()), apart));
    CHECK(layer.bytes() == alone);
    CHECK_THROWS_AS(layer.unmerge(), state_error);
    (void)layer.merge(exec, merged_original::dropped);
    CHECK(layer.bytes() == alone);
    CHECK_THROWS_WITH_AS(
        layer.unmerge(),
        doctest::Contains("\"blocks.7.down\" cannot take back \"one\": the original matrix was not kept"), state_error);
  }
}

TEST_CASE("names: listed, taken out, refused with the layer's own") {
  host_executor exec;
  auto layer = made(exec, frozen_format::bf16);
  CHECK(layer.names() == std::vector<std::string_view>{"one", "two"});
  CHECK(layer.bytes() == layer.base().bytes() + 4 * (3 + 5) * (20 + 32));
  layer.select("two");
  CHECK(layer.remove("one").rank() == 3);
  CHECK(layer.selected() == &layer.adapter("two"));
  (void)layer.remove("two");
  CHECK(layer.selected() == nullptr);
  CHECK(layer.names().empty());
  layer.add("three", trained(1));
  CHECK_THROWS_WITH_AS(layer.select("one"), doctest::Contains("\"blocks.7.down\" has no adapter \"one\" but three"),
                       argument_error);
  CHECK_THROWS_AS(layer.add("three", trained(1)), argument_error);
  CHECK_THROWS_AS(layer.add("", trained(1)), argument_error);
  CHECK_THROWS_WITH_AS(layer.add("wrong", lora_adapter<float>{lora{.rank = 2}, extents{20, 31}}),
                       doctest::Contains("\"blocks.7.down\" is 20x32, adapter \"wrong\" is for 20x31"), shape_error);
  CHECK(layer.names() == std::vector<std::string_view>{"three"});
  CHECK_THROWS_AS((void)layer.merge(exec), state_error);
  auto const x = random_matrix({tokens, 31}, 2);
  matrix<float> y{tokens, 20};
  CHECK_THROWS_WITH_AS(layer.forward(exec, x.view(), {}, y.view()), doctest::Contains("\"blocks.7.down\": "),
                       shape_error);
}

TEST_CASE("adapters of another method") {
  host_executor exec;
  auto w = random_matrix(shape, 1);
  adapted_linear<lora_xs_adapter<float>> layer{"x", frozen_matrix{exec, w.view(), frozen_format::int8}};
  layer.add("core", make_adapter(exec, lora_xs{.rank = 4}, w.view(), {}));
  layer.select("core");
  stir(layer.adapter("core"), 3);
  auto const x = random_matrix({tokens, shape.cols}, 2);
  auto sum = dense_of(exec, layer.base());
  layer.adapter("core").add_to(exec, 1, sum.view());
  CHECK(largest_difference(outputs(exec, layer, x.view()).view(), plain_product(x.view(), sum.view().t()).view()) <
        1e-3);
}

TEST_SUITE_END();

}  // namespace

}  // namespace adapted_linear_test
