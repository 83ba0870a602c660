// Bad use is refused with caller, requirement and value, before anything is written.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "support/int8_weights.hpp"
#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace misuse_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("misuse");

constexpr extents shape{12, 20};

void check_contains(std::string const& text, std::string const& part) {
  CAPTURE(text);
  CHECK(text.find(part) != std::string::npos);
}

/// An optimizer in the middle of its work, its weight, and a gradient; checks that a call leaves both alone.
struct scene {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  matrix<float> w = random_matrix(shape, 1), g = gradient_of_step(shape, 9);
  std::unique_ptr<any_optimizer> o;

  explicit scene(std::string const& name, std::string const& options = "", named_context context = {})
      : o{make_named(exec, name, options, shape, 1, std::move(context))} {
    o->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step(shape, 0)), {});
  }
  template <class Error, class F>
  std::string refused(F&& f, std::vector<std::string> const& may_change = {}) {
    auto const weight = copy_of(read(w));
    auto const state = saved(*o);
    auto const text = refusal<Error>(std::forward<F>(f));
    CHECK(same_bits(w, weight));
    CHECK(differences(saved(*o), state, may_change) == "");
    CHECK(exec.arena().available() == exec.arena().reserved());
    return text;
  }
  template <class Error>
  std::string refused_step(any_weight<host_executor> const& weight, any_gradient<host_executor> const& gradient,
                           step_options const& options = {}) {
    return refused<Error>([&] { o->step(exec, weight, gradient, options); });
  }
};

TEST_CASE("shapes of weight, master and gradient") {
  for (auto const& [name, caller] :
       {std::pair<std::string, std::string>{"adamw", "full_rank::step"}, {"galore_adamw", "low_rank::step"}}) {
    CAPTURE(name);
    scene s{name};
    matrix<float> other{shape.t()};
    matrix<bf16> narrow{11, 20};
    CHECK(s.refused_step<shape_error>(fp32_weight<>{other.view()}, read(s.g)) ==
          "lowrank::" + caller + ": the state is for 12x20, the weight is 20x12");
    CHECK(s.refused_step<shape_error>(fp32_weight<>{s.w.view()}, read(other)) ==
          "lowrank::" + caller + ": the state is for 12x20, the gradient is 20x12");
    CHECK(s.refused_step<shape_error>(master_weight<bf16>{narrow.view(), s.w.view()}, read(s.g)) ==
          "lowrank::" + caller + ": the master weight is 12x20, the weight is 11x20");
  }
  scene s{"galore_adamw"};
  auto const dy = random_matrix({5, 12}, 1), x = random_matrix({6, 20}, 2), narrow = random_matrix({5, 19}, 2);
  CHECK(s.refused_step<shape_error>(fp32_weight<>{s.w.view()}, outer_product<>{read(dy), read(x)}) ==
        "lowrank::low_rank::step: the factors of the gradient have 5 and 6 rows");
  CHECK(s.refused_step<shape_error>(fp32_weight<>{s.w.view()}, outer_product<>{read(dy), read(narrow)}) ==
        "lowrank::low_rank::step: the state is for 12x20, the gradient is 12x19");
}

TEST_CASE("a factored gradient where the dense one is needed") {
  auto const dy = random_matrix({5, 12}, 1), x = random_matrix({5, 20}, 2);
  outer_product<> const g{read(dy), read(x)};
  scene exact{"galore_adamw", "finder=svd"};
  CHECK(exact.refused_step<argument_error>(fp32_weight<>{exact.w.view()}, g) ==
        "lowrank::low_rank::step: this finder needs the dense gradient");
  scene both{"galore_adamw", "finder=svd, proj_type=full"};
  CHECK(both.refused_step<argument_error>(fp32_weight<>{both.w.view()}, g) ==
        "lowrank::low_rank::step: this finder needs the dense gradient");
  scene whole{"adamw"};
  CHECK(whole.refused_step<argument_error>(fp32_weight<>{whole.w.view()}, g) ==
        "lowrank::matrix_optimizer::step: this optimizer needs the dense gradient");
  scene sums{"galore_adamw", "finder=svd, accumulate=projected"};
  CHECK(sums.refused<argument_error>([&] { sums.o->accumulate(sums.exec, g); }) ==
        "lowrank::low_rank::accumulate: this finder needs the dense gradient");
}

