/// @file
/// Windows of a text in tokens, and the loss of a model on them.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "llama/model.hpp"

namespace smollm2 {

using llama::index_t;
template <class T>
using view = lowrank::matrix_view<T>;

/// Where windows of a text begin: `first`, `first` + `stride`, ...
struct window_places {
  index_t count, length, first, stride;
};

/// Equally long pieces of one text, each predicted from its own first token on.
class windows {
 public:
  /// Throws: argument_error where the text ends before the last window does.
  windows(std::string const& name, std::span<std::int32_t const> text, window_places const& places)
      : length_{places.length} {
    index_t const needed = places.first + (places.count - 1) * places.stride + places.length;
    lowrank::require(places.count > 0 && places.length > 1 && places.first >= 0 && places.stride >= 0,
                     "smollm2::windows", "needs at least one window of two tokens, got ", places.count, " of ",
                     places.length);
    lowrank::require(needed <= static_cast<index_t>(text.size()), "smollm2::windows", name, " has ", text.size(),
                     " tokens, ", places.count, " windows of ", places.length, " need ", needed);
    for (index_t w = 0; w < places.count; ++w) {
      auto const piece = text.subspan(static_cast<std::size_t>(places.first + w * places.stride),
                                      static_cast<std::size_t>(places.length));
      inputs_.insert(inputs_.end(), piece.begin(), piece.end());
      targets_.insert(targets_.end(), piece.begin() + 1, piece.end());
      targets_.push_back(llama::no_target);
    }
  }

  [[nodiscard]] index_t count() const noexcept { return static_cast<index_t>(inputs_.size()) / length_; }
  [[nodiscard]] index_t length() const noexcept { return length_; }
  [[nodiscard]] index_t tokens() const noexcept { return static_cast<index_t>(inputs_.size()); }
  /// Windows [first, last) as one batch.
  [[nodiscard]] llama::batch_view batch(index_t first, index_t last) const noexcept {
    auto const part = [&](std::vector<std::int32_t> const& of) {
      return std::span{of}.subspan(static_cast<std::size_t>(first * length_),
                                   static_cast<std::size_t>((last - first) * length_));
    };
    return {{part(inputs_), last - first, length_}, part(targets_)};
  }

 private:
  index_t length_;
  std::vector<std::int32_t> inputs_, targets_;
};

/// Mean negative log-likelihood of each window.  `memory` holds one or more of them.
template <class Executor>
[[nodiscard]] std::vector<double> window_losses(Executor& exec, llama::parameters<float> const& model,
                                                windows const& text, llama::activations<float>& memory) {
  std::vector<double> out;
  for (index_t w = 0; w < text.count(); ++w) out.push_back(llama::mean_loss(exec, model, text.batch(w, w + 1), memory));
  return out;
}
[[nodiscard]] inline double mean(std::span<double const> values) noexcept {
  double sum = 0;
  for (double const x : values) sum += x;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}
/// exp of the mean loss over windows.
template <class Executor>
[[nodiscard]] double perplexity(Executor& exec, llama::parameters<float> const& model, windows const& text,
                                llama::activations<float>& memory) {
  return std::exp(mean(window_losses(exec, model, text, memory)));
}

}  // namespace smollm2
