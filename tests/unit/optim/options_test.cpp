// Optimizers by name, and the option strings behind them.
#include <doctest/doctest.h>

#include <string>

#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace options_test {

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

/// Options of GaLore's choices, and what each choice takes.
struct choice {
  std::string name;
  std::vector<std::string> options;
};
std::vector<choice> const choices{
    {"finder=randomized", {"oversampling=4", "power_iterations=2", "sketch=gaussian"}},
    {"finder=warm",
     {"passes=3", "fresh=4", "restart_every=5", "order=by_energy", "order=as_iterated", "align=none", "align=signs",
      "align=nearest", "cheap=momentum", "cheap=never", "hold=0.9", "oversampling=4", "power_iterations=1",
      "sketch=gaussian"}},
    {"finder=tracked",
     {"forgetting=0.8", "fresh=4", "align=nearest", "oversampling=4", "power_iterations=1", "sketch=gaussian"}},
    {"refresh=every", {"update_proj_gap=3"}},
    {"refresh=staggered", {"update_proj_gap=3"}},
    {"refresh=lazy",
     {"update_proj_gap=3", "cos_threshold=0.3", "gamma_proj=1.5", "queue_size=3", "longest_gap=500",
      "likeness=subspace", "likeness=first_vectors"}},
    {"refresh=energy", {"tolerance=0.1", "settle=2", "smoothing=0.5", "longest_gap=500"}},
    {"refresh=budget", {"share=0.2", "tokens=64", "budget_gradient=factored", "budget_gradient=dense"}},
    {"transport=keep", {}},
    {"transport=reset", {}},
    {"transport=rotate", {"unknown_variance=zero", "unknown_variance=column_mean"}},
    {"energy_rank=0.8", {"least_rank=2", "rank_multiple=4"}}};

TEST_CASE("every choice takes its own options, and an optimizer made of it works") {
  extents const shape{12, 20};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  for (auto const& [name, options] : choices) {
    auto all = options;
    all.emplace_back("");
    for (auto const& option : all) {
      auto const text = "rank=6, " + name + (option.empty() ? "" : ", " + option);
      CAPTURE(text);
      auto o = make_named(exec, "galore_adamw", text, shape);
      auto w = random_matrix(shape, 1);
      for (index_t k = 0; k < 4; ++k)
        CHECK(o->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step(shape, k)), {}) == step_status::stepped);
    }
  }
}

TEST_CASE("options of another choice are refused, and so are misspelt ones") {
  for (auto const& [name, options] : choices)
    for (auto const& [other, others] : choices) {
      // Choices for one slot exclude each other; an option belongs to those that list it.
      if (name.substr(0, name.find('=')) != other.substr(0, other.find('=')) || name == other) continue;
      for (auto const& option : others) {
        auto const spelling = option.substr(0, option.find('='));
        bool const shared = std::any_of(options.begin(), options.end(), [&](std::string const& own) {
          return own.substr(0, own.find('=')) == spelling;
        });
        CAPTURE(name);
        CAPTURE(option);
        CHECK(refused("galore_adamw", name + ", " + option) ==
              (shared ? "" : "lowrank::by_name: galore_adamw has no option \"" + spelling + "\""));
      }
    }
  CHECK(refused("galore_adamw", "least_rank=4") == "lowrank::by_name: galore_adamw has no option \"least_rank\"");
  CHECK(refused("galore_adamw", "unknown_variance=zero") ==
        "lowrank::by_name: galore_adamw has no option \"unknown_variance\"");
  CHECK(refused("galore_adamw", "finder=warm, pases=2") == "lowrank::by_name: galore_adamw has no option \"pases\"");
  CHECK(refused("adamw", "finder=warm") == "lowrank::by_name: adamw has no option \"finder\"");
  CHECK(refused("galore_adamw", "finder=cold") ==
        "lowrank::option_list: option \"finder\" must be one of randomized, svd, stiefel, given, warm, tracked; got "
        "\"cold\"");
  CHECK(
      refused("galore_adamw", "refresh=often") ==
      "lowrank::option_list: option \"refresh\" must be one of every, staggered, lazy, energy, budget; got \"often\"");
  CHECK(refused("galore_adamw", "transport=turn") ==
        "lowrank::option_list: option \"transport\" must be one of keep, reset, rotate; got \"turn\"");
  CHECK(refused("galore_adamw", "finder=warm, align=frame") ==
        "lowrank::option_list: option \"align\" must be one of none, signs, nearest; got \"frame\"");
}