TEST_CASE("weight and gradient in the same memory, whatever either is made of") {
  for (std::string const name : {"adamw", "galore_adamw"}) {
    CAPTURE(name);
    scene s{name};
    std::string const text = "weight and gradient must not overlap in memory";
    check_contains(s.refused_step<argument_error>(fp32_weight<>{s.w.view()}, read(s.w)), text);
    matrix<float> larger{shape.rows + 1, shape.cols};
    check_contains(
        s.refused_step<argument_error>(fp32_weight<>{larger.view().row_range(0, 12)}, read(larger).row_range(1, 13)),
        text);
    matrix<bf16> narrow{shape};
    check_contains(s.refused_step<argument_error>(master_weight<bf16>{narrow.view(), s.w.view()}, read(s.w)),
                   "master weight and gradient");
    auto const half = row_major(reinterpret_cast<bf16*>(s.g.data()), shape);
    check_contains(s.refused_step<argument_error>(bf16_weight<>{half}, read(s.g)), text);
    auto const next = larger.view().row_range(0, 6), after = larger.view().row_range(6, 12);
    CHECK_FALSE(overlap(next, matrix_view<float const>(after)));
    CHECK(s.o->step(s.exec, fp32_weight<>{s.w.view()}, read(larger).row_range(0, 12), {}) == step_status::stepped);
  }
  scene s{"galore_adamw"};
  auto const dy = random_matrix({12, 12}, 1);
  check_contains(s.refused_step<argument_error>(fp32_weight<>{s.w.view()}, outer_product<>{read(dy), read(s.w)}),
                 "must not overlap");
}

TEST_CASE("codes or scales of a weight in the gradient's memory, and codes that do not fit") {
  for (std::string const name : {"adamw", "galore_adamw"}) {
    CAPTURE(name);
    scene s{name};
    int8_weight own{s.exec, read(s.w)};
    auto const all = own.view();
    std::string const text = "codes or scales of the weight and the gradient must not overlap in memory";
    auto codes = all, scales = all, past = all;
    codes.codes.codes = reinterpret_cast<std::uint8_t*>(s.g.data()) + s.g.bytes() - 1;
    check_contains(s.refused_step<argument_error>(codes, read(s.g)), text);
    scales.codes.scales = reinterpret_cast<bf16*>(s.g.data());
    check_contains(s.refused_step<argument_error>(scales, read(s.g)), text);
    auto const dy = random_matrix({12, 12}, 1), x = random_matrix({12, 20}, 1);
    codes.codes.codes = reinterpret_cast<std::uint8_t*>(const_cast<float*>(x.data()));
    if (name != "adamw")
      check_contains(s.refused_step<argument_error>(codes, outer_product<>{read(dy), read(x)}), text);
    matrix<float> twice{2 * shape.rows, shape.cols};
    past.codes.codes = reinterpret_cast<std::uint8_t*>(twice.data());
    auto const after = matrix_view<float const>{twice.data() + shape.size() / 4, shape.rows, shape.cols, shape.cols, 1};
    CHECK(s.o->step(s.exec, past, after, {}) == step_status::stepped);  // side by side is not over each other
    auto fewer = all, lines = all;
    fewer.codes.layout = {1, shape.size() - 1};
    check_contains(s.refused_step<shape_error>(fewer, read(s.g)), "the codes are 1 lines of 239, the weight is 12x20");
    lines.codes.layout = {20, 12};
    check_contains(s.refused_step<shape_error>(lines, read(s.g)), "the codes are 20 lines of 12, the weight is 12x20");
  }
}

TEST_CASE("options of a step") {
  for (std::string const name : {"adamw", "galore_adamw"}) {
    scene s{name};
    auto const refused = [&](step_options const& o) {
      return s.refused_step<argument_error>(fp32_weight<>{s.w.view()}, read(s.g), o);
    };
    check_contains(refused({.learning_rate = -1}), "learning_rate must be finite and >= 0, got -1");
    check_contains(refused({.weight_decay = -0.5F}), "weight_decay must be finite and >= 0, got -0.5");
  }
}

