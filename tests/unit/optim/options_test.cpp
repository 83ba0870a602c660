// Optimizers by name, and the option strings behind them.
#include <doctest/doctest.h>

#include <string>

#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("options");

TEST_CASE("names and values, with any spacing, brackets and quotes") {
  option_list o{"  rank = 64,betas=(0.9, 0.99) , proj_type='std',scale=0.10,\n on=True,off=0, list=[1, 2]"};
  CHECK(o.take("rank", index_t{1}) == 64);
  double first = 0, second = 0;
  o.take_pair("betas", first, second);
  CHECK(first == 0.9);
  CHECK(second == 0.99);
  o.take_pair("list", first, second);
  CHECK(first == 1);
  o.take_pair("absent", first, second);
  CHECK(second == 2);
  CHECK(o.take("proj_type", std::string_view{}) == "std");
  CHECK(o.take("scale", 1.0) == 0.1);
  CHECK(o.take_switch("on"));
  CHECK_FALSE(o.take_switch("off", "true"));
  CHECK(o.take_switch("absent", "true"));
  o.require_empty("x");
  CHECK(o.take("rank", index_t{3}) == 3);  // taken before
  option_list{""}.require_empty("x");
}

std::string refused(std::string const& name, std::string const& options) {
  return refusal<argument_error>([&] { std::ignore = named(name, options); });
}

TEST_CASE("what is misspelt is refused, naming it") {
  CHECK(refused("galore_adamw", "rnak=4") == "lowrank::by_name: galore_adamw has no option \"rnak\"");
  CHECK(refused("adamw", "rank=4") == "lowrank::by_name: adamw has no option \"rank\"");
  CHECK(refused("galore_adamw", "finder=stiefel, oversampling=4") ==
        "lowrank::by_name: galore_adamw has no option \"oversampling\"");
  CHECK(refused("galore_adamw", "rank=4, rank=5") == "lowrank::option_list: option \"rank\" is given twice");
  CHECK(refused("galore_adamw", "rank") == "lowrank::option_list: needs name=value, got \"rank\"");
  CHECK(refused("galore_adamw", "=4") == "lowrank::option_list: needs name=value, got \"=4\"");
  CHECK(refused("galore_adamw", "rank=") == "lowrank::option_list: needs name=value, got \"rank=\"");
  CHECK(refused("galore_adamw", "rank=4,,scale=1") == "lowrank::option_list: needs name=value, got \"\"");
  CHECK(refused("galore_adamw", "rank=4.5") == "lowrank::option_list: option \"rank\" must be a number, got \"4.5\"");
  CHECK(refused("galore_adamw", "rank=four") == "lowrank::option_list: option \"rank\" must be a number, got \"four\"");
  CHECK(refused("galore_adamw", "rank=99999999999999999999") ==
        "lowrank::option_list: option \"rank\" must be a number, got \"99999999999999999999\"");
  CHECK(refused("galore_adamw", "scale=1x") == "lowrank::option_list: option \"scale\" must be a number, got \"1x\"");
  CHECK(refused("galore_adamw", "proj_type=both") ==
        "lowrank::option_list: option \"proj_type\" must be one of std, reverse_std, left, right, full; got \"both\"");
  CHECK(refused("adamw", "correct_bias=maybe") ==
        "lowrank::option_list: option \"correct_bias\" must be true or false, got \"maybe\"");
  for (std::string const pair :
       {"0.9", "(0.9)", "(0.9 0.99)", "(0.9, 0.99", "(0.9, 0.99]", "0.9, 0.99)", "()", "(,)"}) {
    CAPTURE(pair);
    CHECK(refused("adamw", "betas=" + pair) != "");
  }
  CHECK(refused("adamw", "betas=(0.9, 0.99") ==
        "lowrank::option_list: option \"betas\" must be a pair like (0.9, 0.999), got \"(0.9, 0.99\"");
  CHECK(refused("adamw", "betas=(0.9, 0.99, 0.999)") ==
        "lowrank::option_list: option \"betas\" must be a number, got \"0.99, 0.999\"");
}

TEST_CASE("an unknown name is refused with the known ones, and the known ones are known") {
  auto const text = refused("galore_adam", "");
  CHECK(text.find("lowrank::by_name: unknown optimizer \"galore_adam\"; known are adamw, ") == 0);
  host_executor exec{{.threads = 1}};
  for (auto const name : known_optimizers()) {
    CHECK(text.find(name) != std::string::npos);
    auto const o = named(name, "weight_decay=0.125");
    CHECK(o.weight_decay == 0.125F);
    CHECK(o.low_rank == name.starts_with("galore_"));
    CHECK((o.make(exec, {8, 12}, 1)->rank() > 0) == o.low_rank);
  }
  CHECK(refused("adafactor", "relative_step=true").find("relative_step") != std::string::npos);
  CHECK(refused("adafactor", "warmup_init=true").find("warmup_init") != std::string::npos);
}

TEST_CASE("defaults are those of the codes the names come from") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 22}};
  extents const shape{12, 200};
  auto const same = [&](std::string const& name, std::string const& a, std::string const& b) {
    auto one = make_named(exec, name, a, shape), other = make_named(exec, name, b, shape);
    auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
    for (index_t k = 0; k < 4; ++k) {
      auto const g = gradient_of_step(shape, k);
      step_options const o{.learning_rate = 0.1F, .weight_decay = 0.1F};
      one->step(exec, fp32_weight<>{w.view()}, read(g), o);
      other->step(exec, fp32_weight<>{v.view()}, read(g), o);
    }
    return same_bits(w, v) && saved(*one) == saved(*other);
  };
  CHECK(same("adamw", "", "betas=(0.9, 0.999), eps=1e-8, epsilon=corrected_root, decay=before, correct_bias=true"));
  CHECK(same("adam", "", "beta1=0.9, beta2=0.999, decay=coupled"));
  CHECK(same("sgd", "", "momentum=0, dampening=0, nesterov=false, decay=coupled"));
  CHECK(same("lion", "", "betas=(0.9, 0.99), decay=before"));
  CHECK(same("adafactor", "",
             "eps=(1e-30, 1e-3), clip_threshold=1, decay_rate=-0.8, beta1=None, scale_parameter=false, decay=before"));
  CHECK(same("galore_adamw", "",
             "rank=128, update_proj_gap=200, scale=0.25, proj_type=std, eps=1e-6, epsilon=raw_root, decay=after, "
             "finder=randomized, oversampling=8, "
             "power_iterations=1, sketch=rademacher, basis_format=fp32, transport=keep, accumulate=none, "
             "measure=never, seed=0"));
  CHECK_FALSE(same("galore_adamw", "", "scale=1"));
  CHECK_FALSE(same("galore_adamw", "", "eps=1e-2"));
  CHECK_FALSE(same("galore_adamw", "", "decay=before"));
  CHECK_FALSE(same("galore_adamw", "rank=4", "rank=4, seed=1"));
  CHECK_FALSE(same("galore_adamw", "rank=4", "rank=4, update_proj_gap=2"));
}

TEST_SUITE_END();

}  // namespace
