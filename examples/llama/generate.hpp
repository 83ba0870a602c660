/// @file
/// Text from the model, one token at a time.
#pragma once

#include <numeric>
#include <vector>

#include "forward.hpp"

namespace llama {

struct sampling {
  index_t count{200};       ///< tokens to add
  double temperature{0.8};  ///< 0: always the likeliest token
  index_t top_k{0};         ///< 0: all tokens; otherwise only the k likeliest
  std::uint64_t seed{0};
};

/// Throws: argument_error.
inline void check(sampling const& options) {
  lowrank::require(std::isfinite(options.temperature) && options.temperature >= 0, "llama::generate",
                   "temperature must be finite and not negative, got ", options.temperature);
  lowrank::require(options.count >= 0 && options.top_k >= 0, "llama::generate",
                   "count and top_k must not be negative, got ", options.count, " and ", options.top_k);
}

/// One token from softmax(logits / temperature), chosen by `uniform` in (0, 1].
/// Requires: `order` has room for every token.
template <class T>
[[nodiscard]] std::int32_t sample_token(std::span<T const> logits, sampling const& options, double uniform,
                                        std::span<std::int32_t> order) {
  std::iota(order.begin(), order.end(), 0);
  auto const likelier = [&](std::int32_t a, std::int32_t b) {
    auto const x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  auto const kept = options.temperature == 0 ? 1
                    : options.top_k == 0     ? order.size()
                                             : std::min(order.size(), static_cast<std::size_t>(options.top_k));
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(), likelier);
  auto const weight = [&](std::int32_t token) {
    auto const above = static_cast<double>(logits[static_cast<std::size_t>(token)]) -
                       static_cast<double>(logits[static_cast<std::size_t>(order[0])]);
    return options.temperature == 0 ? 1.0 : std::exp(above / options.temperature);
  };
  double total = 0, sum = 0;
  for (std::size_t i = 0; i < kept; ++i) total += weight(order[i]);
  for (std::size_t i = 0; i < kept; ++i) {
    sum += weight(order[i]);
    if (sum >= uniform * total) return order[i];
  }
  return order[kept - 1];
}

/// Adds options.count tokens to `text`, which must not be empty. Each is drawn after a forward pass over as much of the
/// end of the text as `memory` holds; the same seed gives the same text.
/// Throws: argument_error.
template <class Executor, class T>
void generate(Executor& exec, parameters<T> const& model, activations<T>& memory, std::vector<std::int32_t>& text,
              sampling const& options) {
  lowrank::require(!text.empty(), "llama::generate", "needs at least one token to start from");
  check(options);
  index_t const vocabulary = model.config().vocabulary;
  std::vector<std::int32_t> order(static_cast<std::size_t>(vocabulary));
  text.reserve(text.size() + static_cast<std::size_t>(options.count));
  lowrank::rng_key const key{.seed = options.seed, .tensor = 0xFFFFFF, .purpose = lowrank::rng_purpose::data};
  for (index_t n = 0; n < options.count; ++n) {
    auto const length = std::min(text.size(), static_cast<std::size_t>(memory.longest()));
    std::span<std::int32_t const> const context = std::span{text}.last(length);
    forward(exec, model, {context, 1, static_cast<index_t>(length)}, memory);
    auto const logits = memory.logits();
    T const* const last = logits.data + (logits.rows - 1) * vocabulary;
    text.push_back(sample_token<T>({last, static_cast<std::size_t>(vocabulary)}, options,
                                   lowrank::uniform(key, static_cast<std::uint64_t>(n)), order));
  }
}

}  // namespace llama