TEST_CASE("too little scratch: named in bytes, found out before anything is written") {
  for (std::string const name : {"adamw", "galore_adamw", "galore_adafactor"})
    for (index_t const tokens : {0, 9}) {
      if (name == "adamw" && tokens > 0) continue;
      CAPTURE(name);
      CAPTURE(tokens);
      scene s{name, name == "adamw" ? "" : "rank=4, accumulate=projected"};
      auto const dy = random_matrix({9, 12}, 1), x = random_matrix({9, 20}, 2);
      any_gradient<host_executor> g = read(s.g);
      if (tokens > 0) g = outer_product<>{read(dy), read(x)};
      fp32_weight<> const weight{s.w.view()};
      index_t const needed = s.o->workspace_bytes(weight, tokens);
      host_executor poor{{.threads = 1, .scratch_bytes = needed - 64}}, none{{.threads = 1}};
      CHECK(s.refused<state_error>([&] { s.o->step(poor, weight, g, {}); }) ==
            "lowrank::" + std::string{name == "adamw" ? "full_rank" : "low_rank"} + "::step: needs " +
                std::to_string(needed) + " bytes of scratch, available are " + std::to_string(needed - 64) +
                "; call executor.reserve(workspace_bytes(...)) first");
      if (name == "adamw") continue;
      check_contains(s.refused<state_error>([&] { s.o->accumulate(none, g); }),
                     "lowrank::low_rank::accumulate: needs ");
      s.o->accumulate(s.exec, g);
      check_contains(s.refused<state_error>([&] { s.o->step_accumulated(none, weight, {}); }),
                     "lowrank::low_rank::step: needs ");
      CHECK(s.o->step_accumulated(s.exec, weight, {}) == step_status::stepped);
    }
}

TEST_CASE("micro-batches at the wrong time") {
  scene s{"galore_adamw", "accumulate=projected"};
  fp32_weight<> const weight{s.w.view()};
  CHECK(s.refused<state_error>([&] { s.o->step_accumulated(s.exec, weight, {}); }) ==
        "lowrank::low_rank::step: nothing was accumulated");
  s.o->accumulate(s.exec, read(s.g));
  s.o->accumulate(s.exec, read(s.g));
  CHECK(s.refused_step<state_error>(weight, read(s.g)) ==
        "lowrank::low_rank::step: 2 micro-batches are pending; call step without a gradient");
  matrix<float> const other{5, 5};
  check_contains(s.refused<shape_error>([&] { s.o->accumulate(s.exec, read(other)); }), "the gradient is 5x5");
  check_contains(s.refused<argument_error>([&] { s.o->step_accumulated(s.exec, weight, {.learning_rate = -1}); }),
                 "learning_rate");
  CHECK(s.o->step_accumulated(s.exec, weight, {}) == step_status::stepped);
  scene unprepared{"galore_adamw"};
  CHECK(unprepared.refused<state_error>([&] { unprepared.o->accumulate(unprepared.exec, read(unprepared.g)); }) ==
        "lowrank::low_rank::accumulate: set accumulate_in = accumulation::projected before init");
  scene whole{"adamw"};
  check_contains(whole.refused<argument_error>([&] { whole.o->accumulate(whole.exec, read(whole.g)); }),
                 "no subspace to accumulate in");
}

TEST_CASE("a given basis of the wrong shape: refused when it is handed over, and asked for again") {
  auto p = std::make_shared<matrix<float>>(12, 4);
  for (index_t i = 0; i < 4; ++i) (*p)(i, i) = 1;
  matrix<float> const wrong{20, 4};
  bool spoil = false;
  basis::given const source{{}, [&](index_t, side) { return spoil ? read(wrong) : read(*p); }};
  scene s{"galore_sgd", "rank=4, finder=given, update_proj_gap=1", {{}, source}};
  spoil = true;
  // The report on the last refresh has been heard by then.
  CHECK(s.refused<shape_error>([&] { s.o->step(s.exec, fp32_weight<>{s.w.view()}, read(s.g), {}); },
                               {"report.attempted", "report.captured"}) ==
        "lowrank::basis::given: needs a basis of shape 12x4, got 20x4");
  spoil = false;
  CHECK(s.o->step(s.exec, fp32_weight<>{s.w.view()}, read(s.g), {}) == step_status::stepped);
}

