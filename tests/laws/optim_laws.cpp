// What every composition must obey: the form of the gradient, the side, the order of adding up and the kind of weight do
// not matter; sizes are what was promised; nothing is allocated; a saved state goes on as if nothing had happened.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "support/allocation_counter.hpp"
#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace optim_laws {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("optimizer laws");

struct configuration {
  std::string name, options;
};
/// A composition of every kind, with a refresh in the middle of a short run.
std::vector<configuration> every_kind() {
  return {
      {"galore_adamw", "rank=6, update_proj_gap=3"},
      {"galore_adamw", "rank=6, update_proj_gap=3, basis_format=bf16, transport=reset"},
      {"galore_adamw", "rank=6, update_proj_gap=3, proj_type=full, measure=every_step"},
      {"galore_adamw", "rank=5, update_proj_gap=2, proj_type=full, basis_format=bf16, finder=stiefel"},
      {"galore_adamw", "rank=6, update_proj_gap=3, proj_type=reverse_std, finder=stiefel, measure=at_refresh"},
      {"galore_adafactor", "rank=6, update_proj_gap=3"},
      {"galore_adafactor", "rank=6, update_proj_gap=3, beta1=0.9, scale_parameter=true"},
      {"galore_sgd", "rank=6, update_proj_gap=3, momentum=0.9, power_iterations=0, sketch=gaussian"},
      {"galore_lion", "rank=99, update_proj_gap=3, oversampling=0, proj_type=left"},
      {"galore_adamw", "rank=6, update_proj_gap=2, finder=warm"},
      {"galore_adamw",
       "rank=6, update_proj_gap=2, finder=warm, passes=1, fresh=0, order=by_energy, align=nearest, transport=rotate"},
      {"galore_adamw",
       "rank=6, update_proj_gap=1, finder=tracked, power_iterations=0, oversampling=0, basis_format=bf16, "
       "transport=rotate, unknown_variance=zero"},
      {"galore_adamw",
       "rank=5, update_proj_gap=2, finder=tracked, fresh=3, align=signs, proj_type=full, transport=rotate"},
      {"galore_sgd",
       "rank=6, update_proj_gap=1, momentum=0.9, finder=warm, cheap=momentum, hold=0.99, measure=at_refresh"},
      {"galore_lion",
       "rank=6, update_proj_gap=1, finder=warm, proj_type=full, restart_every=2, refresh=lazy, queue_size=2, "
       "cos_threshold=0.01, transport=rotate"},
      {"galore_adafactor", "rank=6, finder=tracked, refresh=energy, settle=1, smoothing=0, longest_gap=3"},
      {"galore_adamw", "rank=6, finder=warm, fresh=2, refresh=staggered, update_proj_gap=2"},
      {"galore_adamw", "rank=6, finder=warm, refresh=budget, share=1, tokens=4, transport=rotate"},
      {"galore_adamw",
       "rank=16, update_proj_gap=1, finder=warm, energy_rank=0.4, least_rank=1, rank_multiple=1, transport=rotate"},
      {"galore_sgd",
       "rank=16, update_proj_gap=2, finder=tracked, energy_rank=0.4, least_rank=1, rank_multiple=1, "
       "proj_type=full, basis_format=bf16"},
      {"galore_lion",
       "rank=16, finder=warm, fresh=0, refresh=energy, settle=1, longest_gap=2, energy_rank=0.5, least_rank=2, "
       "rank_multiple=2, proj_type=reverse_std"},
      {"galore_adamw_8bit", "rank=6, update_proj_gap=3, transport=rotate, basis_format=int8"},
      {"galore_adamw",
       "rank=6, update_proj_gap=2, finder=stiefel, proj_type=full, basis_format=int4, transport=rotate"},
      {"q_galore_adamw_8bit", "rank=6, update_proj_gap=2, finder=randomized, queue_size=2, cos_threshold=0.01"}};
}
/// Whether a short run goes through every phase at full rank, so that it takes all the scratch that was asked for.
bool goes_through_all(configuration const& c) {
  for (std::string const rare : {"energy_rank", "budget", "staggered", "cheap"})
    if (c.options.find(rare) != std::string::npos) return false;
  return true;
}
std::vector<configuration> every_full_rank() {
  return {{"adamw", ""},
          {"adam", ""},
          {"sgd", ""},
          {"sgd", "momentum=0.9, nesterov=true"},
          {"lion", ""},
          {"adafactor", ""},
          {"adafactor", "beta1=0.9, scale_parameter=true"},
          {"adamw_8bit", ""},
          {"adamw_4bit_torchao", ""},
          {"adamw_fp8_torchao", ""}};
}

