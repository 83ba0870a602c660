/// @file
/// What a run does.
#pragma once

#include <string>
#include <vector>

#include "fine_tuning.hpp"

namespace smollm2 {

struct settings {
  std::string model{"build/data/SmolLM2-135M-Instruct.Q4_1.gguf"}, texts{"build/data"};
  std::string scored{"hamlet_gut.txt"}, seen{"richard_iii_gut.txt"}, trained{"othello_gut.txt"};
  std::string html{"build/smollm2/report.html"}, report, compressed{"build/smollm2/compressed.safetensors"};
  int threads{0};

  index_t scored_windows{8}, calibration_windows{64};
  std::vector<double> reductions{0.1, 0.2, 0.3, 0.4, 0.5};  ///< ERR, for plain and whitened truncation
  std::vector<double> removals{0.1, 0.2, 0.3, 0.4};         ///< of the linear parameters
  double kept_form_removal{0.2};  ///< of the model that is written to a file and generates text

  index_t tuning_steps{150};
  std::vector<double> rates{5e-5, 1e-4, 2e-4};
  std::vector<std::uint64_t> seeds{0, 1, 2};
  std::vector<std::string> optimizers{"adamw"};
  double tuning_reduction{0.5};
  std::string frozen;  ///< format of matrices that do not learn with low-rank components alone; "": as loaded
  index_t sample{40};  ///< tokens to generate

  /// Five minutes instead of an hour or two.
  void make_quick() {
    scored_windows = 2;
    calibration_windows = 16;
    reductions = std::vector{0.1, 0.5};
    removals = std::vector{0.2, 0.4};
    tuning_steps = 6;
    rates = std::vector{2e-4};
    seeds = std::vector<std::uint64_t>{0};
  }
};

}  // namespace smollm2
