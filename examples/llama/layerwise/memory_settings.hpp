/// @file
/// What llama_memory is asked to do.
#pragma once

#include <string>

#include "../shapes.hpp"

namespace llama {

struct memory_settings {
  std::string shape{"7b"}, gradient{"factored"}, json;
  index_t rank{0};    ///< 0: a quarter of the width
  index_t layers{0};  ///< 0: what the shape has
  index_t sequence{256}, steps{2};
  int state_bits{8}, threads{0};
  double learning_rate{1e-3};
  double limit_gib{0};  ///< of the peak; 0: 12 for 7b, 10 with 4-bit states, none for the others
  std::uint64_t seed{1};
};

/// 7b and 1b as published; tiny for tests.
[[nodiscard]] inline config shape_of(memory_settings const& s) {
  config c{.vocabulary = 1000, .width = 128, .layers = 3, .heads = 4, .kv_heads = 4, .ffn = 344};
  if (s.shape != "tiny") c = shape_named("llama-" + s.shape).shape;
  c.sequence = s.sequence;
  if (s.layers > 0) c.layers = s.layers;
  validate(c);
  return c;
}

}  // namespace llama
