/// @file
/// Codes whose scales are codes again: NF4 as QLoRA stores a frozen weight.
#pragma once

#include <span>

#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/reductions.hpp"
#include "lowrank/quant/blockwise.hpp"

namespace lowrank {

/// A flat buffer in blocks of `Block` elements. Each block's scale, less the mean of all scales, is one of 256 numbers of a
/// dynamic map, blocks of 256 of them sharing an fp32. By default 4 + 8/64 + 32/(64 * 256) = 4.127 bits an element, where
/// blockwise NF4 has 4.5. A new one holds zeros.
/// Reference: Dettmers et al., "QLoRA", arXiv 2305.14314, section 3, "Double Quantization"; bitsandbytes.
template <block_codec Codec = codec::book4<>, int Block = 64, memory_space Space = host_space>
class double_quantized {
  static_assert(Codec::stored_per_block == 1 && std::same_as<typename Codec::stored, float>,
                "lowrank: scales that are quantized again are one fp32 a block");

 public:
  static constexpr index_t block = Block;
  using scales_type = blockwise<codec::dynamic8<>, 256, Space>;

  double_quantized() = default;
  explicit double_quantized(index_t count, Codec codec = {})
      : count_{(detail::check_layout({1, count}, "double_quantized"), count)},
        codec_{codec},
        codes_{code_bytes<Codec::bits>(count)},
        scales_{{1, blocks_of(count)}},
        mean_{1} {}

  [[nodiscard]] index_t size() const noexcept { return count_; }
  [[nodiscard]] index_t blocks() const noexcept { return blocks_of(count_); }
  [[nodiscard]] index_t bytes() const noexcept { return bytes(count_); }
  [[nodiscard]] static constexpr index_t bytes(index_t count) noexcept {
    return code_bytes<Codec::bits>(count) + blockwise_bytes<codec::dynamic8<>, 256>({1, blocks_of(count)}) +
           index_t{sizeof(float)};
  }
  /// Scratch that `quantize` and `dequantize` take for all of it.
  [[nodiscard]] static constexpr index_t workspace_bytes(index_t count) noexcept {
    return 2 * scratch_bytes<float>(blocks_of(count)) + scratch_bytes<double>(1);
  }
  /// Scratch that `dequantize` takes for a part of `count` elements, wherever it begins.
  [[nodiscard]] static constexpr index_t part_workspace_bytes(index_t count) noexcept {
    return scratch_bytes<float>(blocks_of(count) + scales_type::view_type::block);
  }