TEST_CASE("settings, when an optimizer is made") {
  host_executor exec{{.threads = 1}};
  auto const refused = [&](std::string const& name, std::string const& options) {
    return refusal<argument_error>([&] { std::ignore = named(name, options); });
  };
  CHECK(refused("galore_adamw", "rank=0") == "lowrank::low_rank: rank must be at least 1, got 0");
  CHECK(refused("galore_adamw", "rank=-3") == "lowrank::low_rank: rank must be at least 1, got -3");
  CHECK(refused("galore_adamw", "update_proj_gap=0") == "lowrank::refresh::every: period must be at least 1, got 0");
  CHECK(refused("galore_adamw", "scale=-1") == "lowrank::lift::back_project: scale must be finite and >= 0, got -1");
  CHECK(refused("galore_adamw", "scale=nan") == "lowrank::lift::back_project: scale must be finite and >= 0, got nan");
  CHECK(refused("galore_adamw", "scale=1e300") ==
        "lowrank::lift::back_project: scale must be finite and >= 0, got inf");
  CHECK(refused("galore_adamw", "oversampling=-1") ==
        "lowrank::basis::randomized: oversampling and power_iterations must not be negative, got -1 and 1");
  CHECK(refused("galore_adamw", "betas=(0.9, 1)") == "lowrank::rule::adam: betas must be in [0, 1), got 0.9 and 1");
  CHECK(refused("adamw", "beta1=-0.1") == "lowrank::rule::adam: betas must be in [0, 1), got -0.1 and 0.999");
  CHECK(refused("adamw", "eps=0") == "lowrank::rule::adam: epsilon must be positive in fp32, got 0");
  CHECK(refused("adamw", "eps=1e-60") == "lowrank::rule::adam: epsilon must be positive in fp32, got 1e-60");
  CHECK(refused("adamw", "weight_decay=-1") == "lowrank::by_name: weight_decay must be finite and >= 0, got -1");
  check_contains(refused("adamw", "weight_decay=1e300"), "weight_decay must be finite");
  check_contains(refused("adamw", "weight_decay=nan"), "weight_decay must be finite");
  CHECK(refused("sgd", "momentum=1") == "lowrank::rule::sgd: momentum must be in [0, 1), got 1");
  CHECK(refused("sgd", "dampening=2") == "lowrank::rule::sgd: dampening must be in [0, 1], got 2");
  CHECK(refused("sgd", "nesterov=true") ==
        "lowrank::rule::sgd: Nesterov needs momentum > 0 and dampening 0, got momentum 0, dampening 0");
  CHECK(refused("lion", "betas=(1.5, 0.9)") == "lowrank::rule::lion: betas must be in [0, 1), got 1.5 and 0.9");
  CHECK(refused("adafactor", "eps=(0, 0.001)") ==
        "lowrank::rule::adafactor: needs epsilon1 > 0 in fp32 and epsilon2 >= 0, got 0 and 0.001");
  CHECK(refused("adafactor", "clip_threshold=0") == "lowrank::rule::adafactor: clip_threshold must be positive, got 0");
  CHECK(refused("adafactor", "decay_rate=0.8") == "lowrank::rule::adafactor: decay_rate must be negative, got 0.8");
  CHECK(refused("adafactor", "beta1=1") == "lowrank::rule::adafactor: beta1 must be in [0, 1), got 1");
  CHECK(refused("galore_adamw", "finder=given") == "lowrank::basis::given: needs a source");
  auto const make = [&](std::string const& name, extents weight, std::uint32_t tensor) {
    return refusal<error>([&] { std::ignore = make_named(exec, name, "", weight, tensor); });
  };
  CHECK(make("galore_adamw", shape, 1U << 24) == "lowrank::low_rank::init: tensor must be below 2^24, got 16777216");
  CHECK(make("adamw", shape, 1U << 24) == "lowrank::full_rank::init: tensor must be below 2^24, got 16777216");
  CHECK(make("galore_adamw", {-1, 4}, 1) == "lowrank::low_rank::init: shape must not be negative, got -1x4");
  CHECK(make("adamw", {4, -1}, 1) == "lowrank::full_rank::init: shape must not be negative, got 4x-1");
}

TEST_CASE("coupled decay has no meaning in a subspace") {
  compose<rule::adam, basis::stiefel> o;
  o.rule.decay = decay_order::coupled;
  CHECK(refusal<argument_error>([&] { o.check(); }) ==
        "lowrank::low_rank: coupled (L2) weight decay would need PᵀW; choose decay_order::before or after");
  check_contains(refusal<argument_error>([&] { std::ignore = named("galore_adamw", "decay=coupled"); }),
                 "coupled (L2) weight decay");
  full_rank<rule::adafactor> factors;
  factors.rule.decay = decay_order::coupled;
  CHECK(refusal<argument_error>([&] { factors.check(); }) ==
        "lowrank::rule::adafactor: decay must be before or after the update");
}

TEST_SUITE_END();

}  // namespace

}  // namespace misuse_test
