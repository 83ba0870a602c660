/// @file
/// What a training run leaves behind: its curves and its numbers.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "run_choice.hpp"

namespace llama {

/// Curves of a run. Saved with a checkpoint, so that a resumed run reports all of it.
struct run_history {
  // One entry a step.
  std::vector<float> loss, step_seconds, optimizer_seconds;
  std::vector<float>
      captured;  ///< mean of what each matrix captured when last measured; -1: no new measure in this step
  std::vector<float> refreshes;  ///< bases accepted in this step
  // One entry a validation.
  std::vector<float> validation_step, validation_loss, validation_seconds;
  // One entry a parameter. Steps are refreshing if they found a basis, plain if not; 0 outside of subspaces.
  std::vector<float> refreshing_seconds, refreshing_steps, plain_seconds, plain_steps;
  std::vector<float> last_captured;  ///< -1 before it was first measured

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
    f("refreshing_seconds", self.refreshing_seconds);
    f("refreshing_steps", self.refreshing_steps);
    f("plain_seconds", self.plain_seconds);
    f("plain_steps", self.plain_steps);
    f("last_captured", self.last_captured);
  }
};

struct run_result {
  run_choice choice;
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
  [[nodiscard]] double optimizer_seconds() const { return sum(history.optimizer_seconds, 0); }
  [[nodiscard]] double optimizer_share() const {
    double const all = training_seconds();
    return all > 0 ? optimizer_seconds() / all : 0;
  }
  [[nodiscard]] double refresh_count() const { return sum(history.refreshes, 0); }
  /// What steps of a matrix with a new basis took longer than its mean step without.
  [[nodiscard]] double refresh_seconds() const {
    double more = 0;
    auto const& h = history;
    for (std::size_t i = 0; i < h.refreshing_steps.size(); ++i)
      if (h.plain_steps[i] > 0)
        more += static_cast<double>(h.refreshing_seconds[i]) -
                static_cast<double>(h.refreshing_steps[i]) * static_cast<double>(h.plain_seconds[i] / h.plain_steps[i]);
    return std::max(0.0, more);
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