/// A weight in each of its formats over memory of its own.
struct weights {
  matrix<float> values;
  matrix<bf16> narrow;
  matrix<fp16> half;
  blockwise<codec::affine<8>> codes;

  explicit weights(extents shape)
      : values{random_matrix(shape, 1)}, narrow{shape}, half{shape}, codes{{1, shape.size()}} {
    for (index_t e = 0; e < shape.size(); ++e) narrow.data()[e] = to_bf16(values.data()[e]);
    for (index_t e = 0; e < shape.size(); ++e) half.data()[e] = to_fp16(values.data()[e]);
  }
  std::vector<any_weight<host_executor>> all() {
    return {fp32_weight<>{values.view()},
            bf16_weight<>{narrow.view()},
            bf16_weight<>{narrow.view(), weight_rounding::nearest},
            master_weight<bf16>{narrow.view(), values.view()},
            master_weight<fp16>{half.view(), values.view()},
            as_weight(codes, values.shape())};
  }
};

/// dY and X over T tokens, and the gradient they stand for.
struct linear_layer {
  matrix<float> output_gradient, input, dense;

  linear_layer(extents shape, index_t tokens, index_t step)
      : output_gradient{random_matrix({tokens, shape.rows}, 500 + static_cast<std::uint64_t>(step))},
        input{random_matrix({tokens, shape.cols}, 900 + static_cast<std::uint64_t>(step))},
        dense{shape} {
    auto const g = plain_product(read(output_gradient).t(), read(input));
    for (index_t e = 0; e < shape.size(); ++e) dense.data()[e] = static_cast<float>(g.data()[e]);
  }
  [[nodiscard]] outer_product<> factored() const { return {read(output_gradient), read(input)}; }
};

TEST_CASE("dense and factored gradients give the same trajectory to rounding") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  extents const shape{30, 44};
  for (std::string const options :
       {"finder=stiefel", "finder=stiefel, proj_type=full", "finder=stiefel, proj_type=right", "finder=randomized",
        "finder=randomized, proj_type=full", "finder=randomized, basis_format=bf16"})
    for (index_t const tokens : {1, 3, 70}) {
      CAPTURE(options);
      CAPTURE(tokens);
      // Few tokens leave a basis of rank 8 to chance, and rounding decides which: then the basis is one that looks at nothing.
      if (options.find("randomized") != std::string::npos && tokens < 8) continue;
      auto const all =
          "rank=8, momentum=0.9, scale=1, update_proj_gap=3, measure=every_step, power_iterations=4, " + options;
      auto const chosen = options.find("stiefel") != std::string::npos
                              ? "rank=8, momentum=0.9, scale=1, update_proj_gap=3, measure=every_step, " + options
                              : all;
      auto a = make_named(exec, "galore_sgd", chosen, shape), b = make_named(exec, "galore_sgd", chosen, shape);
      auto const start = random_matrix(shape, 1);
      auto w = copy_of(read(start)), v = copy_of(read(start));
      for (index_t k = 0; k < 7; ++k) {
        linear_layer const layer{shape, tokens, k};
        REQUIRE(a->step(exec, fp32_weight<>{w.view()}, read(layer.dense), {.learning_rate = 0.01F}) ==
                step_status::stepped);
        REQUIRE(b->step(exec, fp32_weight<>{v.view()}, layer.factored(), {.learning_rate = 0.01F}) ==
                step_status::stepped);
        CHECK(a->captured() == doctest::Approx(b->captured()).epsilon(1e-4));
      }
      CHECK(relative_deviation(w, v, start) < (options.find("bf16") != std::string::npos ? 2e-2 : 2e-4));
    }
}

