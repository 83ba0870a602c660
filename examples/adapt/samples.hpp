/// @file
/// A few pieces of a text, again and again.
#pragma once

#include <string>

#include "llama/model.hpp"
#include "smollm2/shuffled.hpp"

namespace adapting {

using llama::index_t;

/// `count` pieces of a text that the seed picks; batches go through them in an order of its own for every round.
class samples {
 public:
  /// Throws: argument_error for a text that is too short.
  samples(std::string const& name, std::span<std::int32_t const> text, index_t count, index_t length,
          std::uint64_t seed)
      : text_{text}, length_{length}, seed_{seed} {
    index_t const pieces = (static_cast<index_t>(text.size()) - 1) / length;
    lowrank::require(count > 0 && count <= pieces, "adapting::samples", name, " has ", pieces, " pieces of ", length,
                     " tokens, asked for ", count);
    chosen_ = smollm2::shuffled(pieces, key(0));
    chosen_.resize(static_cast<std::size_t>(count));
  }
  /// Batch number `step`; valid until the next one.
  [[nodiscard]] llama::batch_view batch(index_t step, index_t sequences) {
    inputs_.clear(), targets_.clear();
    auto const count = static_cast<index_t>(chosen_.size());
    for (index_t s = 0; s < sequences; ++s) {
      index_t const number = step * sequences + s, round = number / count;
      if (round != round_) {
        order_ = smollm2::shuffled(count, key(static_cast<std::uint32_t>(round) + 1));
        round_ = round;
      }
      auto const piece = chosen_[static_cast<std::size_t>(order_[static_cast<std::size_t>(number % count)])];
      auto const from = text_.subspan(static_cast<std::size_t>(piece * length_), static_cast<std::size_t>(length_) + 1);
      inputs_.insert(inputs_.end(), from.begin(), from.end() - 1);
      targets_.insert(targets_.end(), from.begin() + 1, from.end());
    }
    return {{inputs_, sequences, length_}, targets_};
  }

 private:
  [[nodiscard]] lowrank::rng_key key(std::uint32_t step) const noexcept {
    return {.seed = seed_, .step = step, .purpose = lowrank::rng_purpose::data};
  }

  std::span<std::int32_t const> text_;
  index_t length_, round_{-1};
  std::uint64_t seed_;
  std::vector<index_t> chosen_, order_;
  std::vector<std::int32_t> inputs_, targets_;
};

}  // namespace adapting
