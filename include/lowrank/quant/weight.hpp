/// @file
/// The weight as the update sees it: fp32 panels that are opened, changed and closed again.
#pragma once

#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/step_record.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/tile/tile.hpp"

namespace lowrank {

/// What a weight must offer. `open` gives rows [begin, end) in fp32: their own memory where `panels` is false, else a
/// panel from the executor's scratch; `close` puts the panel back in the weight's own format.
/// Panels start at multiples of `row_quantum()` rows.
template <class W, class E>
concept weight_view = executor<E> &&
    requires(W const w, E& exec, index_t row, view_of<E> panel, rng_key key, step_record const* record) {
  { W::panels } -> std::convertible_to<bool>;
  { w.shape() } -> std::same_as<extents>;
  { w.row_quantum() } -> std::same_as<index_t>;
  { w.open(exec, row, row) } -> std::same_as<view_of<E>>;
  w.close(exec, row, row, panel, key, record);
};

/// Packed weights as tile bodies see them: `load` gives a tile in fp32, `store` puts it back in the weight's own format.
struct fp32_tiles {
  static constexpr bool narrow = false;
  float* data;

  template <class Tile>
  [[nodiscard]] LOWRANK_HD auto load(Tile tile, index_t first, index_t valid) const noexcept {
    return tile.load(data + first, valid);
  }
  template <class Tile>
  LOWRANK_HD void store(Tile tile, typename Tile::fragment const& f, index_t first, index_t valid,
                        step_record const&) const noexcept {
    tile.store(data + first, f, valid);
  }
};

/// fp32 in place. Any strides.
template <memory_space Space = host_space>
struct fp32_weight {
  using space = Space;
  static constexpr bool panels = false;

  matrix_view<float, Space> values;

  [[nodiscard]] extents shape() const noexcept { return values.shape(); }
  [[nodiscard]] index_t row_quantum() const noexcept { return 1; }
  template <executor E>
  [[nodiscard]] view_of<E> open(E&, index_t begin, index_t end) const {
    return values.row_range(begin, end);
  }
  template <executor E>
  void close(E&, index_t, index_t, view_of<E>, rng_key, step_record const*) const {}
  /// Whether `tiles` may be asked for: elements follow each other in memory.
  [[nodiscard]] bool packed() const noexcept { return values.is_row_major(); }
  [[nodiscard]] fp32_tiles tiles(rng_key const&) const noexcept { return fp32_tiles{values.data}; }
};

/// Nearest even, or stochastic: up or down with the probability that makes the mean exact, so that updates far below
/// one unit in the last place still move a bf16 weight.
enum class weight_rounding : std::uint8_t { nearest, stochastic };

/// store(i, j, value) for every element of `panel`, rows in parallel; nothing where the step is skipped, because even
/// storing an unchanged weight again is not always the identity. An executor with memory of its own brings its own overload.
template <class Store>
void store_panel(host_executor& exec, matrix_view<float const> panel, step_record const* record, Store const& store) {
  if (record->skip != 0) return;
  exec.parallel(panel.rows, [&](index_t i) {
    for (index_t j = 0; j < panel.cols; ++j) store(i, j, panel(i, j));
  });
}

struct bf16_tiles {
  static constexpr bool narrow = true;
  bf16* data;
  rng_key key;
  weight_rounding rounding;

  template <class Tile>
  [[nodiscard]] LOWRANK_HD auto load(Tile tile, index_t first, index_t valid) const noexcept {
    return tile.load(data + first, valid);
  }
  template <class Tile>
  LOWRANK_HD void store(Tile tile, typename Tile::fragment const& f, index_t first, index_t valid,
                        step_record const& record) const noexcept {
    if (rounding == weight_rounding::nearest) tile.store(data + first, f, valid);
    else tile.store_stochastic(data + first, f, valid, key.later(record.replays), static_cast<std::uint64_t>(first));
  }
};
template <class T>
struct master_tiles {
  static constexpr bool narrow = true;
  T* values;
  float* master;