TEST_CASE("left on a matrix is right on its transpose") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  for (auto const& [name, options] : std::vector<configuration>{
           {"galore_adamw", "eps=0.01"}, {"galore_sgd", "momentum=0.9"}, {"galore_adafactor", ""}})
    for (std::string const finder : {"stiefel", "randomized, power_iterations=3"}) {
      CAPTURE(name);
      CAPTURE(finder);
      extents const shape{26, 40};
      auto const all =
          options + (options.empty() ? "" : ", ") + "rank=26, update_proj_gap=100, scale=1, finder=" + finder;
      auto a = make_named(exec, name, all + ", proj_type=left", shape),
           b = make_named(exec, name, all + ", proj_type=right", shape.t());
      auto const start = random_matrix(shape, 1);
      auto w = copy_of(read(start)), v = copy_of(read(start).t());
      for (index_t k = 0; k < 6; ++k) {
        auto const g = gradient_of_step(shape, k), h = copy_of(read(g).t());
        a->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 0.01F, .weight_decay = 0.1F});
        b->step(exec, fp32_weight<>{v.view()}, read(h), {.learning_rate = 0.01F, .weight_decay = 0.1F});
      }
      CHECK(relative_deviation(w, copy_of(read(v).t()), start) < 1e-3);
      // The same through a flipped view: only the layout in memory differs.
      auto c = make_named(exec, name, all + ", proj_type=left", shape);
      matrix<float> flipped = copy_of(read(start).t());
      for (index_t k = 0; k < 6; ++k) {
        auto const h = copy_of(read(gradient_of_step(shape, k)).t());
        c->step(exec, fp32_weight<>{flipped.view().t()}, read(h).t(), {.learning_rate = 0.01F, .weight_decay = 0.1F});
      }
      CHECK(relative_deviation(w, copy_of(read(flipped).t()), start) < 1e-3);
    }
}

TEST_CASE("views with gaps give what packed ones give") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  extents const shape{26, 40};
  for (std::string const type : {"left", "right", "full"}) {
    auto const options = "rank=7, eps=0.01, finder=stiefel, proj_type=" + type;
    auto a = make_named(exec, "galore_adamw", options, shape), b = make_named(exec, "galore_adamw", options, shape);
    auto const start = random_matrix(shape, 1);
    auto w = copy_of(read(start));
    strided_copy gaps{read(start)};
    for (index_t k = 0; k < 5; ++k) {
      auto const g = gradient_of_step(shape, k);
      strided_copy spread{read(g)};
      a->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 0.01F, .weight_decay = 0.1F});
      b->step(exec, fp32_weight<>{gaps.view()}, matrix_view<float const>(spread.view()),
              {.learning_rate = 0.01F, .weight_decay = 0.1F});
    }
    CHECK(relative_deviation(copy_of(gaps.view()), w, start) < 1e-4);
  }
}

TEST_CASE("four micro-batches in the subspace are one step on their sum") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  extents const shape{26, 40};
  for (std::string const type : {"left", "right", "full"})
    for (bool const factored : {false, true}) {
      CAPTURE(type);
      CAPTURE(factored);
      auto const options = "rank=7, momentum=0.9, finder=stiefel, update_proj_gap=3, proj_type=" + type;
      auto a = make_named(exec, "galore_sgd", options, shape);
      auto b = make_named(exec, "galore_sgd", options + ", accumulate=projected", shape);
      auto const start = random_matrix(shape, 1);
      auto w = copy_of(read(start)), v = copy_of(read(start));
      step_options const o{.learning_rate = 0.01F, .weight_decay = 0.1F, .grad_scale = 0.25F};
      for (index_t k = 0; k < 7; ++k) {
        matrix<float> sum{shape};
        for (index_t part = 0; part < 4; ++part) {
          linear_layer const layer{shape, 5, 4 * k + part};
          for (index_t e = 0; e < shape.size(); ++e) sum.data()[e] += layer.dense.data()[e];
          if (factored) b->accumulate(exec, layer.factored());
          else b->accumulate(exec, read(layer.dense));
        }
        CHECK(a->step(exec, fp32_weight<>{w.view()}, read(sum), o) == step_status::stepped);
        CHECK(b->step_accumulated(exec, fp32_weight<>{v.view()}, o) == step_status::stepped);
      }
      CHECK(relative_deviation(v, w, start) < 5e-5);
      CHECK(values_of<index_t>(*b, "calls") == std::vector<index_t>{7});
      CHECK(b->refreshes() == 3);
    }
}

