// Codes in memory: packing, blocks, lines, ranges, bytes, and who may write what.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "lowrank/quant/blockwise.hpp"
#include "support/codecs.hpp"
#include "support/optimizers.hpp"

namespace blockwise_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("blockwise");

std::vector<float> numbers(index_t count, std::uint64_t seed = 1) {
  std::vector<float> out;
  for (index_t i = 0; i < count; ++i)
    out.push_back(gaussian({.seed = seed, .purpose = rng_purpose::data}, static_cast<std::uint64_t>(i)));
  return out;
}
template <class Codec, int Block>
std::vector<std::uint8_t> codes_in(blockwise<Codec, Block>& kept) {
  auto const view = kept.view();
  index_t const bytes = view.layout.lines * code_bytes<Codec::bits>(view.layout.length);
  return {view.codes, view.codes + bytes};
}
template <class Codec, int Block>
std::vector<float> decoded(host_executor& exec, blockwise<Codec, Block>& kept) {
  std::vector<float> out(static_cast<std::size_t>(kept.layout().size()));
  dequantize(exec, kept.view(), out.data());
  return out;
}
template <class Codec, int Block>
bool equal(blockwise<Codec, Block> const& a, blockwise<Codec, Block> const& b) {
  return states_equal(a, b);
}

TEST_CASE("two codes share a byte: the element of even index is the high half, an unused half is zero") {
  host_executor exec{{.threads = 1}};
  // k / 16 has code k - 1.
  codec::book4<> const codec{codec::book4_name::sixteenths};
  std::vector<float> const x{2 / 16.0F, 16 / 16.0F, 11 / 16.0F, 1 / 16.0F, 8 / 16.0F};
  blockwise<codec::book4<>, 32> kept{{1, 5}, codec};
  quantize(exec, x.data(), kept.view());
  CHECK(codes_in(kept) == std::vector<std::uint8_t>{0x1F, 0xA0, 0x70});
  CHECK(decoded(exec, kept) == x);
}

/// Every block by itself, number by number.
template <int Block, class Codec>
void check_against_numbers(Codec const& codec, block_layout layout) {
  CAPTURE(layout.lines);
  CAPTURE(layout.length);
  CAPTURE(Block);
  host_executor exec{{.threads = 2}};
  auto const x = numbers(layout.size());
  blockwise<Codec, Block> kept{layout, codec};
  quantize(exec, x.data(), kept.view());
  auto const back = decoded(exec, kept);
  auto const codes = codes_in(kept);
  rng_key key{.seed = 7, .step = 3, .tensor = 9, .purpose = rng_purpose::basis};
  blockwise<Codec, Block> shaken{layout, codec};
  constexpr std::uint64_t element = std::uint64_t{8} << 35;
  if constexpr (Codec::dithers) quantize_stochastic(exec, x.data(), shaken.view(), key, element);
  auto const random = codes_in(shaken);
  key.purpose = rng_purpose::rounding;
  index_t const padded = (layout.length + Block - 1) / Block * Block;
  index_t scale_at = 0;
  int wrong = 0;
  for (index_t l = 0; l < layout.lines; ++l)
    for (index_t first = 0; first < layout.length; first += Block) {
      index_t const end = std::min<index_t>(first + Block, layout.length);
      auto const* const line = x.data() + l * layout.length;
      auto const shared = shared_by(codec, std::vector<float>(line + first, line + end));
      auto const* const stored = kept.view().scales + scale_at++ * Codec::stored_per_block;
      wrong += to_float(stored[0]) != shared.scale;
      if constexpr (Codec::stored_per_block == 2) wrong += to_float(stored[1]) != shared.zero;
      for (index_t i = first; i < end; ++i) {
        auto const code_in = [&](std::vector<std::uint8_t> const& all) -> int {
          auto const at = l * code_bytes<Codec::bits>(layout.length) + (Codec::bits == 4 ? i / 2 : i);
          int const byte = all[static_cast<std::size_t>(at)];
          return Codec::bits == 8 ? byte : i % 2 == 0 ? byte >> 4 : byte & 0xF;
        };
        int const q = code_of(codec, line[i], shared);
        wrong += code_in(codes) != q;
        wrong += back[static_cast<std::size_t>(l * layout.length + i)] != value_of(codec, q, shared);
        if constexpr (Codec::dithers) {
          auto const k = random_16(key, element + static_cast<std::uint64_t>(l * padded + i));
          wrong += code_in(random) != code_of(codec, line[i], shared, static_cast<float>(k) * 0x1p-16F);
        }
      }
    }
  CHECK(wrong == 0);
}

