/// @file
/// Blockwise storage: codes, and what each block of consecutive elements shares. An owner and a view of any codec.
#pragma once

#include "lowrank/core/step_record.hpp"
#include "lowrank/core/visit.hpp"
#include "lowrank/quant/codecs.hpp"

namespace lowrank {

/// `lines` lines of `length` elements each, cut into blocks of `Block` elements; the last block of a line may be shorter.
/// One line: a flat buffer, blocks run over row ends. A line for each row: rows can be rewritten alone.
struct block_layout {
  index_t lines{1}, length{};

  [[nodiscard]] constexpr index_t size() const noexcept { return lines * length; }
  [[nodiscard]] constexpr extents shape() const noexcept { return {lines, length}; }
  friend constexpr bool operator==(block_layout const&, block_layout const&) = default;
};

namespace detail {

[[nodiscard]] constexpr index_t blocks_of(block_layout l, index_t block) noexcept {
  return l.lines * ((l.length + block - 1) / block);
}
/// Refuses layouts whose bytes do not fit an index.
inline void check_layout(block_layout l, char const* caller) {
  constexpr index_t most = std::numeric_limits<index_t>::max() / 16;
  require<shape_error>(l.lines >= 0 && l.length >= 0 && (l.length == 0 || l.lines <= most / l.length), caller,
                       "needs lines >= 0 of length >= 0 with a product below 2^59, got ", l.lines, " lines of ",
                       l.length);
}

}  // namespace detail

/// Bytes of codes and of scales.
template <block_codec Codec, int Block>
[[nodiscard]] constexpr index_t blockwise_bytes(block_layout l) noexcept {
  return l.lines * code_bytes<Codec::bits>(l.length) +
         detail::blocks_of(l, Block) * Codec::stored_per_block * index_t{sizeof(typename Codec::stored)};
}

/// Somebody's codes and scales. Trivially copyable.
template <block_codec Codec, int Block = 256, memory_space Space = host_space>
struct blockwise_view {
  static_assert(Block % 32 == 0 && Block >= 32 && Block <= 4096, "lowrank: blocks are multiples of 32 up to 4096");
  using space = Space;
  using stored = typename Codec::stored;
  static constexpr int block = Block;
  /// Beyond, the inverse of a scale is subnormal, and a number rounded up can decode to an infinity.
  static constexpr float largest_number = 0x1p126F;

  std::uint8_t* codes{};
  stored* scales{};
  block_layout layout{};
  Codec codec{};  // not [[no_unique_address]]: host and device compilers disagree about its place

  [[nodiscard]] LOWRANK_HD constexpr index_t blocks_a_line() const noexcept {
    return (layout.length + Block - 1) / Block;
  }
  [[nodiscard]] constexpr index_t bytes() const noexcept { return blockwise_bytes<Codec, Block>(layout); }

  /// Part of a flat buffer: `begin` a multiple of Block. Part of lines: whole lines.
  [[nodiscard]] blockwise_view flat_range(index_t begin, index_t end) const noexcept {
    return {codes + code_bytes<Codec::bits>(begin),
            scales + begin / Block * Codec::stored_per_block,
            {1, end - begin},
            codec};
  }
  [[nodiscard]] blockwise_view line_range(index_t begin, index_t end) const noexcept {
    return {codes + begin * code_bytes<Codec::bits>(layout.length),
            scales + begin * blocks_a_line() * Codec::stored_per_block,
            {end - begin, layout.length},
            codec};
  }

  // For tile bodies: element `first` of line `line` begins a block.
  [[nodiscard]] LOWRANK_HD std::uint8_t* codes_at(index_t line, index_t first) const noexcept {
    return codes + line * code_bytes<Codec::bits>(layout.length) + code_bytes<Codec::bits>(first);
  }
  [[nodiscard]] LOWRANK_HD stored* scale_at(index_t line, index_t first) const noexcept {
    return scales + (line * blocks_a_line() + first / Block) * Codec::stored_per_block;
  }
  template <class Tile>
  [[nodiscard]] LOWRANK_HD typename Tile::fragment load(Tile tile, index_t line, index_t first,
                                                        index_t valid) const noexcept {
    auto const* const kept = scale_at(line, first);
    block_scale shared{to_float(kept[0]), 0};
    if constexpr (Codec::stored_per_block == 2) shared.zero = to_float(kept[1]);
    if constexpr (requires { codec.values(); })
      return tile.load_bytes(codes_at(line, first), valid, codec, shared.scale);
    else
      return tile.template load_codes<Codec::bits>(codes_at(line, first), valid,
                                                   [&](auto q) { return codec.decode(q, shared); });
  }
  /// False, and nothing written, where f is not finite, or beyond `largest_number`.
  template <class Tile>
  LOWRANK_HD bool save(Tile tile, typename Tile::fragment const& f, index_t line, index_t first,
                       index_t valid) const noexcept {
    block_scale shared;
    if (!keep_scale(tile, f, line, first, valid, shared)) return false;
    if constexpr (requires { codec.encode_many(codes, f.data(), valid, shared); } && Tile::size % 64 == 0)
      if (valid == Tile::size) {
        codec.encode_many(codes_at(line, first), f.data(), valid, shared);
        return true;
      }
    tile.template store_codes<Codec::bits>(codes_at(line, first), f, valid,
                                           [&](auto x) { return codec.encode(x, shared); });
    return true;
  }
  /// The same, rounded up or down at random so that the mean is f.
  template <class Tile>
  LOWRANK_HD bool save(Tile tile, typename Tile::fragment const& f, index_t line, index_t first, index_t valid,
                       rng_key const& key, std::uint64_t element) const noexcept requires(Codec::dithers) {
    block_scale shared;
    if (!keep_scale(tile, f, line, first, valid, shared)) return false;
    tile.template store_codes<Codec::bits>(
        codes_at(line, first), f, valid, [&](auto x, auto u) { return codec.encode(x, shared, u); },
        tile.uniform_16(key, element));
    return true;
  }

