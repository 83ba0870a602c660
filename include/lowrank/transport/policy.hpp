/// @file
/// What happens to the moments when the basis changes. Asked only when a candidate replaces an older basis.
#pragma once

#include "lowrank/basis/linear_map.hpp"
#include "lowrank/core/slots.hpp"
#include "lowrank/rule/rule.hpp"

namespace lowrank {

/// Everything a transport may look at, in facing coordinates.
template <class E>
struct transport_inputs {
  side facing_side{};
  extents from{}, to{};         ///< of R and the moments, before and after
  change_of_basis<E> change{};  ///< only where traits.needs_change
};

struct transport_traits {
  bool needs_change{};  ///< 2 m r² flops
};

/// `fits<Rule>`: whether it can move the moments of that rule. `apply` may use `workspace_bytes(largest inner, sides)` of
/// scratch, for a basis on that many sides. A policy chosen at run time may have `wants()`: the traits it needs after all.
template <class T, class R, class E>
concept transport_policy = std::same_as<typename T::fills, slots::transport> &&
    requires(T const transport, R const rule, state_of<R, typename E::space>& state, E& exec,
             transport_inputs<E> const& in) {
  { T::traits } -> std::convertible_to<transport_traits>;
  requires T::template fits<R>;
  { transport.workspace_bytes(extents{}, index_t{}) } -> std::same_as<index_t>;
  transport.apply(exec, rule, state, in);
};

namespace transport {

/// Old moments are read in the new basis (GaLore). At another rank the common columns keep theirs, the rest start at 0.
struct keep {
  using fills = slots::transport;
  static constexpr transport_traits traits{};
  template <class>
  static constexpr bool fits = true;

  /// Nothing moves at an unchanged rank.
  [[nodiscard]] index_t workspace_bytes(extents inner, index_t) const { return scratch_bytes<float>(inner.size()); }
  template <executor E, class Rule, class State>
  void apply(E& exec, Rule const& rule, State& state, transport_inputs<E> const& in) const {
    if (in.from == in.to) return;
    if constexpr (lists_moments<Rule>) {
      extents const common{std::min(in.from.rows, in.to.rows), std::min(in.from.cols, in.to.cols)};
      for (auto& moment : state.moment) {
        using format = typename Rule::moment_format;
        scratch_scope const scope{exec};
        auto const moved = take_matrix(exec, in.to, in.facing_side);
        fill(exec, moved, 0.0F);
        auto const old = format::read(exec, moment, in.facing_side, in.from);
        copy(exec, old.sub({0, common.rows, 0, common.cols}), moved.sub({0, common.rows, 0, common.cols}));
        format::write(exec, moment, in.facing_side, const_view_of<E>(moved));
      }
    } else {
      rule.reset(exec, state);  // a composition that changes its rank asks for listed moments at compile time
    }
  }
};

/// Moments and step count start again (FRUGAL).  Reference: Zmushko et al., arXiv 2411.07837, Algorithm 1.
struct reset {
  using fills = slots::transport;
  static constexpr transport_traits traits{};
  template <class>
  static constexpr bool fits = true;

  [[nodiscard]] index_t workspace_bytes(extents, index_t) const { return 0; }
  template <executor E, class Rule, class State>
  void apply(E& exec, Rule const& rule, State& state, transport_inputs<E> const&) const {
    rule.reset(exec, state);
  }
};

}  // namespace transport
}  // namespace lowrank
