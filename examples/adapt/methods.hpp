/// @file
/// Methods by their names.
#pragma once

#include <array>

#include "llama/adapter_set.hpp"
#include "llama/any_adapter.hpp"
#include "llama/model.hpp"
#include "lowrank/adapt/deep_lora.hpp"
#include "lowrank/adapt/loftq.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/lora_xs.hpp"
#include "lowrank/adapt/mora.hpp"
#include "lowrank/adapt/nola.hpp"
#include "lowrank/adapt/olora.hpp"
#include "settings.hpp"
#include "smollm2/calibrate.hpp"

namespace adapting {

namespace adapt = lowrank::adapt;

using any_adapter =
    llama::any_adapter<adapt::lora_adapter<float>, adapt::olora_adapter<float>, adapt::lora_xs_adapter<float>,
                       adapt::mora_adapter<float>, adapt::nola_adapter<float>, adapt::deep_lora_adapter<float>>;
using adapter_set = llama::adapter_set<any_adapter>;

/// loftq: LoRA that begins with what the rounding of the base has lost.
inline constexpr std::array method_names{"loftq",   "lora", "rslora", "lora_plus", "olora",
                                         "lora_xs", "mora", "nola",   "deep_lora", "deep_lora_compressed"};

/// f(settings) with the settings of the method.  Throws: argument_error for a name that is none.
template <class F>
auto with_settings(trial const& t, F const& f) {
  auto const method = std::string_view{t.method};
  adapt::lora plain{.rank = t.rank, .alpha = t.alpha, .dropout = t.dropout};
  if (method == "rslora") plain.scale = adapt::scaling::rank_root;
  if (method == "lora_plus") plain.rate_ratio = 16;
  if (method == "lora" || method == "loftq" || method == "rslora" || method == "lora_plus") return f(plain);
  if (method == "olora") return f(adapt::olora{.rank = t.rank, .alpha = t.alpha, .dropout = t.dropout});
  if (method == "lora_xs") return f(adapt::lora_xs{.rank = t.rank, .alpha = t.alpha});
  if (method == "mora")
    return f(adapt::mora{.rank = t.rank, .type = t.rank < 32 ? adapt::mora_type::rotated : adapt::mora_type::shared});
  // A quarter of the published number of matrices: their random numbers cost more here than the model does.
  if (method == "nola") return f(adapt::nola{.rank = t.rank, .right_count = 64, .left_count = 64});
  auto const form =
      method == "deep_lora_compressed" ? adapt::deep_lora_form::compressed : adapt::deep_lora_form::narrow_chain;
  lowrank::require(method.starts_with("deep_lora"), "adapting::with_settings", "unknown method ", t.method);
  return f(adapt::deep_lora{.rank = t.rank, .form = form});
}
[[nodiscard]] inline bool changes_base(trial const& t) { return t.method == "olora"; }

/// The key that the adapter of parameter number `index` is made with.
[[nodiscard]] inline lowrank::rng_key adapter_key(trial const& t, index_t index) noexcept {
  return {.seed = t.seed, .tensor = static_cast<std::uint32_t>(index), .purpose = lowrank::rng_purpose::initialisation};
}

/// LoRAs that begin with what `frozen` has lost of `model`: of all of it, or, where text has been seen, of what the loss would
/// notice (`adapt::loftq`).
template <class Executor>
[[nodiscard]] adapter_set make_recovering_adapters(Executor& exec, trial const& t,
                                                   llama::parameters<float> const& model,
                                                   llama::parameters<float> const& frozen,
                                                   smollm2::calibrated const* seen) {
  adapter_set out{model.config()};
  adapt::lora const settings{.rank = t.rank, .alpha = t.alpha, .dropout = t.dropout};
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    if (!p.is_linear() || p.what == llama::role::head) continue;
    lowrank::require(frozen[i].part == llama::linear_part::frozen, "adapting::make_recovering_adapters",
                     "loftq needs a base that is rounded, got ", t.base);
    auto const w = model.weight(i);
    auto const& rounded = frozen.frozen(p.what, p.layer);
    auto const key = adapter_key(t, i);
    out.set(p.what, p.layer, adapt::naming(p.name, [&] {
              if (seen == nullptr) return any_adapter{adapt::loftq(exec, settings, w, rounded, key)};
              auto const [inputs, gradients] = seen->of(p.what, p.layer);
              return any_adapter{adapt::loftq(exec, settings, w, rounded, *inputs, *gradients, key)};
            }));
  }
  return out;
}

/// What the adapters of LoftQ were at first, by module; of other methods none.
using started_adapters = std::map<std::string, adapt::lora_adapter<float>, std::less<>>;

template <class Executor>
[[nodiscard]] started_adapters remember_start(Executor& exec, trial const& t, adapter_set& set) {
  started_adapters out;
  if (t.method != "loftq") return out;
  set.each([&](llama::role what, index_t l, any_adapter const& any) {
    any.visit([&](auto const& a) {
      if constexpr (std::same_as<std::remove_cvref_t<decltype(a)>, adapt::lora_adapter<float>>) {
        adapt::lora_adapter<float> copied{a.settings(), a.shape()};
        copy(exec, a.a(), copied.tensors()[0].values);
        copy(exec, a.b(), copied.tensors()[1].values);
        out.emplace(set.module(what, l), std::move(copied));
      }
    });
  });
  return out;
}

/// Adapters on all linear weights of the layers of `model`, which is changed where the method says so. `first`: where a
/// method wants to see a gradient, it is that of this batch.
template <class Executor>
[[nodiscard]] adapter_set make_adapters(Executor& exec, trial const& t, llama::parameters<float>& model,
                                        llama::batch_view const& first) {
  auto const& c = model.config();
  adapter_set out{c};
  auto const each = [&](auto const& make) {
    for (index_t i = 0; i < model.count(); ++i)
      if (model[i].is_linear() && model[i].what != llama::role::head)
        out.set(model[i].what, model[i].layer, adapt::naming(model[i].name, [&] { return make(i); }));
  };
  with_settings(t, [&](auto const& settings) {
    if constexpr (requires { settings.needs_gradient(); })
      if (settings.needs_gradient()) {
        std::vector<llama::gradient_form> forms;
        for (auto const& p : model.list())
          forms.push_back(p.is_linear() ? llama::gradient_form::factored : llama::gradient_form::none);
        llama::gradients<float> gradients{model, forms};
        llama::activations<float> memory{c, first.inputs.sequences, first.inputs.length, llama::pass::training};
        llama::loss_and_gradients(exec, model, first, memory, gradients);
        each([&](index_t i) {
          return any_adapter{settings.template make<float>(exec, model.weight(i), adapter_key(t, i),
                                                           llama::factored_gradient(memory, model[i]))};
        });
        return;
      }
    each([&](index_t i) {
      return any_adapter{adapt::make_adapter<float>(exec, settings, model.weight(i), adapter_key(t, i))};
    });
  });
  return out;
}

}  // namespace adapting