TEST_CASE("a basis is asked for once a step, and the call it belongs to counts steps, not micro-batches") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  extents const shape{12, 20};
  std::vector<index_t> asked;
  auto const p = identity_basis(12).source;
  basis::given const counting{{}, [&](index_t call, side where) {
                                asked.push_back(call);
                                return p(call, where);
                              }};
  auto o = make_named(exec, "galore_sgd", "rank=12, finder=given, update_proj_gap=2, accumulate=projected", shape, 1,
                      {{}, counting});
  auto w = random_matrix(shape, 1);
  for (index_t k = 0; k < 5; ++k) {
    for (int part = 0; part < 3; ++part) {
      if (part == 0) CHECK(o->refresh_due() == (k % 2 == 0));
      o->accumulate(exec, read(gradient_of_step(shape, k)));
    }
    CHECK(o->step_accumulated(exec, fp32_weight<>{w.view()}, {}) == step_status::stepped);
  }
  CHECK(asked == std::vector<index_t>{0, 2, 4});
  // Direct steps go on where the accumulated ones ended.
  for (index_t k = 0; k < 3; ++k) o->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step(shape, k)), {});
  CHECK(asked == std::vector<index_t>{0, 2, 4, 6});
}

TEST_CASE("bf16 weights in panels are fp32 weights in place where every number is a bf16") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  for (extents const shape : {extents{300, 20}, extents{20, 300}, extents{150, 150}})
    for (weight_rounding const rounding : {weight_rounding::nearest, weight_rounding::stochastic})
      for (std::string const name : {"galore_lion", "lion"}) {
        CAPTURE(shape);
        CAPTURE(name);
        named_context const context{{}, identity_basis(std::min(shape.rows, shape.cols))};
        std::string const options = name == "lion" ? "" : "rank=500, scale=1, finder=given";
        auto a = make_named(exec, name, options, shape, 1, context),
             b = make_named(exec, name, options, shape, 1, context);
        matrix<float> w{shape};
        matrix<bf16> v{shape};
        for (index_t e = 0; e < shape.size(); ++e)
          w.data()[e] = static_cast<float>(e % 64 - 32) / 64, v.data()[e] = to_bf16(w.data()[e]);
        for (index_t k = 0; k < 5; ++k) {
          auto const g = gradient_of_step(shape, k);
          a->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 0x1p-6F});
          b->step(exec, bf16_weight<>{v.view(), rounding}, read(g), {.learning_rate = 0x1p-6F});
        }
        index_t wrong = 0;
        for (index_t e = 0; e < shape.size(); ++e) wrong += w.data()[e] != v.data()[e].value();
        CHECK(wrong == 0);
        CHECK(w(0, 0) != -0.5F);
      }
}

