/// @file
/// Cross-entropy over the vocabulary.
#pragma once

#include "activations.hpp"
#include "exponential.hpp"
#include "lanes.hpp"

namespace llama {

/// A target that does not count: neither in the mean nor in the gradient.
inline constexpr std::int32_t no_target = -1;

struct loss_options {
  double scale{1};  ///< of the gradient, not of the returned loss: 1 / micro-batches when several add up to one step
};

/// Mean over the tokens that count of -log softmax(logits)[target], in nats. 0 if none counts.
/// Ensures: the logits are replaced by scale times the gradient of that mean.
/// Throws: shape_error, argument_error.
template <class Executor, class T>
double cross_entropy(Executor& exec, activations<T>& memory, std::span<std::int32_t const> targets,
                     loss_options const& options) {
  index_t const vocabulary = memory.config().vocabulary;
  lowrank::require<lowrank::shape_error>(static_cast<index_t>(targets.size()) == memory.tokens(),
                                         "llama::cross_entropy", "needs one target a token, ", memory.tokens(),
                                         ", got ", targets.size());
  index_t counted = 0;
  for (auto const target : targets) {
    lowrank::require(target >= no_target && target < vocabulary, "llama::cross_entropy", "targets must be below ",
                     vocabulary, " or -1, got ", target);
    counted += target == no_target ? 0 : 1;
  }
  auto const logits = memory.logits();
  auto const losses = memory.token_losses();
  T const weight = counted == 0 ? T{} : static_cast<T>(options.scale / static_cast<double>(counted));
  constexpr index_t chunk = activations<T>::rows_per_task;
  exec.parallel(memory.row_tasks(), [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(memory.tokens(), (task + 1) * chunk); ++t) {
      T* const __restrict row = logits.data + t * vocabulary;
      auto const target = targets[static_cast<std::size_t>(t)];
      auto& loss = losses[static_cast<std::size_t>(t)];
      loss = 0;
      if (target == no_target) {
        std::fill(row, row + vocabulary, T{});
        continue;
      }
      T const top = largest<T>(row, vocabulary), at_target = row[target];
      T const total = exponentials<T>(row, vocabulary, top, T{1}), share = weight / total;
      loss = std::log(static_cast<double>(total)) + static_cast<double>(top - at_target);
      for (index_t v = 0; v < vocabulary; ++v) row[v] *= share;
      row[target] -= weight;
    }
  });
  double total = 0;
  for (double const loss : losses) total += loss;
  return counted == 0 ? 0 : total / static_cast<double>(counted);
}

}  // namespace llama