  template <class Tile>
  [[nodiscard]] LOWRANK_HD auto load(Tile tile, index_t first, index_t valid) const noexcept {
    return tile.load(master + first, valid);
  }
  template <class Tile>
  LOWRANK_HD void store(Tile tile, typename Tile::fragment const& f, index_t first, index_t valid,
                        step_record const&) const noexcept {
    tile.store(master + first, f, valid);
    tile.store(values + first, f, valid);
  }
};

/// bf16 alone. Rounding is keyed by (seed, step, tensor, element i cols + j): the same for any number of threads.
/// fp16 has too few small numbers to train in; it needs a master.
template <memory_space Space = host_space>
struct bf16_weight {
  using space = Space;
  static constexpr bool panels = true;

  matrix_view<bf16, Space> values;
  weight_rounding rounding{weight_rounding::stochastic};

  [[nodiscard]] extents shape() const noexcept { return values.shape(); }
  [[nodiscard]] index_t row_quantum() const noexcept { return 8; }
  template <executor E>
  [[nodiscard]] view_of<E> open(E& exec, index_t begin, index_t end) const {
    auto const panel = take_matrix(exec, {end - begin, values.cols});
    convert(exec, values.row_range(begin, end), panel);
    return panel;
  }
  template <executor E>
  void close(E& exec, index_t begin, index_t end, view_of<E> panel, rng_key key, step_record const* record) const {
    if (packed() && panel.is_row_major() && begin * values.cols % 8 == 0) {
      // Eight neighbours share a block of random words.
      launch_tiles(exec, panel.size(),
                   [to = tiles(key), from = panel.data, record, offset = begin * values.cols] LOWRANK_DEVICE(
                       auto tile, index_t first, index_t valid) {
                     if (record->skip == 0)
                       to.store(tile, tile.load(from + first, valid), offset + first, valid, *record);
                   });
      return;
    }
    key.purpose = rng_purpose::rounding;
    store_panel(exec, panel, record,
                [out = values.row_range(begin, end), key, begin, mode = rounding, record] LOWRANK_DEVICE(
                    index_t i, index_t j, float value) {
                  auto const element = static_cast<std::uint64_t>((begin + i) * out.cols + j);
                  out(i, j) = mode == weight_rounding::nearest
                                  ? to_bf16(value)
                                  : to_bf16_stochastic(value, random_16(key.later(record->replays), element));
                });
  }
  [[nodiscard]] bool packed() const noexcept { return values.is_row_major(); }
  [[nodiscard]] bf16_tiles tiles(rng_key key) const noexcept {
    key.purpose = rng_purpose::rounding;
    return bf16_tiles{values.data, key, rounding};
  }
};

/// 16-bit floats for the model and an fp32 master that is trained: the model's copy is the master, rounded to nearest.
template <class T = bf16, memory_space Space = host_space>
struct master_weight {
  using space = Space;
  static constexpr bool panels = false;

  matrix_view<T, Space> values;
  matrix_view<float, Space> master;

  [[nodiscard]] extents shape() const noexcept { return master.shape(); }
  [[nodiscard]] index_t row_quantum() const noexcept { return 1; }
  template <executor E>
  [[nodiscard]] view_of<E> open(E&, index_t begin, index_t end) const {
    return master.row_range(begin, end);
  }
  template <executor E>
  void close(E& exec, index_t begin, index_t end, view_of<E> panel, rng_key, step_record const* record) const {
    store_panel(exec, panel, record,
                [out = values.row_range(begin, end)] LOWRANK_DEVICE(index_t i, index_t j, float value) {
                  out(i, j) = from_float<T>(value);
                });
  }
  [[nodiscard]] bool packed() const noexcept { return values.is_row_major() && master.is_row_major(); }
  [[nodiscard]] master_tiles<T> tiles(rng_key const&) const noexcept {
    return master_tiles<T>{values.data, master.data};
  }
};

static_assert(weight_view<fp32_weight<>, host_executor> && weight_view<bf16_weight<>, host_executor> &&
              weight_view<master_weight<fp16>, host_executor>);

}  // namespace lowrank