TEST_CASE("a master weight is trained as an fp32 weight is, and the model's copy is its rounding") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  extents const shape{40, 30};
  for (auto const& [name, options] : std::vector<configuration>{
           {"adamw", ""}, {"galore_adamw", "rank=7"}, {"adafactor", ""}, {"galore_adamw", "rank=7, proj_type=full"}}) {
    CAPTURE(name);
    auto a = make_named(exec, name, options, shape), b = make_named(exec, name, options, shape),
         c = make_named(exec, name, options, shape);
    auto w = random_matrix(shape, 1), x = random_matrix(shape, 1), y = random_matrix(shape, 1);
    matrix<bf16> narrow{shape};
    matrix<fp16> half{shape};
    for (index_t k = 0; k < 4; ++k) {
      auto const g = gradient_of_step(shape, k);
      a->step(exec, fp32_weight<>{w.view()}, read(g), {});
      b->step(exec, master_weight<bf16>{narrow.view(), x.view()}, read(g), {});
      c->step(exec, master_weight<fp16>{half.view(), y.view()}, read(g), {});
    }
    CHECK(same_bits(w, x));
    CHECK(same_bits(w, y));
    index_t wrong = 0;
    for (index_t e = 0; e < shape.size(); ++e) {
      wrong += narrow.data()[e] != to_bf16(w.data()[e]);
      wrong += half.data()[e] != to_fp16(w.data()[e]);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("scratch: exactly what workspace_bytes says, and no allocation in a step") {
  for (extents const shape :
       {extents{40, 56}, extents{56, 40}, extents{300, 24}, extents{24, 300}, extents{1, 9}, extents{9, 1}})
    for (auto const& one : every_kind()) {
      auto const& [name, options] = one;
      weights w{shape};
      auto const formats = w.all();
      for (std::size_t format = 0; format < formats.size(); ++format)
        for (index_t const tokens : {0, 3, 50}) {
          CAPTURE(name);
          CAPTURE(options);
          CAPTURE(shape);
          CAPTURE(format);
          CAPTURE(tokens);
          host_executor exec{{.threads = 1}};
          auto o = make_named(exec, name, options, shape);
          index_t const needed = o->workspace_bytes(formats[format], tokens);
          exec.reserve(needed);
          linear_layer const layer{shape, std::max<index_t>(tokens, 1), 0};
          any_gradient<host_executor> g = read(layer.dense);
          if (tokens > 0) g = layer.factored();
          allocation_counter const counter;
          for (int k = 0; k < 4; ++k) REQUIRE(o->step(exec, formats[format], g, {}) == step_status::stepped);
          CHECK(counter.count() == 0);
          if (goes_through_all(one)) CHECK(exec.arena().peak() == needed);
          CHECK(exec.arena().available() == needed);
        }
    }
}

TEST_CASE("the same for whole parameters, and for micro-batches") {
  for (extents const shape : {extents{40, 56}, extents{300, 24}, extents{1, 9}}) {
    for (auto const& [name, options] : every_full_rank()) {
      CAPTURE(name);
      CAPTURE(options);
      weights w{shape.t()};
      auto const g = random_matrix(shape, 3);
      matrix<bf16> narrow{shape.t()};
      host_executor exec{{.threads = 1}}, other{{.threads = 1}};
      auto o = make_named(exec, name, options, shape), p = make_named(exec, name, options, shape);
      fp32_weight<> const flipped{w.values.view().t()};
      bf16_weight<> const panels{narrow.view().t()};
      exec.reserve(o->workspace_bytes(flipped, 0));
      other.reserve(p->workspace_bytes(panels, 0));
      allocation_counter const counter;
      for (int k = 0; k < 3; ++k) REQUIRE(o->step(exec, flipped, read(g), {}) == step_status::stepped);
      for (int k = 0; k < 3; ++k) REQUIRE(p->step(other, panels, read(g), {}) == step_status::stepped);
      CHECK(counter.count() == 0);
      if (shape.rows > 1) {  // a flipped vector is packed, and steps on packed weights take none
        CHECK(exec.arena().peak() == exec.arena().reserved());
        CHECK(other.arena().peak() == other.arena().reserved());
      }
    }
    for (auto const& [name, options] : every_kind())
      for (index_t const tokens : {0, 3}) {
        CAPTURE(name);
        CAPTURE(options);
        weights w{shape};
        host_executor exec{{.threads = 1}};
        auto o = make_named(exec, name, options + ", accumulate=projected", shape);
        fp32_weight<> const weight{w.values.view()};
        exec.reserve(o->workspace_bytes(weight, tokens));
        linear_layer const layer{shape, std::max<index_t>(tokens, 1), 0};
        any_gradient<host_executor> g = read(layer.dense);
        if (tokens > 0) g = layer.factored();
        allocation_counter const counter;
        for (int k = 0; k < 4; ++k) {
          for (int part = 0; part < 2; ++part) o->accumulate(exec, g);
          REQUIRE(o->step_accumulated(exec, weight, {}) == step_status::stepped);
        }
        CHECK(counter.count() == 0);
      }
  }
}

TEST_CASE("bytes: what is really allocated for a state, and what visit_state names") {
  host_executor exec{{.threads = 1}};
  auto all = every_kind();
  for (auto const& [name, options] : every_kind()) all.push_back({name, options + ", accumulate=projected"});
  for (auto const& one : every_full_rank()) all.push_back(one);
  for (auto const& [name, options] : all)
    for (extents const shape : {extents{40, 56}, extents{56, 40}, extents{7, 1}, extents{33, 33}}) {
      CAPTURE(name);
      CAPTURE(options);
      CAPTURE(shape);
      auto const make = named(name, options).make;
      allocation_counter const counter;
      auto const o = make(exec, shape, 1);
      index_t const visited = state_bytes(*o), blocks = scratch_size(index_t{sizeof(step_record)});
      // Named by the state, and the scalars of the step at hand: the record and the rule's numbers.
      index_t const scalars = o->bytes() - visited - index_t{sizeof(step_record)};
      CHECK(scalars > 0);
      CHECK(scalars <= 64);
      index_t rounded = blocks + scratch_size(scalars);
      read_state(*o, [&](std::string_view, auto const& value) {
        if constexpr (state_memory<std::remove_cvref_t<decltype(value)>>) rounded += scratch_size(value.bytes());
      });
      if (allocation_counter::watches()) CHECK(counter.aligned_bytes() == rounded);
    }
}

TEST_CASE("the formula of the paper: small r + 2 large r floats for GaLore over Adam") {
  host_executor exec{{.threads = 1}};
  index_t const scalars = index_t{sizeof(step_record)} + 8 + 28;
  CHECK(make_named(exec, "galore_adamw", "rank=32", {128, 344})->bytes() == 4 * (128 * 32 + 2 * 344 * 32) + scalars);
  CHECK(make_named(exec, "galore_adamw", "rank=32, basis_format=bf16", {344, 128})->bytes() ==
        2 * 128 * 32 + 4 * 2 * 344 * 32 + scalars);
  CHECK(make_named(exec, "galore_adamw", "rank=32, proj_type=full", {344, 128})->bytes() ==
        4 * ((128 + 344) * 32 + 2 * 32 * 32) + scalars);
  CHECK(make_named(exec, "adamw", "", {344, 128})->bytes() == 4 * 2 * 344 * 128 + scalars);
}

TEST_CASE("a state saved before any step, and loaded into a fresh one, goes on bit for bit") {
  auto all = every_kind();
  for (auto const& one : every_full_rank()) all.push_back(one);
  for (auto const& [name, options] : all)
    for (extents const shape : {extents{20, 28}, extents{28, 20}}) {
      CAPTURE(name);
      CAPTURE(options);
      // The one that is taken apart before every step runs on other numbers of threads.
      host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}}, two{{.threads = 2, .scratch_bytes = 1 << 20}},
          three{{.threads = 3, .scratch_bytes = 1 << 20}};
      auto a = make_named(exec, name, options, shape), b = make_named(exec, name, options, shape);
      weights w{shape}, v{shape};
      for (index_t k = 0; k < 7; ++k) {
        auto& other = k % 2 == 0 ? two : three;
        auto fresh = make_named(other, name, options, shape);
        restore(*fresh, saved(*b));
        b = std::move(fresh);
        auto const g = gradient_of_step(shape, k);
        step_options const o{.learning_rate = 0.01F, .weight_decay = 0.1F};
        a->step(exec, bf16_weight<>{w.narrow.view()}, read(g), o);
        b->step(other, bf16_weight<>{v.narrow.view()}, read(g), o);
        REQUIRE(same_bits(w.narrow, v.narrow));
        REQUIRE(differences(saved(*a), saved(*b)) == "");
      }
    }
}

