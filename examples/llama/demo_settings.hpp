/// @file
/// What a demo run is asked to do.
#pragma once

#include <string>
#include <vector>

#include "config.hpp"

namespace llama {

enum class backend : std::uint8_t { eigen, blas };
/// Which gradients of linear weights stay factored: none, all that an optimizer takes, or those where it saves time.
enum class gradient_choice : std::uint8_t { dense, factored, automatic };
/// When the optimizer acts: after the whole backward pass, or on each weight as soon as its gradient is complete.
enum class update_mode : std::uint8_t { whole_model, per_layer };

struct demo_settings {
  std::string text;
  std::vector<std::string> optimizers{"adamw", "galore_adamw"};
  llama::config model{};
  backend products{backend::eigen};
  gradient_choice gradient{gradient_choice::automatic};
  update_mode update{update_mode::whole_model};
  int threads{0};
  index_t steps{400}, batch{8}, micro_batches{1}, warmup{40};
  double floor{0.1}, clip{0}, weight_decay{0};
  double adamw_rate{2e-3}, galore_rate{2e-2};  ///< each the best of its grid (bench/tune_demo.py)
  index_t rank{64};
  double scale{0.25};
  // Every combination of these is a run of GaLore. The usual refresh is lazy for Q-GaLore, every for others; roundings
  // are of int8 weights, which Q-GaLore has.
  std::vector<std::string> finders{"randomized"}, refreshes{"usual"}, transports{"keep"}, roundings{"stochastic"};
  std::vector<index_t> gaps{50};
  std::string galore_options;
  std::uint64_t seed{1};
  index_t validate_every{50}, validation_batches{8}, checkpoint_every{100}, sample{400};
  std::string checkpoint{"build/demo/checkpoint"}, report, html{"build/demo/report.html"};
  bool resume{};
};

}  // namespace llama
