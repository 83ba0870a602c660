/// @file
/// The weight as the update sees it: fp32 panels that are opened, changed and closed again.
#pragma once

#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/step_record.hpp"
#include "lowrank/linalg/elementwise.hpp"

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

/// bf16 alone. Rounding is keyed by (seed, step, tensor, element i cols + j): the same for any number of threads.
/// fp16 has too few small numbers to train in; it needs a master.
template <memory_space Space = host_space>
struct bf16_weight {
  using space = Space;
  static constexpr bool panels = true;

  matrix_view<bf16, Space> values;
  weight_rounding rounding{weight_rounding::stochastic};

  [[nodiscard]] extents shape() const noexcept { return values.shape(); }
  [[nodiscard]] index_t row_quantum() const noexcept { return 1; }
  template <executor E>
  [[nodiscard]] view_of<E> open(E& exec, index_t begin, index_t end) const {
    auto const panel = take_matrix(exec, {end - begin, values.cols});
    convert(exec, values.row_range(begin, end), panel);
    return panel;
  }
  template <executor E>
  void close(E& exec, index_t begin, index_t end, view_of<E> panel, rng_key key, step_record const* record) const {
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
};

static_assert(weight_view<fp32_weight<>, host_executor> && weight_view<bf16_weight<>, host_executor> &&
              weight_view<master_weight<fp16>, host_executor>);

}  // namespace lowrank
