/// @file
/// Orders of the pieces of a text.
#pragma once

#include <numeric>
#include <vector>

#include "lowrank/core/rng.hpp"

namespace smollm2 {

/// 0 ... count - 1 in the order that `key` gives; as they are for a seed of 0.
[[nodiscard]] inline std::vector<lowrank::index_t> shuffled(lowrank::index_t count, lowrank::rng_key const& key) {
  std::vector<lowrank::index_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), lowrank::index_t{0});
  if (key.seed > 0)
    for (std::size_t i = order.size(); i-- > 1;) std::swap(order[i], order[lowrank::random_word(key, i) % (i + 1)]);
  return order;
}

}  // namespace smollm2