 private:
  template <class Tile>
  LOWRANK_HD bool keep_scale(Tile tile, typename Tile::fragment const& f, index_t line, index_t first, index_t valid,
                             block_scale& shared) const noexcept {
    auto const range = [&] {
      if constexpr (Codec::takes_magnitude) return tile.magnitude(f, valid);
      else return tile.range(f, valid);
    }();
    if (!range.finite || detail::largest_magnitude(range) > largest_number) return false;
    shared = codec.fit(range);
    tile.once([&, kept = scale_at(line, first)] {
      kept[0] = from_float<stored>(shared.scale);
      if constexpr (Codec::stored_per_block == 2) kept[1] = from_float<stored>(shared.zero);
    });
    return true;
  }
};

/// Owns its codes and scales. A new one holds zeros.
template <block_codec Codec, int Block = 256, memory_space Space = host_space>
class blockwise {
 public:
  using codec_type = Codec;
  using view_type = blockwise_view<Codec, Block, Space>;

  blockwise() = default;
  explicit blockwise(block_layout layout, Codec codec = {})
      : layout_{(detail::check_layout(layout, "blockwise"), layout)},
        codec_{codec},
        codes_{layout.lines * code_bytes<Codec::bits>(layout.length)},
        scales_{detail::blocks_of(layout, Block) * Codec::stored_per_block} {}

  [[nodiscard]] block_layout layout() const noexcept { return layout_; }
  [[nodiscard]] index_t bytes() const noexcept { return codes_.bytes() + scales_.bytes(); }
  [[nodiscard]] view_type view() noexcept { return {codes_.data(), scales_.data(), layout_, codec_}; }
  /// To be read: a view cannot be const inside.
  [[nodiscard]] view_type view() const noexcept { return const_cast<blockwise*>(this)->view(); }
  template <executor E>
  void zero(E& exec) {
    clear(exec, codes_);
    clear(exec, scales_);
  }

  template <class F>
  friend void visit_state(blockwise& b, F&& f) {
    f("codes", b.codes_);
    f("scales", b.scales_);
  }

 private:
  block_layout layout_{0, 0};
  Codec codec_{};
  buffer<std::uint8_t, Space> codes_;
  buffer<typename Codec::stored, Space> scales_;
};

/// values[line * length + i] = what the codes stand for.
/// Cost: reads the codes, writes 4 bytes an element; workspace 0.
template <executor E, class Codec, int Block>
void dequantize(E& exec, blockwise_view<Codec, Block, typename E::space> from, float* values) {
  launch_output_rows<Block>(
      exec, from.layout.shape(), [=] LOWRANK_DEVICE(auto tile, index_t line, index_t first, index_t valid) {
        tile.store(values + line * from.layout.length + first, from.load(tile, line, first, valid), valid);
      });
}
/// Codes of packed values, to nearest. A block with a NaN, an infinity or a number beyond 2^126 keeps what it had, and
/// *nonfinite becomes 1; it is not touched otherwise. Nothing is written on record->skip. `nonfinite` and `record` may be null.
template <executor E, class Codec, int Block>
void quantize(E& exec, float const* values, blockwise_view<Codec, Block, typename E::space> to,
              std::int32_t* nonfinite = nullptr, step_record const* record = nullptr) {
  launch_rows<Block>(exec, to.layout.shape(),
                     [=] LOWRANK_DEVICE(auto tile, index_t line, index_t first, index_t valid) {
                       if (record != nullptr && record->skip != 0) return;
                       auto const f = tile.load(values + line * to.layout.length + first, valid);
                       if (!to.save(tile, f, line, first, valid) && nonfinite != nullptr) tile.raise(nonfinite);
                     });
}
/// The same, rounded at random without bias: element i of line l takes `random_16(key, element + l * padded + i)`, where
/// `padded` is the length up to the next multiple of Block. The same for any number of threads.
/// Requires: `element` a multiple of 8.
template <executor E, class Codec, int Block>
void quantize_stochastic(E& exec, float const* values, blockwise_view<Codec, Block, typename E::space> to, rng_key key,
                         std::uint64_t element = 0, std::int32_t* nonfinite = nullptr,
                         step_record const* record = nullptr) {
  static_assert(Codec::dithers, "lowrank: only codecs with equal steps are rounded stochastically");
  key.purpose = rng_purpose::rounding;
  index_t const padded = to.blocks_a_line() * Block;
  launch_rows<Block>(
      exec, to.layout.shape(), [=] LOWRANK_DEVICE(auto tile, index_t line, index_t first, index_t valid) {
        if (record != nullptr && record->skip != 0) return;
        auto const f = tile.load(values + line * to.layout.length + first, valid);
        auto const now = record != nullptr ? key.later(record->replays) : key;
        if (!to.save(tile, f, line, first, valid, now, element + static_cast<std::uint64_t>(line * padded + first)) &&
            nonfinite != nullptr)
          tile.raise(nonfinite);
      });
}

}  // namespace lowrank