TEST_CASE("a buffer is its blocks, each its numbers: any length, any tail, lines of any length, any block") {
  auto const everywhere = [](auto const& codec) {
    for (index_t const length : {0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 255, 256, 257, 511, 513, 1000}) {
      check_against_numbers<32>(codec, {1, length});
      check_against_numbers<256>(codec, {1, length});
    }
    for (auto const layout : {block_layout{7, 1}, {5, 31}, {3, 65}, {40, 257}, {0, 9}, {4, 0}, {100, 300}})
      check_against_numbers<32>(codec, layout);
    check_against_numbers<4096>(codec, {1, 9001});
    check_against_numbers<256>(codec, {1, 70003});
  };
  everywhere(codec::affine<8>{});
  everywhere(codec::affine<4, codec::range_rule::with_zero, float>{});
  everywhere(codec::symmetric<4>{});
  everywhere(codec::dynamic8<>{});
  everywhere(codec::book4<>{});
  everywhere(codec::fp8<>{});
}

TEST_CASE("nothing beyond the last code or scale is written, and nothing beyond the last number") {
  host_executor exec{{.threads = 2}};
  for_every_codec([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    using stored = typename kind::stored;
    for (index_t const length : {1, 33, 64, 77, 129}) {
      auto const x = numbers(length);
      auto const bytes = static_cast<std::size_t>(code_bytes<kind::bits>(length));
      std::vector<std::uint8_t> codes(bytes + 64, 0xA5);
      auto const count = static_cast<std::size_t>((length + 63) / 64 * kind::stored_per_block);
      std::vector<stored> scales(count + 2, from_float<stored>(77));
      blockwise_view<kind, 64> const view{codes.data(), scales.data(), {1, length}, codec};
      quantize(exec, x.data(), view);
      CHECK(std::all_of(codes.begin() + static_cast<std::ptrdiff_t>(bytes), codes.end(),
                        [](auto c) { return c == 0xA5; }));
      CHECK(to_float(scales[count]) == 77);
      std::vector<float> back(static_cast<std::size_t>(length) + 64, 99.0F);
      dequantize(exec, view, back.data());
      CHECK(std::all_of(back.begin() + length, back.end(), [](float v) { return v == 99; }));
    }
  });
}

TEST_CASE("what lies in a tile behind the last element takes part in nothing") {
  for_every_codec([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    basic_host_tile<64 / pack::width> const tile;
    auto x = numbers(64);
    blockwise<kind, 64> clean{{1, 21}, codec}, other{{1, 21}, codec};
    clean.view().save(tile, tile.load(x.data(), 21), 0, 0, 21);
    std::fill(x.begin() + 21, x.end(), 1e30F);
    x[40] = std::numeric_limits<float>::infinity();
    x[50] = std::numeric_limits<float>::quiet_NaN();
    CHECK(other.view().save(tile, tile.load(x.data(), 64), 0, 0, 21));
    CHECK(equal(clean, other));
  });
}

TEST_CASE("a new buffer, and a zeroed one, holds zeros") {
  host_executor exec{{.threads = 1}};
  for_every_codec([&](std::string const& name, auto const& codec) {
    CAPTURE(name);
    blockwise<std::remove_cvref_t<decltype(codec)>, 128> kept{{1, 300}, codec};
    auto const is_zero = [](float v) { return v == 0; };
    auto const born = decoded(exec, kept);
    CHECK(std::all_of(born.begin(), born.end(), is_zero));
    auto const x = numbers(300);
    quantize(exec, x.data(), kept.view());
    CHECK(decoded(exec, kept) != born);
    kept.zero(exec);
    auto const again = decoded(exec, kept);
    CHECK(std::all_of(again.begin(), again.end(), is_zero));
  });
}

TEST_CASE("ranges are the whole, part by part") {
  host_executor exec{{.threads = 2}};
  auto const check = [&](auto const& codec) {
    using kind = std::remove_cvref_t<decltype(codec)>;
    auto const x = numbers(1000);
    blockwise<kind, 64> whole{{1, 1000}, codec}, parts{{1, 1000}, codec};
    quantize(exec, x.data(), whole.view());
    for (auto const& [begin, end] : {std::pair<index_t, index_t>{640, 1000}, {0, 64}, {64, 640}})
      quantize(exec, x.data() + begin, parts.view().flat_range(begin, end));
    CHECK(equal(whole, parts));
    std::vector<float> back(232);
    dequantize(exec, whole.view().flat_range(768, 1000), back.data());
    auto const all = decoded(exec, whole);
    CHECK(std::equal(back.begin(), back.end(), all.begin() + 768));

    blockwise<kind, 64> lines{{25, 77}, codec}, rows{{25, 77}, codec};
    auto const y = numbers(25 * 77);
    quantize(exec, y.data(), lines.view());
    for (auto const& [begin, end] : {std::pair<index_t, index_t>{11, 25}, {0, 1}, {1, 11}})
      quantize(exec, y.data() + begin * 77, rows.view().line_range(begin, end));
    CHECK(equal(lines, rows));
  };
  check(codec::affine<8>{});
  check(codec::affine<4>{});
  check(codec::dynamic8<>{});
  check(codec::book4<>{});
}

