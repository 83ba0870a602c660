/// @file
/// The shape of a Llama-style decoder.
#pragma once

#include <cmath>
#include <cstdint>

#include "lowrank/core/config.hpp"
#include "lowrank/core/error.hpp"

namespace llama {

using lowrank::index_t;

/// Whether the logits come from a matrix of their own or from the token embedding.
enum class output_head : std::uint8_t { own, tied };

/// Which elements of a head rotate together: i and i + half (Hugging Face), or 2i and 2i + 1 (ggml).
enum class rotary_pairs : std::uint8_t { half_split, interleaved };

struct config {
  index_t vocabulary{256};
  index_t width{256};  ///< of the residual stream
  index_t layers{6};
  index_t heads{4};
  index_t kv_heads{4};  ///< heads / kv_heads query heads share one key and value head
  index_t ffn{688};
  index_t sequence{128};  ///< longest context
  double rope_base{10000};
  double epsilon{1e-5};  ///< of the RMS norms
  output_head head{output_head::own};
  rotary_pairs rotary{rotary_pairs::half_split};

  [[nodiscard]] constexpr index_t head_width() const noexcept { return width / heads; }
  [[nodiscard]] constexpr index_t kv_width() const noexcept { return kv_heads * head_width(); }
  [[nodiscard]] constexpr index_t group() const noexcept { return heads / kv_heads; }
  friend constexpr bool operator==(config const&, config const&) = default;
};

/// Throws: argument_error.
inline void validate(config const& c) {
  auto const positive = [](index_t value, char const* what) {
    lowrank::require(value > 0 && value < (index_t{1} << 31), "llama::config", what, " must be in [1, 2^31), got ",
                     value);
  };
  positive(c.vocabulary, "vocabulary");
  positive(c.width, "width");
  positive(c.layers, "layers");
  positive(c.heads, "heads");
  positive(c.kv_heads, "kv_heads");
  positive(c.ffn, "ffn");
  positive(c.sequence, "sequence");
  lowrank::require(c.width % (2 * c.heads) == 0, "llama::config",
                   "width must be a multiple of twice the heads, because elements rotate in pairs; got width ", c.width,
                   " and ", c.heads, " heads");
  lowrank::require(c.heads % c.kv_heads == 0, "llama::config", "heads must be a multiple of kv_heads, got ", c.heads,
                   " and ", c.kv_heads);
  lowrank::require(std::isfinite(c.rope_base) && c.rope_base > 1, "llama::config",
                   "rope_base must be finite and above 1, got ", c.rope_base);
  lowrank::require(std::isfinite(c.epsilon) && c.epsilon >= 0, "llama::config",
                   "epsilon must be finite and not negative, got ", c.epsilon);
}

}  // namespace llama
