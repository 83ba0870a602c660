// What tiles do for codes: random numbers, ranges, and codes of any number of elements.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "lowrank/tile/tile.hpp"
#include "support/matrices.hpp"

namespace codes_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("tiles of codes");

template <int Size>
using tile_of = basic_host_tile<Size / pack::width>;

template <int Size>
void check_uniform(rng_key const& key, std::uint64_t first) {
  CAPTURE(Size);
  CAPTURE(first);
  tile_of<Size> const tile;
  std::vector<float> got(Size);
  tile.store(got.data(), tile.uniform_16(key, first), Size);
  int wrong = 0;
  for (std::size_t i = 0; i < Size; ++i) wrong += got[i] != static_cast<float>(random_16(key, first + i)) * 0x1p-16F;
  CHECK(wrong == 0);
}

TEST_CASE("the random numbers of a tile are those of its elements, at any size, also where a counter word runs over") {
  rng_key const key{.seed = 0x123456789abcdef0, .step = 77, .tensor = 0x54321, .purpose = rng_purpose::rounding};
  constexpr std::uint64_t wrap = std::uint64_t{8} << 32;  // eight elements share a block
  for (std::uint64_t const first : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{4096}, wrap - 8, wrap - 16,
                                    wrap - 128, wrap, 3 * wrap - 200}) {
    check_uniform<32>(key, first);
    check_uniform<64>(key, first);
    check_uniform<96>(key, first);
    check_uniform<128>(key, first);
    check_uniform<160>(key, first);
    check_uniform<224>(key, first);
    check_uniform<256>(key, first);
    check_uniform<512>(key, first);
    check_uniform<1056>(key, first);
    check_uniform<4096>(key, first);
  }
  check_uniform<256>({}, 0);
  check_uniform<256>({.seed = ~std::uint64_t{0}, .step = ~0U, .tensor = 0xFFFFFF, .purpose = rng_purpose::data},
                     wrap - 64);
}

TEST_CASE("the range of the first elements: nothing else counts, NaN and infinity are seen wherever they are") {
  tile_of<256> const tile;
  for (index_t const valid : {1, 2, 15, 16, 17, 100, 255, 256}) {
    CAPTURE(valid);
    auto x = random_matrix({1, 256}, static_cast<std::uint64_t>(valid));
    for (index_t const place : {index_t{0}, valid / 2, valid - 1}) {
      x(0, place) = -50;
      auto range = tile.range(tile.load(x.data(), 256), valid);
      CHECK(range.finite);
      CHECK(range.low == -50);
      CHECK(range.high == *std::max_element(x.data(), x.data() + valid));
      x(0, place) = 40;
      range = tile.range(tile.load(x.data(), 256), valid);
      CHECK(range.high == 40);
      CHECK(range.low == *std::min_element(x.data(), x.data() + valid));
      for (float const odd : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
        x(0, place) = odd;
        CHECK_FALSE(tile.range(tile.load(x.data(), 256), valid).finite);
        if (place == 0 || valid == 256) continue;
        // A whole fragment, as where a tail holds what nobody wrote.
        CHECK(tile.range(tile.load(x.data(), 256), place).finite);
      }
      x(0, place) = 0.5F;
    }
  }
  auto const nothing = tile.range(tile.load(random_matrix({1, 256}, 1).data(), 256), 0);
  CHECK(nothing.low > nothing.high);
}

template <int Bits>
void check_codes() {
  CAPTURE(Bits);
  tile_of<256> const tile;
  constexpr int most = (1 << Bits) - 1;
  std::vector<float> x(256);
  for (std::size_t i = 0; i < 256; ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 + 5) & most);
  auto const f = tile.load(x.data(), 256);
  auto const encode = [](auto v) { return truncated(v); };
  auto const decode = [](auto q) { return as_real(q) + decltype(as_real(q)){1.0F}; };
  for (index_t valid = 0; valid <= 256; ++valid) {
    std::vector<std::uint8_t> codes(300, 0xEE);
    tile.store_codes<Bits>(codes.data(), f, valid, encode);
    auto const bytes = static_cast<std::size_t>(code_bytes<Bits>(valid));
    CHECK(
        std::all_of(codes.begin() + static_cast<std::ptrdiff_t>(bytes), codes.end(), [](auto c) { return c == 0xEE; }));
    std::vector<float> back(256, -9);
    tile.store(back.data(), tile.load_codes<Bits>(codes.data(), valid, decode), 256);
    int wrong = 0;
    for (std::size_t i = 0; i < 256; ++i) {
      bool const inside = static_cast<index_t>(i) < valid;
      wrong += back[i] != (inside ? x[i] + 1 : 0.0F);
      if (inside)
        wrong += (Bits == 8 ? codes[i] : i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 0xF) != static_cast<int>(x[i]);
    }
    if (Bits == 4 && valid % 2 == 1) wrong += (codes[static_cast<std::size_t>(valid / 2)] & 0xF) != 0;
    CHECK(wrong == 0);
  }
}

TEST_CASE("codes of any number of elements: stored where they belong and nowhere else, loaded with zeros behind them") {
  check_codes<8>();
  check_codes<4>();
}

template <int Size>
void check_every_element_once() {
  host_executor exec{{.threads = 3}};
  for (index_t const count : {0, 1, Size - 1, Size, Size + 1, 50000}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
    std::atomic<int> wrong{0};
    launch_blocks<Size>(exec, count, [&](auto tile, index_t first, index_t valid) {
      wrong += tile.size != Size || first % Size != 0 || valid < 1 || valid > Size;
      for (index_t i = first; i < first + valid; ++i) ++seen[static_cast<std::size_t>(i)];
    });
    CHECK(wrong == 0);
    CHECK(std::all_of(seen.begin(), seen.end(), [](auto const& n) { return n == 1; }));
  }
}

TEST_CASE("blocks of any size cover every element once") {
  check_every_element_once<32>();
  check_every_element_once<96>();
  check_every_element_once<128>();
  check_every_element_once<4096>();
}

TEST_SUITE_END();

}  // namespace

}  // namespace codes_test
