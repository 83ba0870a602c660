/// @file
/// What a training run leaves behind: its curves and its numbers.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "config.hpp"

namespace llama {

/// Curves of a run, one entry a step or one a validation. Saved with a checkpoint, so that a resumed run reports all of it.
struct run_history {
  std::vector<float> loss, step_seconds, optimizer_seconds,
      captured;                  ///< captured: mean over this step's refreshes, or -1
  std::vector<float> refreshes;  ///< bases accepted in this step
  std::vector<float> validation_step, validation_loss, validation_seconds;

  template <class Self, class F>
  static void visit(Self& self, F const& f) {
    f("loss", self.loss);
    f("step_seconds", self.step_seconds);
    f("optimizer_seconds", self.optimizer_seconds);
    f("captured", self.captured);
    f("refreshes", self.refreshes);
    f("validation_step", self.validation_step);
    f("validation_loss", self.validation_loss);
    f("validation_seconds", self.validation_seconds);
  }
};

struct run_result {
  std::string name;
  double learning_rate{};
  run_history history;
  bool finished{};
  double validation_loss{};
  index_t parameters{}, tokens_per_step{}, factored{};
  index_t weight_bytes{}, gradient_bytes{}, activation_bytes{}, workspace_bytes{};
  index_t optimizer_bytes{}, optimizer_bytes_counted{};  ///< from the shapes; from the allocator
  index_t low_rank_bytes{}, low_rank_adamw_bytes{};      ///< states of the matrices in a subspace; AdamW's for the same
  index_t peak_rss{};
  std::string sample;

  [[nodiscard]] double perplexity() const { return std::exp(validation_loss); }
  /// Without the first five steps, which touch the memory for the first time.
  [[nodiscard]] double tokens_per_second() const { return rate(history.step_seconds); }
  [[nodiscard]] double training_seconds() const { return sum(history.step_seconds, 0); }
  [[nodiscard]] double optimizer_share() const {
    double const all = sum(history.step_seconds, 0);
    return all > 0 ? sum(history.optimizer_seconds, 0) / all : 0;
  }
  [[nodiscard]] double refresh_count() const { return sum(history.refreshes, 0); }
  /// What steps with refreshes took longer than the mean of those without.
  [[nodiscard]] double refresh_seconds() const {
    double with = 0, without = 0;
    index_t refreshing = 0, plain = 0;
    for (std::size_t k = 0; k < history.refreshes.size(); ++k) {
      bool const here = history.refreshes[k] > 0;
      (here ? with : without) += static_cast<double>(history.optimizer_seconds[k]);
      ++(here ? refreshing : plain);
    }
    return refreshing == 0 || plain == 0
               ? 0
               : std::max(0.0, with - static_cast<double>(refreshing) * without / static_cast<double>(plain));
  }

 private:
  [[nodiscard]] static double sum(std::vector<float> const& v, std::size_t from) {
    double total = 0;
    for (std::size_t k = from; k < v.size(); ++k) total += static_cast<double>(v[k]);
    return total;
  }
  [[nodiscard]] double rate(std::vector<float> const& seconds) const {
    std::size_t const skip = seconds.size() > 10 ? 5 : 0;
    double const time = sum(seconds, skip);
    return time > 0 ? static_cast<double>(tokens_per_step) * static_cast<double>(seconds.size() - skip) / time : 0;
  }
};

}  // namespace llama
