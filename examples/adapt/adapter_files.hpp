/// @file
/// Adapters of a model on the disk: as PEFT has them where it can, else in our own form.
#pragma once

#include <filesystem>

#include "lowrank/adapt/native_adapter.hpp"
#include "lowrank/adapt/peft.hpp"
#include "methods.hpp"

namespace adapting {

/// The model that the adapters are for, as PEFT loads it.
inline constexpr char const* base_name = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Writes a directory of adapters of the model as published, and says how many bytes are in it. LoftQ's start makes up for the
/// rounding of a base that nobody else has: what was learnt since is what is kept.
template <class Executor>
index_t save_adapters(Executor& exec, std::filesystem::path const& folder, trial const& t,
                      llama::parameters<float> const& published, adapter_set& set, started_adapters const& starts) {
  auto const& c = set.model_config();
  adapt::peft_adapter plain;
  plain.config.base_model = base_name;
  plain.config.task_type = "CAUSAL_LM";
  plain.config.target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  adapt::native_adapter own{.base_model = base_name, .modules = {}};
  set.each([&](llama::role what, index_t l, any_adapter const& any) {
    any.visit([&](auto const& a) {
      using type = std::remove_cvref_t<decltype(a)>;
      auto const module = set.module(what, l);
      auto const base = adapt::base_fingerprint::of(published.weight(what, l));
      if constexpr (std::same_as<type, adapt::lora_adapter<float>> || std::same_as<type, adapt::olora_adapter<float>>) {
        plain.modules.push_back([&] {
          if constexpr (std::same_as<type, adapt::lora_adapter<float>>)
            if (auto const start = starts.find(module); start != starts.end())
              return adapt::to_peft_module(module, adapt::change_since(exec, start->second, a));
          return adapt::to_peft_module(exec, module, a);
        }());
        plain.modules.back().base = base;
      } else {
        own.modules.push_back(adapt::to_native_module(module, a, adapter_key(t, llama::index_of(c, what, l))));
        own.modules.back().base = base;
      }
    });
  });
  if (own.modules.empty()) adapt::write_peft(folder, plain);
  else adapt::write_native(folder, own);
  index_t bytes = 0;
  for (auto const& entry : std::filesystem::directory_iterator{folder})
    bytes += static_cast<index_t>(entry.file_size());
  return bytes;
}

}  // namespace adapting
