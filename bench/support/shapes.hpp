/// @file
/// The matrices of published LLaMA models: what benchmarks of layers run on.
#pragma once

#include <algorithm>
#include <array>
#include <string>

#include "lowrank/core/view.hpp"

namespace lowrank::bench {

struct layer {
  char const* name;
  extents weight;  ///< out x in
  /// A quarter of the model's width, the rank that GaLore's paper trains with.
  [[nodiscard]] constexpr index_t rank() const noexcept { return std::min(weight.rows, weight.cols) / 4; }
};

/// Attention and feed-forward matrices of the sizes in Zhao et al., arXiv 2403.03507, Table 5, and of LLaMA 7B.
inline constexpr std::array layers{
    layer{"60M/attention", {512, 512}},  layer{"60M/up", {1376, 512}},  layer{"60M/down", {512, 1376}},
    layer{"1B/attention", {2048, 2048}}, layer{"1B/up", {5461, 2048}},  layer{"1B/down", {2048, 5461}},
    layer{"7B/attention", {4096, 4096}}, layer{"7B/up", {11008, 4096}}, layer{"7B/down", {4096, 11008}},
};
/// Elements from which a benchmark is of the 7B model, and runs on request only.
inline constexpr index_t huge = 4096 * 4096;

/// Tokens of one batch of 8 sequences of 64; a factored gradient of a layer has that many rows.
inline constexpr index_t tokens = 512;

[[nodiscard]] inline std::string label(layer const& l) {
  return std::string(l.name)
      .append("/")
      .append(std::to_string(l.weight.rows))
      .append("x")
      .append(std::to_string(l.weight.cols));
}

}  // namespace lowrank::bench