  /// Codes of packed finite values, to nearest. Where one is not finite, *nonfinite becomes 1 and its block holds nothing
  /// useful. `nonfinite` may be null.
  template <executor E>
  friend void quantize(E& exec, float const* values, double_quantized& to, std::int32_t* nonfinite = nullptr) {
    index_t const blocks = blocks_of(to.count_);
    if (blocks == 0) return;
    scratch_scope const scope{exec};
    auto const scales = take_matrix(exec, {1, blocks});
    fill(exec, scales, 0.0F);
    quantize(exec, values, to.with(scales.data), nonfinite);
    keep_scales(exec, scales.data, to);
  }
  /// Keeps these scales, one a block, as they are kept: nearest codes of their distances from their mean. Codes of elements
  /// stay as they are. Whoever chooses codes for given scales asks `open_scales` afterwards what the scales have become;
  /// `scales` itself holds their distances then.
  template <executor E>
  friend void keep_scales(E& exec, float* scales, double_quantized& to) {
    index_t const blocks = blocks_of(to.count_);
    if (blocks == 0) return;
    scratch_scope const scope{exec};
    auto const taken = row_major<Space>(scales, {1, blocks}), ones = take_matrix(exec, {1, blocks});
    auto* const sum = exec.arena().template take<double>(1);
    fill(exec, ones, 1.0F);
    inner_product(exec, const_view_of<E>(taken), const_view_of<E>(ones), sum);
    set_mean(exec, sum, blocks, to.mean_.data());
    add_mean(exec, scales, blocks, -1.0F, to.mean_.data());
    quantize(exec, scales, to.scales_.view());
  }
  /// scales[b] = what block b is multiplied with.
  template <executor E>
  friend void open_scales(E& exec, double_quantized const& from, float* scales) {
    index_t const blocks = blocks_of(from.count_);
    if (blocks == 0) return;
    dequantize(exec, from.scales_.view(), scales);
    add_mean(exec, scales, blocks, 1.0F, from.mean_.data());
  }
  /// values[i] = what the codes stand for.
  template <executor E>
  friend void dequantize(E& exec, double_quantized const& from, float* values) {
    dequantize(exec, from, 0, from.count_, values);
  }
  /// values[i - begin] = what the codes stand for, for elements [begin, end): a panel of a matrix.
  /// Requires: `begin` a multiple of Block.  Throws: shape_error.
  template <executor E>
  friend void dequantize(E& exec, double_quantized const& from, index_t begin, index_t end, float* values) {
    require<shape_error>(0 <= begin && begin <= end && end <= from.count_ && (begin % Block == 0 || begin == end),
                         "double_quantized", "needs a part of ", from.count_, " elements from a multiple of ", Block,
                         ", got [", begin, ", ", end, ")");
    if (begin == end) return;
    // Blocks of scales are opened whole, so the first ones may belong to elements before `begin`.
    constexpr index_t together = scales_type::view_type::block;
    index_t const first = begin / Block, opened = first / together * together, last = blocks_of(end);
    scratch_scope const scope{exec};
    auto const scales = take_matrix(exec, {1, last - opened});
    dequantize(exec, from.scales_.view().flat_range(opened, last), scales.data);
    add_mean(exec, scales.data, last - opened, 1.0F, from.mean_.data());
    auto const whole = const_cast<double_quantized&>(from).with(nullptr);
    blockwise_view<Codec, Block, Space> const part{
        whole.codes + code_bytes<Codec::bits>(begin), scales.data + (first - opened), {1, end - begin}, from.codec_};
    dequantize(exec, part, values);
  }

  /// The packed codes, to be written by whoever chooses them.
  [[nodiscard]] std::span<std::uint8_t> codes() noexcept requires std::same_as<Space, host_space> {
    return codes_.span();
  }
  [[nodiscard]] Codec codec() const noexcept { return codec_; }

  template <class F>
  friend void visit_state(double_quantized& d, F&& f) {
    f("codes", d.codes_);
    visit_state(d.scales_, prefixed(f, "scale."));
    f("scale.mean", d.mean_);
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function, nor from a friend
  template <executor E>
  static void set_mean(E& exec, double const* sum, index_t count, float* mean) {
    exec.single([=] LOWRANK_DEVICE { *mean = static_cast<float>(*sum / static_cast<double>(count)); });
  }
  template <executor E>
  static void add_mean(E& exec, float* scales, index_t blocks, float sign, float const* mean) {
    launch_elements(exec, blocks, [=] LOWRANK_DEVICE(auto tile, index_t first, index_t valid) {
      using real = typename decltype(tile)::real;
      auto f = tile.load(scales + first, valid);
      real const shift{sign * *mean};
      tile.each([&](auto k) { f[k] = f[k] + shift; });
      tile.store(scales + first, f, valid);
    });
  }

 private:
  [[nodiscard]] static constexpr index_t blocks_of(index_t count) noexcept {
    return detail::blocks_of({1, count}, Block);
  }
  /// The codes beside scales in scratch.
  [[nodiscard]] blockwise_view<Codec, Block, Space> with(float* scales) noexcept {
    return {codes_.data(), scales, {1, count_}, codec_};
  }
  index_t count_{};
  Codec codec_{};
  buffer<std::uint8_t, Space> codes_;
  scales_type scales_;
  buffer<float, Space> mean_;
};

}  // namespace lowrank