TEST_CASE("the same with micro-batches pending, after a bad one, and when a basis is still to be found") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  extents const shape{20, 28};
  auto bad = random_matrix(shape, 8);
  bad(3, 4) = std::numeric_limits<float>::infinity();
  for (auto const& [name, options] : every_kind()) {
    CAPTURE(name);
    CAPTURE(options);
    auto const all = options + ", accumulate=projected";
    auto a = make_named(exec, name, all, shape), b = make_named(exec, name, all, shape);
    auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
    auto const again = [&] {
      auto fresh = make_named(exec, name, all, shape);
      restore(*fresh, saved(*b));
      b = std::move(fresh);
    };
    std::set<step_status> seen;
    for (index_t k = 0; k < 9; ++k) {
      for (index_t part = 0; part < 3; ++part) {
        again();
        auto const g = (k == 0 && part == 0) || (k == 4 && part == 1) || (k == 7 && part == 0)
                           ? copy_of(read(bad))
                           : gradient_of_step(shape, 3 * k + part);
        a->accumulate(exec, read(g));
        b->accumulate(exec, read(g));
      }
      again();
      auto const status = a->step_accumulated(exec, fp32_weight<>{w.view()}, {});
      CHECK(b->step_accumulated(exec, fp32_weight<>{v.view()}, {}) == status);
      seen.insert(status);
      REQUIRE(same_bits(w, v));
      REQUIRE(differences(saved(*a), saved(*b)) == "");
    }
    CHECK(seen.count(step_status::skipped_bad_gradient) == 1);
    CHECK(seen.count(step_status::stepped) == 1);
  }
}

