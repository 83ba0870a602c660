/// @file
/// Kernel bodies are collective functions on tiles: `load`, `each`, `reduce`, `store` on fragments, and no thread index.
/// The host tile is plain loops over registers; a device tile spreads the same fragment over a warp.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/tile/byte_lanes.hpp"
#include "lowrank/tile/int_pack.hpp"
#include "lowrank/tile/pack.hpp"
#include "lowrank/tile/philox_lanes.hpp"

namespace lowrank {

/// What numbers lie between. Empty: low > high.
struct value_range {
  float low{std::numeric_limits<float>::infinity()}, high{-std::numeric_limits<float>::infinity()};
  bool finite{true};  ///< there was neither a NaN nor an infinity; else low and high mean nothing
};

/// Words of four-bit codes hold two: the element of even index in the high nibble.
template <int Bits>
[[nodiscard]] constexpr index_t code_bytes(index_t count) noexcept {
  return Bits == 4 ? (count + 1) / 2 : count;
}

/// `Items` registers of consecutive elements on the host.
template <int Items>
struct basic_host_tile {
  static constexpr int items = Items;               ///< registers of a fragment: what `each` counts
  static constexpr int size = Items * pack::width;  ///< elements of a tile
  using real = pack;                                ///< what a formula sees
  using fragment = std::array<pack, static_cast<std::size_t>(items)>;