TEST_CASE("bytes: what is held, what was promised, and the published numbers") {
  for_every_codec([](std::string const& name, auto const& codec) {
    CAPTURE(name);
    using kind = std::remove_cvref_t<decltype(codec)>;
    for (auto const layout : {block_layout{1, 0}, {1, 1}, {1, 255}, {1, 257}, {3, 100}, {0, 5}, {9, 512}}) {
      blockwise<kind, 256> const kept{layout, codec};
      index_t const blocks = layout.lines * ((layout.length + 255) / 256);
      index_t const codes = layout.lines * (kind::bits == 8 ? layout.length : (layout.length + 1) / 2);
      CHECK(kept.bytes() == codes + blocks * kind::stored_per_block * index_t{sizeof(typename kind::stored)});
      CHECK(blockwise_bytes<kind, 256>(layout) == kept.bytes());
      CHECK(state_bytes(kept) == kept.bytes());
      CHECK(kept.view().bytes() == kept.bytes());
    }
  });
  // Q-GaLore: half a byte an element, and four bytes for 256 of them; NF4 in blocks of 64: 4.5 bits.
  CHECK(blockwise_bytes<codec::affine<4>, 256>({1, 1 << 20}) == (1 << 19) + 4 * (1 << 12));
  CHECK(blockwise_bytes<codec::book4<>, 64>({1, 1 << 20}) * 8 == 9 << 19);
}

TEST_CASE("sizes that cannot be meant are refused") {
  using eight = blockwise<codec::affine<8>>;
  CHECK(refusal<shape_error>([] { eight{{-1, 4}}; }).find("lines >= 0") != std::string::npos);
  CHECK(refusal<shape_error>([] { eight{{1, -4}}; }).find("length >= 0") != std::string::npos);
  CHECK(refusal<shape_error>([] { eight{{index_t{1} << 40, index_t{1} << 40}}; }).find("2^59") != std::string::npos);
}

TEST_CASE("a skipped step writes no code and no scale") {
  host_executor exec{{.threads = 2}};
  auto const x = numbers(600), y = numbers(600, 2);
  step_record const skipped{.skip = 1}, taken{};
  blockwise<codec::affine<8>, 256> before{{1, 600}}, after{{1, 600}};
  quantize(exec, x.data(), before.view());
  quantize(exec, x.data(), after.view());
  quantize(exec, y.data(), after.view(), nullptr, &skipped);
  quantize_stochastic(exec, y.data(), after.view(), {}, 0, nullptr, &skipped);
  CHECK(equal(before, after));
  quantize(exec, y.data(), after.view(), nullptr, &taken);
  CHECK_FALSE(equal(before, after));
}

TEST_CASE("random codes depend on seed, step, tensor and place, not on what the key was for") {
  host_executor exec{{.threads = 2}};
  auto const x = numbers(3000);
  auto const shaken = [&](rng_key const& key, std::uint64_t element) {
    blockwise<codec::affine<8>, 256> kept{{1, 3000}};
    quantize_stochastic(exec, x.data(), kept.view(), key, element);
    return codes_in(kept);
  };
  auto const base = shaken({1, 2, 3, rng_purpose::basis}, 0);
  CHECK(shaken({1, 2, 3, rng_purpose::sketch}, 0) == base);
  CHECK(shaken({2, 2, 3, rng_purpose::basis}, 0) != base);
  CHECK(shaken({1, 3, 3, rng_purpose::basis}, 0) != base);
  CHECK(shaken({1, 2, 4, rng_purpose::basis}, 0) != base);
  CHECK(shaken({1, 2, 3, rng_purpose::basis}, 8) != base);
}

TEST_SUITE_END();
TEST_SUITE_BEGIN("threads");

TEST_CASE("codes and scales are the same bits for any number of threads") {
  auto const check = [](auto const& codec, block_layout layout) {
    using kind = std::remove_cvref_t<decltype(codec)>;
    auto const x = numbers(layout.size());
    auto const made = [&](int threads) {
      host_executor exec{{.threads = threads}};
      blockwise<kind, 256> kept{layout, codec};
      if constexpr (kind::dithers) quantize_stochastic(exec, x.data(), kept.view(), {5, 6, 7, rng_purpose::rounding});
      else quantize(exec, x.data(), kept.view());
      auto out = saved(kept);
      auto const back = decoded(exec, kept);
      out.emplace_back("decoded", std::vector<std::byte>(back.size() * sizeof(float)));
      std::memcpy(out.back().second.data(), back.data(), back.size() * sizeof(float));
      return out;
    };
    auto const one = made(1);
    for (int const threads : {2, 3, 8}) CHECK(made(threads) == one);
  };
  for (auto const layout : {block_layout{1, 100003}, {333, 301}}) {
    check(codec::affine<8>{}, layout);
    check(codec::affine<4>{}, layout);
    check(codec::symmetric<8>{}, layout);
    check(codec::dynamic8<>{}, layout);
    check(codec::book4<>{}, layout);
    check(codec::fp8<>{}, layout);
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace blockwise_test