TEST_CASE("values of the choices outside their domain are refused by whoever they belong to") {
  CHECK(refused("galore_adamw", "finder=warm, passes=0") ==
        "lowrank::basis::warm_start: needs fresh >= 0 and passes >= 1, got 8 and 0");
  CHECK(refused("galore_adamw", "finder=warm, hold=2") == "lowrank::basis::warm_start: hold must be in [0, 1], got 2");
  CHECK(refused("galore_adamw", "finder=warm, restart_every=-1") ==
        "lowrank::basis::warm_start: restart_every must not be negative, got -1");
  CHECK(refused("galore_adamw", "finder=tracked, forgetting=1") ==
        "lowrank::basis::tracked: forgetting must be in [0, 1), got 1");
  CHECK(refused("galore_adamw", "finder=tracked, fresh=-1").find("lowrank::basis::tracked: fresh, ") == 0);
  CHECK(refused("galore_adamw", "refresh=lazy, queue_size=17") ==
        "lowrank::refresh::lazy_overlap: history must be in [1, 16], got 17");
  CHECK(refused("galore_adamw", "refresh=energy, tolerance=1") ==
        "lowrank::refresh::captured_energy: tolerance must be in (0, 1), got 1");
  CHECK(refused("galore_adamw", "refresh=budget, share=0") ==
        "lowrank::refresh::budget: share must be in (0, 1], got 0");
  CHECK(refused("galore_adamw", "refresh=staggered, update_proj_gap=0") ==
        "lowrank::refresh::staggered: period must be at least 1, got 0");
  CHECK(refused("galore_adamw", "energy_rank=1.5") ==
        "lowrank::refresh::energy_rank: energy must be in (0, 1], got 1.5");
  CHECK(refused("galore_adamw", "energy_rank=-0.5") ==
        "lowrank::refresh::energy_rank: energy must be in (0, 1], got -0.5");
  CHECK(refused("galore_adafactor", "transport=rotate") ==
        "lowrank::by_name: transport=rotate needs a rule that lists its moments; Adafactor does not");
  CHECK(refused("galore_adafactor", "energy_rank=0.5") ==
        "lowrank::by_name: galore_adafactor has no option \"energy_rank\"");
}

TEST_CASE("what other libraries' low-bit optimizers can and these cannot is refused, saying why") {
  for (std::string const name : {"adamw_8bit", "adamw_bnb_8bit", "galore_adamw_8bit", "q_galore_adamw_8bit"}) {
    CAPTURE(name);
    CHECK(refused(name, "min_8bit_size=4096, percentile_clipping=100, block_wise=True, is_paged=False, optim_bits=8") ==
          "");
    CHECK(refused(name, "min_8bit_size=1024") ==
          "lowrank::by_name: min_8bit_size=1024 is not available: moments of fewer than 4096 elements stay in fp32, "
          "others "
          "do not");
    CHECK(refused(name, "percentile_clipping=5") ==
          "lowrank::by_name: percentile_clipping=5 is not available: clip with parameter_set's clip_norm");
    CHECK(refused(name, "block_wise=False").find("block_wise=False is not available") != std::string::npos);
    CHECK(refused(name, "is_paged=True").find("memory is the caller's") != std::string::npos);
    CHECK(refused(name, "amsgrad=True") == "lowrank::by_name: adam's amsgrad is not available");
    CHECK(refused(name, "block_size=256") == "lowrank::by_name: " + name + " has no option \"block_size\"");
  }
  CHECK(refused("adamw_8bit", "kernels=cuda") == "");
  CHECK(refused("galore_adamw_8bit", "kernels=cuda").find("kernels=cuda is not available") != std::string::npos);
  CHECK(refused("adamw_8bit_torchao", "block_size=256, bf16_stochastic_round=False") == "");
  CHECK(refused("adamw_4bit_torchao", "block_size=128") == "");
  CHECK(refused("adamw_4bit_torchao", "block_size=256") ==
        "lowrank::by_name: block_size=256 is not available: blocks of this format are of another size");
  CHECK(refused("adamw_torch_8bit", "bf16_stochastic_round=True").find("step a bf16_weight") != std::string::npos);
  CHECK(refused("adamw_torch_8bit", "percentile_clipping=100") ==
        "lowrank::by_name: adamw_torch_8bit has no option \"percentile_clipping\"");
  for (std::string const option :
       {"weight_bits=8", "weight_quant=True", "weight_group_size=256", "stochastic_round=True", "simulation=False"}) {
    CAPTURE(option);
    CHECK(refused("q_galore_adamw_8bit", option).find("it comes with the weight: step a quantized_weight") !=
          std::string::npos);
  }
}

