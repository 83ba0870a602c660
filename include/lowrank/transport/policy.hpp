/// @file
/// What happens to the moments when the basis changes. Asked only when a candidate replaces an older basis.
#pragma once

#include "lowrank/core/slots.hpp"
#include "lowrank/rule/rule.hpp"

namespace lowrank {

template <class T, class R, class E>
concept transport_policy = std::same_as<typename T::fills, slots::transport> &&
    requires(T const transport, R const rule, state_of<R, typename E::space>& state, E& exec) {
  transport.apply(exec, rule, state);
};

namespace transport {

/// Old moments are read in the new basis (GaLore).
struct keep {
  using fills = slots::transport;
  template <executor E, class Rule, class State>
  void apply(E&, Rule const&, State&) const {}
};

/// Moments and step count start again (FRUGAL).  Reference: Zmushko et al., arXiv 2411.07837, Algorithm 1.
struct reset {
  using fills = slots::transport;
  template <executor E, class Rule, class State>
  void apply(E& exec, Rule const& rule, State& state) const {
    rule.reset(exec, state);
  }
};

}  // namespace transport
}  // namespace lowrank
