// Recorded blocks of numbers, encoded: codes, scales and zero points must be the same, and stand for the same numbers.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "fixture.hpp"
#include "lowrank/quant/blockwise.hpp"

namespace lowrank_reference {

/// Neighbouring floats are one apart, and so are the smallest of either sign and zero.
[[nodiscard]] inline std::int64_t place_of(float x) noexcept {
  auto const bits = std::bit_cast<std::int32_t>(x);
  return bits < 0 ? std::int64_t{std::numeric_limits<std::int32_t>::min()} - bits : std::int64_t{bits};
}

/// What a file of the format `lowrank-codec-1` holds.
struct recorded_blocks {
  std::vector<float> input, scales, zeros, map, dequantized;
  std::vector<std::uint8_t> codes;
  bool packed{};

  explicit recorded_blocks(fixture const& source) {
    using namespace lowrank;
    auto const floats = [&](char const* name) {
      auto const held = source.read(name);
      std::vector<float> out(held.data(), held.data() + held.shape().size());
      require<fixture_error>(std::ranges::all_of(out, [](float x) { return is_finite(x); }), "replay", "tensor ", name,
                             " is not finite");
      return out;
    };
    input = floats("input");
    scales = floats("scales");
    if (source.file.find("zeros") != nullptr) zeros = floats("zeros");
    if (source.file.find("map") != nullptr) map = floats("map");
    dequantized = floats("dequantized");
    codes.resize(static_cast<std::size_t>(source.file.at("codes").bytes()));
    source.file.read("codes", std::span{codes});
    auto const packing = source.metadata("packing");
    packed = packing == "two codes per byte, the element of even index in the high nibble";
    require<fixture_error>(packed || packing == "one code per byte", "replay", "packing is \"", packing, "\"");
    std::size_t const wanted = packed ? (input.size() + 1) / 2 : input.size();
    require<fixture_error>(!input.empty() && dequantized.size() == input.size() && codes.size() == wanted, "replay",
                           "there are ", input.size(), " numbers, ", codes.size(), " bytes of codes and ",
                           dequantized.size(), " decoded numbers");
  }
  [[nodiscard]] std::uint8_t code(std::size_t i) const noexcept {
    if (!packed) return codes[i];
    return static_cast<std::uint8_t>(i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 0xFU);
  }
};

/// Encodes and decodes as recorded.  Throws: fixture_error that names the first difference.
template <int Block, class Codec>
void replay_blocks(recorded_blocks const& recorded, std::string const& block_size, Codec codec) {
  using namespace lowrank;
  require<fixture_error>(block_size == std::to_string(Block), "replay", "block_size is ", block_size, ", needs ",
                         Block);
  auto const count = static_cast<index_t>(recorded.input.size());
  auto const blocks = static_cast<std::size_t>((count + Block - 1) / Block);
  std::size_t const entries = recorded.map.size();
  constexpr bool has_book = requires { codec.sign; }
  || requires { codec.name; };
  require<fixture_error>(recorded.scales.size() == blocks &&
                             recorded.zeros.size() == (Codec::stored_per_block == 2 ? blocks : 0) &&
                             entries == (has_book ? std::size_t{1} << Codec::bits : 0),
                         "replay", "there are ", blocks, " blocks, ", recorded.scales.size(), " scales, ",
                         recorded.zeros.size(), " zeros and a map of ", entries);
  for (std::size_t q = 0; q < entries; ++q) {
    float const ours = codec.decode(static_cast<std::int32_t>(q), block_scale{.scale = 1});
    require<fixture_error>(ours == recorded.map[q], "replay", "map[", q, "] is ", recorded.map[q], ", ours ", ours);
  }

  host_executor exec;
  blockwise<Codec, Block> kept{{1, count}, codec};
  auto const view = kept.view();
  quantize(exec, recorded.input.data(), view);
  for (std::size_t b = 0; b < blocks; ++b) {
    float const* const shared = view.scales + b * Codec::stored_per_block;
    require<fixture_error>(shared[0] == recorded.scales[b], "replay", "scale ", b, " is ", recorded.scales[b],
                           ", ours ", shared[0]);
    if constexpr (Codec::stored_per_block == 2)
      require<fixture_error>(shared[1] == recorded.zeros[b], "replay", "zero ", b, " is ", recorded.zeros[b], ", ours ",
                             shared[1]);
  }
  for (std::size_t i = 0; i < recorded.input.size(); ++i) {
    int const byte = view.codes[Codec::bits == 4 ? i / 2 : i];
    int const ours = Codec::bits == 8 ? byte : i % 2 == 0 ? byte >> 4 : byte & 0xF;
    require<fixture_error>(ours == recorded.code(i), "replay", "the code of ", recorded.input[i], ", element ", i,
                           ", is ", int{recorded.code(i)}, ", ours ", ours);
  }
  std::vector<float> decoded(recorded.input.size());
  dequantize(exec, view, decoded.data());
  for (std::size_t i = 0; i < decoded.size(); ++i)
    require<fixture_error>(std::abs(place_of(decoded[i]) - place_of(recorded.dequantized[i])) <= 1, "replay",
                           "element ", i, " is ", recorded.dequantized[i], ", ours ", decoded[i]);
}

/// Throws: fixture_error where a file is not what the format says, or where our codec disagrees with it.
inline void replay_codec(fixture const& source) {
  using namespace lowrank;
  using codec::range_rule, codec::scale_floor;
  constexpr auto floor = scale_floor::at_1e_12;
  constexpr codec::book4<> nf4;
  constexpr codec::book4<tie_rule::up, floor> dynamic4{codec::book4_name::dynamic},
      linear4{codec::book4_name::sixteenths};
  constexpr codec::dynamic8<> down{signedness::with_sign}, down_unsigned{signedness::nonnegative};
  constexpr codec::dynamic8<tie_rule::up, floor> up{signedness::with_sign}, up_unsigned{signedness::nonnegative};

  recorded_blocks const blocks{source};
  auto const size = source.metadata("block_size");
  std::map<std::string, std::function<void()>> const codecs{
      {"bnb_dynamic8_signed", [&] { replay_blocks<256>(blocks, size, down); }},
      {"bnb_dynamic8_unsigned", [&] { replay_blocks<256>(blocks, size, down_unsigned); }},
      {"bnb_nf4", [&] { replay_blocks<64>(blocks, size, nf4); }},
      {"torchao_dynamic8_signed", [&] { replay_blocks<256>(blocks, size, up); }},
      {"torchao_dynamic8_unsigned", [&] { replay_blocks<256>(blocks, size, up_unsigned); }},
      {"torchao_4bit_signed", [&] { replay_blocks<128>(blocks, size, dynamic4); }},
      {"torchao_4bit_unsigned", [&] { replay_blocks<128>(blocks, size, linear4); }},
      {"torchao_fp8_e4m3", [&] { replay_blocks<256>(blocks, size, codec::fp8<>{}); }},
      {"asymmetric_int8_reference",
       [&] { replay_blocks<256>(blocks, size, codec::affine<8, range_rule::as_measured, float>{}); }},
      {"asymmetric_int4_reference",
       [&] { replay_blocks<256>(blocks, size, codec::affine<4, range_rule::as_measured, float>{}); }},
      {"asymmetric_int8_with_zero",
       [&] { replay_blocks<256>(blocks, size, codec::affine<8, range_rule::with_zero, float>{}); }},
      {"asymmetric_int4_with_zero",
       [&] { replay_blocks<256>(blocks, size, codec::affine<4, range_rule::with_zero, float>{}); }},
  };
  auto const name = source.metadata("codec");
  auto const found = codecs.find(name);
  require<fixture_error>(found != codecs.end(), "replay", "there is no codec \"", name, "\"");
  found->second();
}

}  // namespace lowrank_reference
