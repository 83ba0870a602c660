/// @file
/// An update rule turns a gradient R into a direction N. It sees neither weight nor basis.
#pragma once

#include <cmath>
#include <limits>

#include "lowrank/core/step_record.hpp"
#include "lowrank/core/visit.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/tile/tile.hpp"

namespace lowrank {

/// The state of X in space S: every policy names its own.
template <class X, memory_space S>
using state_of = typename X::template state<S>;

/// A rule is a copyable set of numbers; its state is born with the shape of R.
/// `needs_weight_rms`: must the record hold the RMS of W before `begin`?
/// `begin` counts the step (unless it is skipped) and sets record.rate, record.keep and record.down.
/// `update` writes record.direction_scale * N into n from record.grad_scale * r; n may be r. On record.skip it writes
/// zeros and leaves its state alone. r and n are packed (`natural`).
template <class R, class E>
concept update_rule = executor<E> && requires(R const rule, state_of<R, typename E::space>& state, E& exec,
                                              const_view_of<E> r, view_of<E> n, step_record* record, extents shape) {
  { rule.needs_weight_rms() } -> std::same_as<bool>;
  { rule.decay } -> std::convertible_to<decay_order>;
  rule.check();
  { rule.init(exec, shape) } -> std::same_as<state_of<R, typename E::space>>;
  { rule.bytes(shape) } -> std::same_as<index_t>;
  { rule.workspace_bytes(shape) } -> std::same_as<index_t>;
  rule.begin(exec, state, record);
  rule.update(exec, state, r, n, record);
  rule.reset(exec, state);
};

/// What a moment averages: the gradient, or its square.
enum class moment_order : std::uint8_t { first, second };

/// Rules whose moments other policies may move between bases. `moment_orders[k]` and `moment_beta(k)` say what moment k
/// averages and how long it remembers; `moment_format` reads and writes it as a matrix; `state.steps` counts from the last reset.
template <class R>
concept lists_moments = requires(R const rule) {
  requires R::moments_are_listed;
  { rule.moment_beta(std::size_t{}) } -> std::convertible_to<double>;
  R::moment_orders[0];
  typename R::moment_format;
};

namespace rule {

namespace detail {

/// Whether x may be the weight of an exponential average. By its bits where it is NaN (see is_finite).
[[nodiscard]] inline bool is_average_weight(double x) noexcept { return is_finite(x) && x >= 0 && x < 1; }
/// Whether x is positive and stays so in fp32.
[[nodiscard]] inline bool is_positive_float(double x) noexcept {
  return is_finite(x) && x >= static_cast<double>(std::numeric_limits<float>::min()) &&
         x <= static_cast<double>(std::numeric_limits<float>::max());
}

}  // namespace detail

/// Moments in fp32. What other number formats of a moment look like to a formula: the same load and save.
struct fp32_moment {
  static constexpr bool blockwise = false;  ///< whether elements of a tile share anything, such as a scale
  template <memory_space S>
  using state = buffer<float, S>;
  [[nodiscard]] static constexpr index_t bytes(index_t count) noexcept { return count * index_t{sizeof(float)}; }
  /// Zeros.
  template <memory_space S>
  [[nodiscard]] static state<S> make(index_t count, moment_order) {
    return state<S>{count};
  }
  template <executor E>
  static void zero(E& exec, state<typename E::space>& s) {
    clear(exec, s);
  }

  template <memory_space S>
  struct handle {
    float* values;
    template <class Tile>
    [[nodiscard]] LOWRANK_HD auto load(Tile tile, moment_order, index_t first, index_t valid) const noexcept {
      return tile.load(values + first, valid);
    }
    template <class Tile>
    LOWRANK_HD void save(Tile tile, moment_order, typename Tile::fragment const& f, index_t first,
                         index_t valid) const noexcept {
      tile.store(values + first, f, valid);
    }
  };
  template <memory_space S>
  [[nodiscard]] static handle<S> open(state<S>& s) noexcept {
    return {s.data()};
  }
  /// The moment as a facing matrix, to look at or to work in until `write`: its own memory here, decoded scratch for
  /// narrower formats.
  template <executor E>
  [[nodiscard]] static view_of<E> read(E&, state<typename E::space>& s, side where, extents shape) {
    return natural<typename E::space>(where, s.data(), shape);
  }
  /// The moment becomes m, which may have another shape than before.
  template <executor E>
  static void write(E& exec, state<typename E::space>& s, side where, const_view_of<E> m) {
    auto const own = natural<typename E::space>(where, s.data(), m.shape());
    if (own.data != m.data) copy(exec, m, own);
  }
  [[nodiscard]] static constexpr index_t read_bytes(extents) noexcept { return 0; }
};

}  // namespace rule
}  // namespace lowrank