TEST_CASE("formats of a basis, as ours and as Q-GaLore's options") {
  host_executor exec{{.threads = 1}};
  auto const bytes = [&](std::string const& name, std::string const& options) {
    return make_named(exec, name, "rank=8" + options, {32, 64})->bytes();
  };
  auto const ours = [&](std::string const& format) { return bytes("galore_adamw", ", basis_format=" + format); };
  index_t const fp32 = ours("fp32");
  CHECK(fp32 - ours("bf16") == 2 * 256);
  CHECK(fp32 - ours("int8") == 3 * 256 - 4);
  CHECK(fp32 - ours("int4") == 4 * 256 - 128 - 4);
  CHECK(bytes("galore_adamw", "") == fp32);
  for (std::string const name : {"galore_adamw", "q_galore_adamw_8bit"})
    for (std::string const spelling : {"proj_bits", "quant_n_bit"}) {
      CHECK(bytes(name, ", " + spelling + "=4") == bytes(name, ", basis_format=int4"));
      CHECK(bytes(name, ", basis_format=fp32") - bytes(name, ", " + spelling + "=8") == 3 * 256 - 4);
    }
  CHECK(bytes("q_galore_adamw_8bit", "") == bytes("q_galore_adamw_8bit", ", basis_format=int4"));
  CHECK(bytes("q_galore_adamw_8bit", ", quant=True") == bytes("q_galore_adamw_8bit", ""));
  CHECK(bytes("q_galore_adamw_8bit", ", quant=False") == bytes("q_galore_adamw_8bit", ", basis_format=fp32"));
  CHECK(bytes("q_galore_adamw_8bit", ", proj_quant=false, proj_bits=4") ==
        bytes("q_galore_adamw_8bit", ", basis_format=fp32"));
  CHECK(refused("q_galore_adamw_8bit", "proj_bits=3") == "lowrank::by_name: proj_bits must be 4 or 8, got 3");
  CHECK(refused("q_galore_adamw_8bit", "proj_group_size=128") == "lowrank::by_name: proj_group_size is 256, got 128");
  CHECK(refused("q_galore_adamw_8bit", "proj_bits=4, basis_format=int4") ==
        "lowrank::by_name: give basis_format or proj_bits, not both: they say the same");
  CHECK(refused("q_galore_adamw_8bit", "proj_bits=4, quant_n_bit=8") != "");
  CHECK(refused("galore_adamw", "basis_format=int3") ==
        "lowrank::option_list: option \"basis_format\" must be one of fp32, bf16, int8, int4; got \"int3\"");
}

TEST_CASE("an unknown name is refused with the known ones, and the known ones are known") {
  auto const text = refused("galore_adam", "");
  CHECK(text.find("lowrank::by_name: unknown optimizer \"galore_adam\"; known are adamw, ") == 0);
  host_executor exec{{.threads = 1}};
  for (auto const name : known_optimizers()) {
    CHECK(text.find(name) != std::string::npos);
    auto const o = named(name, "weight_decay=0.125");
    CHECK(o.weight_decay == 0.125F);
    CHECK(o.low_rank == (name.find("galore_") != std::string_view::npos));
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
  CHECK(same("galore_adamw", "", "refresh=every"));
  auto const both = [&](std::string const& a, std::string const& b) {
    std::string const small = "rank=4, update_proj_gap=1, ";
    return same("galore_adamw", small + a, small + a + ", " + b);
  };
  CHECK(
      both("finder=warm", "passes=2, fresh=8, order=as_iterated, align=none, restart_every=0, cheap=never, hold=0.95"));
  CHECK(both("finder=tracked", "forgetting=0.7, fresh=0, align=none, oversampling=8, power_iterations=2"));
  CHECK(both("refresh=lazy", "cos_threshold=0.4, gamma_proj=2, queue_size=5, longest_gap=1000000, likeness=subspace"));
  CHECK(both("transport=rotate", "unknown_variance=column_mean"));
  CHECK(both("energy_rank=0.8", "least_rank=8, rank_multiple=8"));
  CHECK(same("galore_adamw", "rank=4, refresh=energy",
             "rank=4, refresh=energy, tolerance=0.2, settle=5, longest_gap=1000"));
  CHECK(same("galore_adamw", "rank=4, refresh=budget",
             "rank=4, refresh=budget, share=0.05, tokens=1024, budget_gradient=dense"));
  for (std::string const other : {"passes=1", "fresh=1", "order=by_energy", "restart_every=2"}) {
    CAPTURE(other);
    CHECK_FALSE(both("finder=warm", other));
  }
  CHECK_FALSE(both("finder=tracked", "forgetting=0.9"));
  CHECK_FALSE(both("transport=rotate", "unknown_variance=zero"));
  CHECK_FALSE(same("galore_adamw", "rank=4, update_proj_gap=1", "rank=4, update_proj_gap=1, transport=rotate"));
  CHECK_FALSE(same("galore_adamw", "", "scale=1"));
  CHECK_FALSE(same("galore_adamw", "", "eps=1e-2"));
  CHECK_FALSE(same("galore_adamw", "", "decay=before"));
  CHECK_FALSE(same("galore_adamw", "rank=4", "rank=4, seed=1"));
  CHECK_FALSE(same("galore_adamw", "rank=4", "rank=4, update_proj_gap=2"));
}

TEST_SUITE_END();

}  // namespace

}  // namespace options_test
