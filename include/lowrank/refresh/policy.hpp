/// @file
/// When a basis is found anew. Decided on the host, from the count of calls and from reports that arrive one call late.
#pragma once

#include <concepts>

#include "lowrank/core/slots.hpp"
#include "lowrank/core/visit.hpp"

namespace lowrank {

/// What became of an attempted refresh. Read by the policy at the next call, on every executor, so that host and device
/// decide alike and nobody waits.
struct refresh_report {
  index_t call{};  ///< the call it belongs to
  index_t rank{};
  double captured{-1};  ///< ‖PᵀG‖² / ‖G‖² right after the refresh; -1 where it was not measured
  std::uint8_t attempted{}, accepted{};
  std::uint8_t bad_gradient{};  ///< refused because of the gradient: try again at once
  std::uint8_t unchanged{};     ///< a zero gradient: the basis was kept

  friend void visit_state(refresh_report& r, auto&& f) {
    f("call", r.call);
    f("rank", r.rank);
    f("captured", r.captured);
    f("attempted", r.attempted);
    f("accepted", r.accepted);
    f("bad_gradient", r.bad_gradient);
    f("unchanged", r.unchanged);
  }
};

/// `due(state, call)`: does call number `call` find a new basis? (The first one always does.) `observe` sees each report.
template <class P>
concept refresh_policy = std::same_as<typename P::fills, slots::refresh> &&
    requires(P const policy, typename P::state& state, refresh_report const& report) {
  policy.check();
  { policy.init(std::uint32_t{}) } -> std::same_as<typename P::state>;
  { policy.due(state, index_t{}) } -> std::same_as<bool>;
  policy.observe(state, report);
};

}  // namespace lowrank
