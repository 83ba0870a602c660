/// @file
/// A weight that exists in codes only: opened, updated and rounded panel by panel.
#pragma once

#include <numeric>

#include "lowrank/quant/blockwise.hpp"
#include "lowrank/quant/weight.hpp"

namespace lowrank {

/// A weight as blockwise codes. Rounded stochastically by default: updates are mostly far below one code, and nearest
/// rounding would lose them. No fp32 copy of the matrix ever exists; a panel is the consumer's scratch.
/// `codes.layout` is flat (one line of rows * cols: the smallest, panels are then whole multiples of `row_quantum` rows) or a
/// line for each row. A block that would become NaN or infinite keeps its old codes.
/// Reference: Zhang et al., "Q-GaLore", arXiv 2407.08296, section 3.4; rounding in fp32 here, not in bf16.
template <block_codec Codec = codec::affine<8>, int Block = 256, memory_space Space = host_space>
struct quantized_weight {
  using space = Space;
  static constexpr bool panels = true;

  blockwise_view<Codec, Block, Space> codes;
  extents logical{};
  weight_rounding rounding{Codec::dithers ? weight_rounding::stochastic : weight_rounding::nearest};

  [[nodiscard]] extents shape() const noexcept { return logical; }
  /// Whether the codes are as many as the weight has elements, flat or in lines of a row each.
  [[nodiscard]] bool fits() const noexcept {
    return codes.layout.size() == logical.size() && (flat() || codes.layout.lines == logical.rows);
  }
  /// What it is made of, as rows of memory.
  [[nodiscard]] matrix_view<std::uint8_t, Space> code_memory() const noexcept {
    return row_major<Space>(codes.codes, {1, codes.layout.lines * code_bytes<Codec::bits>(codes.layout.length)});
  }
  [[nodiscard]] matrix_view<typename Codec::stored, Space> scale_memory() const noexcept {
    return row_major<Space>(codes.scales,
                            {1, codes.layout.lines * codes.blocks_a_line() * index_t{Codec::stored_per_block}});
  }
  [[nodiscard]] index_t row_quantum() const noexcept {
    return flat() && logical.cols > 0 ? Block / std::gcd(logical.cols, index_t{Block}) : 1;
  }
  template <executor E>
  [[nodiscard]] view_of<E> open(E& exec, index_t begin, index_t end) const {
    auto const panel = take_matrix(exec, {end - begin, logical.cols});
    dequantize(exec, part(begin, end), panel.data);
    return panel;
  }
  template <executor E>
  void close(E& exec, index_t begin, index_t end, view_of<E> panel, rng_key key, step_record const* record) const {
    auto const to = part(begin, end);
    if constexpr (Codec::dithers) {
      if (rounding == weight_rounding::stochastic) {
        index_t const element = flat() ? begin * logical.cols : begin * codes.blocks_a_line() * Block;
        return quantize_stochastic(exec, panel.data, to, key, static_cast<std::uint64_t>(element), nullptr, record);
      }
    }
    quantize(exec, panel.data, to, nullptr, record);
  }

 private:
  [[nodiscard]] bool flat() const noexcept { return codes.layout.lines == 1 && logical.rows != 1; }
  [[nodiscard]] blockwise_view<Codec, Block, Space> part(index_t begin, index_t end) const {
    require<shape_error>(fits(), "quantized_weight", "codes of ", codes.layout.lines, " lines of ", codes.layout.length,
                         " do not fit a weight of ", logical);
    return flat() ? codes.flat_range(begin * logical.cols, end * logical.cols) : codes.line_range(begin, end);
  }
};

/// The view of a weight whose codes are owned elsewhere.
template <block_codec Codec, int Block, memory_space Space>
[[nodiscard]] quantized_weight<Codec, Block, Space> as_weight(blockwise<Codec, Block, Space>& codes, extents shape) {
  require<shape_error>(codes.layout().size() == shape.size(), "as_weight", "codes of ", codes.layout().size(),
                       " elements do not fit a weight of ", shape);
  return {codes.view(), shape};
}

static_assert(weight_view<quantized_weight<>, host_executor>);

}  // namespace lowrank
