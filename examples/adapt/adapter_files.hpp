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

/// Writes a directory and says how many bytes are in it.
template <class Executor>
index_t save_adapters(Executor& exec, std::filesystem::path const& folder, trial const& t, adapter_set& set) {
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
      if constexpr (std::same_as<type, adapt::lora_adapter<float>> || std::same_as<type, adapt::olora_adapter<float>>)
        plain.modules.push_back(adapt::to_peft_module(exec, module, a));
      else own.modules.push_back(adapt::to_native_module(module, a, adapter_key(t, llama::index_of(c, what, l))));
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