  /// The first `valid` elements at p, widened to fp32; the rest are zero. Large tiles ask for what comes after them: while
  /// they compute, nobody else does.
  template <class T>
  [[nodiscard]] LOWRANK_INLINE fragment load(T const* p, index_t valid) const noexcept {
    fragment out;
    if constexpr (std::same_as<T, float>) {
      if (valid == size) {
        for (int k = 0; k < items; ++k) {
          auto const at = reinterpret_cast<std::uintptr_t>(p + k * pack::width);
          if constexpr (size >= 256) LOWRANK_PREFETCH(at + ahead);  // NOLINT(performance-no-int-to-ptr)
          out[static_cast<std::size_t>(k)] = pack::load(p + k * pack::width);
        }
        return out;
      }
    }
    alignas(64) std::array<float, size> wide{};
    for (index_t i = 0; i < valid; ++i) wide[static_cast<std::size_t>(i)] = to_float(p[i]);
    std::memcpy(&out, wide.data(), sizeof out);
    return out;
  }
  /// Writes the first `valid` elements, rounded to nearest even in T.
  template <class T>
  LOWRANK_INLINE void store(T* p, fragment const& f, index_t valid) const noexcept {
    if constexpr (std::same_as<T, float>) {
      if (valid == size) {
        for (int k = 0; k < items; ++k) f[static_cast<std::size_t>(k)].store(p + k * pack::width);
        return;
      }
    }
    alignas(64) std::array<float, size> wide;
    std::memcpy(wide.data(), &f, sizeof f);
    for (index_t i = 0; i < valid; ++i) p[i] = from_float<T>(wide[static_cast<std::size_t>(i)]);
  }
  /// f(k) for every register k of a fragment.
  template <class F>
  LOWRANK_INLINE void each(F const& f) const noexcept {
    for (int k = 0; k < items; ++k) f(static_cast<std::size_t>(k));
  }
  /// op over all elements, in the order a warp takes: neighbours in a lane, then a butterfly over the lanes.
  template <class Op>
  [[nodiscard]] LOWRANK_INLINE float reduce(float init, fragment const& f, Op const& op) const noexcept {
    constexpr int lanes = 32, per_lane = size / lanes;
    static_assert(per_lane * lanes == size, "only tiles of whole warps are reduced");
    std::array<float, size> wide;
    std::memcpy(wide.data(), &f, sizeof f);
    std::array<float, lanes> lane;
    for (int l = 0; l < lanes; ++l) {
      float value = init;
      for (int k = 0; k < per_lane; ++k) value = op(value, wide[static_cast<std::size_t>(l * per_lane + k)]);
      lane[static_cast<std::size_t>(l)] = value;
    }
    for (std::size_t step = lanes / 2; step > 0; step /= 2)
      for (std::size_t l = 0; l < step; ++l) lane[l] = op(lane[l], lane[l + step]);
    return lane[0];
  }
  /// Sum of the first `valid` elements in fp64, in the same order.
  [[nodiscard]] LOWRANK_INLINE double sum(fragment const& f, index_t valid) const noexcept {
    constexpr int lanes = 32, per_lane = size / lanes;
    static_assert(per_lane * lanes == size, "only tiles of whole warps are reduced");
    std::array<float, size> wide;
    std::memcpy(wide.data(), &f, sizeof f);
    std::array<double, lanes> lane{};
    for (index_t i = 0; i < valid; ++i)
      lane[static_cast<std::size_t>(i / per_lane)] += static_cast<double>(wide[static_cast<std::size_t>(i)]);
    for (std::size_t step = lanes / 2; step > 0; step /= 2)
      for (std::size_t l = 0; l < step; ++l) lane[l] += lane[l + step];
    return lane[0];
  }
  /// Smallest and largest of the first `valid` elements. A zero is +0.
  [[nodiscard]] LOWRANK_INLINE value_range range(fragment const& f, index_t valid) const noexcept {
    if (valid == 0) return {};
    pack low = f[0], high = f[0];
    finite_watch watch;
    if (valid == size) {
      for (auto const& x : f) {
        low = smaller(x, low);
        high = larger(x, high);
        watch.see(x);
      }
    } else {
      std::array<float, size> wide;
      std::memcpy(wide.data(), &f, sizeof f);
      for (index_t i = valid; i < size; ++i) wide[static_cast<std::size_t>(i)] = wide[0];
      low = high = pack{wide[0]};  // the first register may hold others too
      for (int k = 0; k < items; ++k) {
        auto const x = pack::load(wide.data() + k * pack::width);
        low = smaller(x, low);
        high = larger(x, high);
        watch.see(x);
      }
    }
    return {.low = smallest_of(low) + 0.0F, .high = largest_of(high) + 0.0F, .finite = watch.finite()};
  }
  /// The same where only the largest magnitude is asked for; `low` and `high` may then be any two numbers with it.
  [[nodiscard]] LOWRANK_INLINE value_range magnitude(fragment const& f, index_t valid) const noexcept {
    finite_watch watch;
    if (valid == size)
      for (auto const& x : f) watch.see(x);
    else
      for (auto const& x : first_of(f, valid)) watch.see(x);
    return {.low = 0, .high = from_bits(watch.most()), .finite = watch.finite()};
  }
  /// decode(codes) of the first `valid` codes at p, packed as `code_bytes` says; the rest are zero. `decode` takes and gives
  /// packs.
  template <int Bits, class Decode>
  [[nodiscard]] LOWRANK_INLINE fragment load_codes(std::uint8_t const* p, index_t valid,
                                                   Decode const& decode) const noexcept {
    alignas(64) std::array<std::uint8_t, size> codes{};
    auto const* from = p;
    if constexpr (Bits == 4) {
      index_t const count = code_bytes<4>(valid);
      auto const both = [&](index_t i) {
        codes[static_cast<std::size_t>(2 * i)] = static_cast<std::uint8_t>(p[i] >> 4);
        codes[static_cast<std::size_t>(2 * i + 1)] = static_cast<std::uint8_t>(p[i] & 0xFU);
      };
      if (valid == size)
        for (index_t i = 0; i < size / 2; ++i) both(i);
      else
        for (index_t i = 0; i < count; ++i) both(i);
      from = codes.data();
    } else if (valid != size) {
      std::memcpy(codes.data(), p, static_cast<std::size_t>(valid));
      from = codes.data();
    }
    fragment out;
    for (int k = 0; k < items; ++k) out[static_cast<std::size_t>(k)] = decode(int_pack::load(from + k * pack::width));
    return valid == size ? out : first_of(out, valid);
  }
  /// factor * book.values()[code] of the first `valid` bytes at p; the rest are zero. One by one where the processor does
  /// not permute bytes: on many that is faster than their instruction for it.
  template <class Book>
  [[nodiscard]] LOWRANK_INLINE fragment load_bytes(std::uint8_t const* p, index_t valid, Book const& book,
                                                   float factor) const noexcept {
    fragment out;
#if defined(LOWRANK_HAS_BYTE_LANES)
    if constexpr (items % 4 == 0 && requires { book.planes(); })
      if (valid == size) {
        scaled_lookup(book.planes(), p, size, factor, out.data());
        return out;
      }
#endif
    auto const* const table = book.values();
    alignas(64) std::array<float, size> wide{};
    if (valid == size)
      for (int i = 0; i < size; ++i) wide[static_cast<std::size_t>(i)] = table[p[i]];
    else
      for (int i = 0; i < valid; ++i) wide[static_cast<std::size_t>(i)] = table[p[i]];
    for (int k = 0; k < items; ++k)
      out[static_cast<std::size_t>(k)] = pack{factor} * pack::load(wide.data() + k * pack::width);
    return out;
  }
  /// Writes encode(f) of the first `valid` elements, or encode(f, u) with a fragment of u beside f. An unused last nibble
  /// becomes 0.
  template <int Bits, class Encode, class... More>
  LOWRANK_INLINE void store_codes(std::uint8_t* p, fragment const& f, index_t valid, Encode const& encode,
                                  More const&... more) const noexcept {
    alignas(64) std::array<std::uint8_t, size> codes;
    auto* const to = Bits == 8 && valid == size ? p : codes.data();
    auto const coded = [&](fragment const& from) {
      auto const code = [&](int k) {
        auto const at = static_cast<std::size_t>(k);
        return encode(from[at], more[at]...);
      };
      for (int k = 0; k + 1 < items; k += 2) int_pack::store_two(code(k), code(k + 1), to + k * pack::width);
      if constexpr (items % 2 != 0) code(items - 1).store(to + (items - 1) * pack::width);
    };
    // What is behind the first elements has no part in their scale, and codecs need not bear it.
    if (valid == size) coded(f);
    else coded(first_of(f, valid));
    if constexpr (Bits == 4) {
      for (index_t i = valid; i < size; ++i) codes[static_cast<std::size_t>(i)] = 0;
      auto const both = [&](index_t i) {
        auto const at = static_cast<std::size_t>(2 * i);
        p[i] = static_cast<std::uint8_t>(codes[at] << 4 | codes[at + 1]);
      };
      if (valid == size)
        for (index_t i = 0; i < size / 2; ++i) both(i);
      else
        for (index_t i = 0; i < code_bytes<4>(valid); ++i) both(i);
    } else if (valid != size) {
      std::memcpy(p, codes.data(), static_cast<std::size_t>(valid));
    }
  }
  /// Uniform numbers k / 65536, k from `random_16(key, first + i)`. `first` is a multiple of 8.
  [[nodiscard]] LOWRANK_INLINE fragment uniform_16(rng_key const& key, std::uint64_t first) const noexcept {
    auto const halves = random_halves(key, first);
    alignas(64) std::array<float, size> wide;
    for (std::size_t i = 0; i < size; ++i) wide[i] = static_cast<float>(std::int32_t{halves[i]}) * 0x1p-16F;
    fragment out;
    std::memcpy(&out, wide.data(), sizeof out);
    return out;
  }
  /// Writes the first `valid` elements, rounded at random so that the mean is exact: element i takes
  /// `random_16(key, first + i)`. `first` is a multiple of 8.
  LOWRANK_INLINE void store_stochastic(bf16* p, fragment const& f, index_t valid, rng_key const& key,
                                       std::uint64_t first) const noexcept {
    auto const halves = random_halves(key, first);
    alignas(64) std::array<float, size> wide;
    std::memcpy(wide.data(), &f, sizeof f);
    for (index_t i = 0; i < valid; ++i)
      p[i] = to_bf16_stochastic(wide[static_cast<std::size_t>(i)], halves[static_cast<std::size_t>(i)]);
  }
  /// f() by one of those who run this tile: for what a block has once.
  template <class F>
  LOWRANK_INLINE void once(F const& f) const noexcept {
    f();
  }
  /// *flag = 1, which others may do at the same time.
  LOWRANK_INLINE void raise(std::int32_t* flag) const noexcept {
    std::atomic_ref<std::int32_t>{*flag}.store(1, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uintptr_t ahead = 2048;  ///< bytes

  /// random_16(key, first + i) for every element of a tile.
  [[nodiscard]] LOWRANK_INLINE static std::array<std::uint16_t, size> random_halves(rng_key const& key,
                                                                                    std::uint64_t first) noexcept {
    constexpr std::size_t lanes = detail::wide_words::count;
    constexpr std::size_t blocks =
        (size / 8 + lanes - 1) / lanes * lanes;  // what a small tile leaves over is not looked at
    alignas(64) std::array<std::uint32_t, 4 * blocks> words;
    random_words<blocks>(key, first / 8, words);
    alignas(64) std::array<std::uint16_t, size> halves;
    std::memcpy(halves.data(), words.data(), sizeof halves);
    if constexpr (std::endian::native == std::endian::big)
      for (std::size_t i = 0; i < size; i += 2) std::swap(halves[i], halves[i + 1]);
    return halves;
  }
  /// f with zeros behind its first `valid` elements.
  [[nodiscard]] static fragment first_of(fragment const& f, index_t valid) noexcept {
    alignas(64) std::array<float, size> wide;
    std::memcpy(wide.data(), &f, sizeof f);
    for (index_t i = valid; i < size; ++i) wide[static_cast<std::size_t>(i)] = 0;
    fragment out;
    std::memcpy(&out, wide.data(), sizeof out);
    return out;
  }
};

/// 256 consecutive elements: a block of a quantized state, eight elements for each lane of a warp.
using host_tile = basic_host_tile<256 / pack::width>;

/// A tile whose stores of floats leave the caches alone: for what is larger than they are and not read again at once.
template <int Items>
struct output_host_tile : basic_host_tile<Items> {
  using base = basic_host_tile<Items>;

  LOWRANK_INLINE void store(float* p, typename base::fragment const& f, index_t valid) const noexcept {
    if (valid != base::size || reinterpret_cast<std::uintptr_t>(p) % sizeof(pack) != 0) return base::store(p, f, valid);
    for (int k = 0; k < Items; ++k) f[static_cast<std::size_t>(k)].store_past_cache(p + k * pack::width);
  }
  static void done() noexcept { pack::stores_done(); }
};

namespace detail {

/// For tiles that ask for it, at the end of what one thread does.
template <class Tile>
void end_of_tiles() noexcept {
  if constexpr (requires { Tile::done(); }) Tile::done();
}
template <class Tile, class Body>
void launch_host_tiles(host_executor& exec, index_t count, Body const& body) {
  // Elements a task takes, so that a task outweighs handing it over.
  constexpr index_t stretch = (16384 + Tile::size - 1) / Tile::size * Tile::size;
  exec.parallel((count + stretch - 1) / stretch, [&](index_t task) {
    index_t const begin = task * stretch, end = std::min(count, begin + stretch);
    index_t first = begin;
    for (; first + Tile::size <= end; first += Tile::size) body(Tile{}, first, index_t{Tile::size});
    if (first < end) body(Tile{}, first, end - first);
    end_of_tiles<Tile>();
  });
}
template <class Tile, class Body>
void launch_host_rows(host_executor& exec, extents shape, Body const& body) {
  if (shape.rows == 1)
    return launch_host_tiles<Tile>(exec, shape.cols,
                                   [&](auto t, index_t first, index_t valid) { body(t, index_t{0}, first, valid); });
  if (shape.size() == 0) return;
  index_t const group = std::max<index_t>(1, 16384 / shape.cols);
  exec.parallel((shape.rows + group - 1) / group, [&](index_t task) {
    for (index_t row = task * group; row < std::min(shape.rows, (task + 1) * group); ++row)
      for (index_t first = 0; first < shape.cols; first += Tile::size)
        body(Tile{}, row, first, std::min<index_t>(Tile::size, shape.cols - first));
    end_of_tiles<Tile>();
  });
}

}  // namespace detail

/// body(tile, first, valid) for every tile of `count` consecutive elements. A tile is always the same 256 elements and is
/// run by one thread, so what it computes does not depend on the number of threads.
template <class Body>
void launch_tiles(host_executor& exec, index_t count, Body const& body) {
  detail::launch_host_tiles<host_tile>(exec, count, body);
}
/// The same for tiles of another size: of one block of a quantized buffer each.
template <int Size, class Body>
void launch_blocks(host_executor& exec, index_t count, Body const& body) {
  static_assert(Size % 32 == 0 && Size >= 32 && Size <= 4096, "lowrank: blocks are multiples of 32 up to 4096");
  detail::launch_host_tiles<basic_host_tile<Size / pack::width>>(exec, count, body);
}
/// The same for bodies in which no element needs another one: tiles that fit in registers.
template <class Body>
void launch_elements(host_executor& exec, index_t count, Body const& body) {
  detail::launch_host_tiles<basic_host_tile<4>>(exec, count, body);
}

/// body(tile, row, first, valid) for every stretch of up to `Size` columns of every row of a packed matrix of that shape.
template <int Size = host_tile::size, class Body>
void launch_rows(host_executor& exec, extents shape, Body const& body) {
  detail::launch_host_rows<basic_host_tile<Size / pack::width>>(exec, shape, body);
}
/// The same for bodies that store a packed matrix of that shape, of floats, and do not look at it.
template <int Size, executor E, class Body>
void launch_output_rows(E& exec, extents shape, Body const& body) {
  if constexpr (std::same_as<E, host_executor>) {
    constexpr index_t beyond_caches = 32 << 20;  // of bytes; below it the reader may well find it there
    if (shape.size() >= beyond_caches / index_t{sizeof(float)})
      return detail::launch_host_rows<output_host_tile<Size / pack::width>>(exec, shape, body);
  }
  launch_rows<Size>(exec, shape, body);
}

}  // namespace lowrank