/// What a skipped step leaves alone; policies may have heard of the call before.
state_copy lasting(state_copy const& all) {
  state_copy out;
  for (auto const& one : all)
    if (one.first.starts_with("basis.") || one.first.starts_with("rule.") || one.first.ends_with("mean") ||
        one.first == "active_rank")
      out.push_back(one);
  return out;
}

TEST_CASE(
    "a bad gradient, at a refresh or between, touches neither weight nor basis nor moments, and the next step is "
    "clean") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  extents const shape{20, 28};
  for (auto const& [name, options] : every_kind())
    for (index_t const bad_step : {0, 1, 2, 3, 6})
      for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e30F}) {
        CAPTURE(name);
        CAPTURE(options);
        CAPTURE(bad_step);
        auto o = make_named(exec, name, options, shape);
        auto w = random_matrix(shape, 1);
        for (index_t k = 0; k < 9; ++k) {
          auto g = gradient_of_step(shape, k);
          auto const weight = copy_of(read(w));
          auto const before = saved(*o);
          if (k == bad_step) g(7, 5) = bad;
          bool const due = o->refresh_due();
          auto const status = o->step(exec, fp32_weight<>{w.view()}, read(g), {});
          CHECK(status == (k == bad_step ? step_status::skipped_bad_gradient : step_status::stepped));
          CHECK(due == (values_of<std::uint8_t>(*o, "report.attempted").at(0) != 0));
          if (k != bad_step) continue;
          CHECK(same_bits(w, weight));
          CHECK(differences(lasting(saved(*o)), lasting(before)) == "");
        }
        for (index_t e = 0; e < shape.size(); ++e) REQUIRE(is_finite(w.data()[e]));
        for (auto const x : values_of<float>(*o, "rule.moment1")) REQUIRE(is_finite(x));
      }
}

TEST_CASE("a zero gradient is a step on the basis there is, or on columns of the identity") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  extents const shape{20, 28};
  matrix<float> const zero{shape};
  for (auto const& [name, options] : every_kind())
    for (index_t const first : {0, 1, 4}) {
      CAPTURE(name);
      CAPTURE(options);
      CAPTURE(first);
      bool const needs_none = options.find("stiefel") != std::string::npos;
      auto o = make_named(exec, name, options, shape);
      auto w = random_matrix(shape, 1);
      for (index_t k = 0; k < 9; ++k) {
        bool const due = o->refresh_due(), nothing = k >= first && k < first + 3;
        auto const weight = copy_of(read(w));
        auto const before = lasting(saved(*o));
        auto const status =
            o->step(exec, fp32_weight<>{w.view()}, nothing ? read(zero) : read(gradient_of_step(shape, k)), {});
        bool const kept = nothing && due && k > 0 && !needs_none;
        CHECK(status == (kept ? step_status::stepped_old_basis : step_status::stepped));
        for (index_t e = 0; e < shape.size(); ++e) REQUIRE(is_finite(w.data()[e]));
        if (first == 0 && nothing) CHECK(same_bits(w, weight));
        if (!kept) continue;
        auto const after = lasting(saved(*o));
        for (std::size_t i = 0; i < after.size(); ++i)
          if (!after[i].first.starts_with("rule.")) CHECK(after[i] == before[i]);
      }
    }
}

TEST_CASE("a state that was saved for something else is refused by its identity") {
  host_executor exec{{.threads = 1}};
  std::set<std::string> identities;
  auto o = make_named(exec, "galore_adamw", "rank=4", {20, 30});
  read_state(*o, [&](std::string_view name, auto const&, auto is_identity) {
    if (is_identity()) identities.insert(std::string{name});
  });
  CHECK(identities == std::set<std::string>{"weight_rows", "weight_cols", "side", "rank", "tensor"});
}

TEST_SUITE_END();

}  // namespace

}  // namespace optim_laws
