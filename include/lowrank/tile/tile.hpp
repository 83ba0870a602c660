/// @file
/// Kernel bodies are collective functions on tiles: `load`, `each`, `reduce`, `store` on fragments, and no thread index.
/// The host tile is plain loops over registers; a device tile spreads the same fragment over a warp.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/tile/pack.hpp"

namespace lowrank {

/// `Items` registers of consecutive elements on the host.
template <int Items>
struct basic_host_tile {
  static constexpr int items = Items;               ///< registers of a fragment: what `each` counts
  static constexpr int size = Items * pack::width;  ///< elements of a tile
  using real = pack;                                ///< what a formula sees
  using fragment = std::array<pack, static_cast<std::size_t>(items)>;

  /// The first `valid` elements at p, widened to fp32; the rest are zero.
  template <class T>
  [[nodiscard]] LOWRANK_INLINE fragment load(T const* p, index_t valid) const noexcept {
    fragment out;
    if constexpr (std::same_as<T, float>) {
      if (valid == size) {
        for (int k = 0; k < items; ++k) out[static_cast<std::size_t>(k)] = pack::load(p + k * pack::width);
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
};

/// 256 consecutive elements: a block of a quantized state, eight elements for each lane of a warp.
using host_tile = basic_host_tile<256 / pack::width>;

namespace detail {

template <class Tile, class Body>
void launch_host_tiles(host_executor& exec, index_t count, Body const& body) {
  constexpr index_t stretch = 16384;  // elements a task takes, so that a task outweighs handing it over
  exec.parallel((count + stretch - 1) / stretch, [&](index_t task) {
    index_t const begin = task * stretch, end = std::min(count, begin + stretch);
    index_t first = begin;
    for (; first + Tile::size <= end; first += Tile::size) body(Tile{}, first, index_t{Tile::size});
    if (first < end) body(Tile{}, first, end - first);
  });
}

}  // namespace detail

/// body(tile, first, valid) for every tile of `count` consecutive elements. A tile is always the same 256 elements and is
/// run by one thread, so what it computes does not depend on the number of threads.
template <class Body>
void launch_tiles(host_executor& exec, index_t count, Body const& body) {
  detail::launch_host_tiles<host_tile>(exec, count, body);
}
/// The same for bodies in which no element needs another one: tiles that fit in registers.
template <class Body>
void launch_elements(host_executor& exec, index_t count, Body const& body) {
  detail::launch_host_tiles<basic_host_tile<4>>(exec, count, body);
}

/// body(tile, row, first, valid) for every stretch of up to 256 columns of every row of a matrix of that shape.
template <class Body>
void launch_rows(host_executor& exec, extents shape, Body const& body) {
  index_t const group = std::max<index_t>(1, 16384 / std::max<index_t>(shape.cols, 1));
  exec.parallel((shape.rows + group - 1) / group, [&](index_t task) {
    for (index_t row = task * group; row < std::min(shape.rows, (task + 1) * group); ++row)
      for (index_t first = 0; first < shape.cols; first += host_tile::size)
        body(host_tile{}, row, first, std::min<index_t>(host_tile::size, shape.cols - first));
  });
}

}  // namespace lowrank
