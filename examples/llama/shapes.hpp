/// @file
/// Published shapes, by name.
#pragma once

#include <array>
#include <string>

#include "config.hpp"

namespace llama {

/// A model people compare with, and the rank that GaLore's paper gives it, a quarter of the width where it gives none.
struct published_shape {
  std::string_view name;
  config shape;
  index_t rank;
};

/// Up to 1B: the pre-training models of GaLore (Zhao et al., arXiv 2403.03507). 7B to 30B: LLaMA (Touvron et al.,
/// arXiv 2302.13971). 70B: Llama 2 (arXiv 2307.09288).
[[nodiscard]] constexpr auto published_shapes() noexcept {
  auto const shape = [](index_t width, index_t ffn, index_t layers, index_t heads, index_t kv_heads) {
    return config{.vocabulary = 32000,
                  .width = width,
                  .layers = layers,
                  .heads = heads,
                  .kv_heads = kv_heads,
                  .ffn = ffn,
                  .sequence = 2048,
                  .epsilon = 1e-6};
  };
  return std::array{
      published_shape{"llama-60m", shape(512, 1376, 8, 8, 8), 128},
      published_shape{"llama-130m", shape(768, 2048, 12, 12, 12), 256},
      published_shape{"llama-350m", shape(1024, 2736, 24, 16, 16), 256},
      published_shape{"llama-1b", shape(2048, 5461, 24, 32, 32), 512},
      published_shape{"llama-7b", shape(4096, 11008, 32, 32, 32), 1024},
      published_shape{"llama-13b", shape(5120, 13824, 40, 40, 40), 1280},
      published_shape{"llama-30b", shape(6656, 17920, 60, 52, 52), 1664},
      published_shape{"llama-70b", shape(8192, 28672, 80, 64, 8), 2048},
  };
}

/// Throws: argument_error for a name that is none of them.
[[nodiscard]] inline published_shape shape_named(std::string_view name) {
  std::string known;
  for (auto const& one : published_shapes()) {
    if (one.name == name) return one;
    known += (known.empty() ? "" : ", ") + std::string{one.name};
  }
  throw lowrank::argument_error{"llama::shape_named: unknown model \"" + std::string{name} + "\"; known are " + known};
}

}  // namespace llama
