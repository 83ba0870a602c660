/// @file
/// What the host learns of a call, one call late.
#pragma once

#include <cstdint>

#include "lowrank/core/config.hpp"

namespace lowrank {

/// What became of a call. Read by the policy at the next one, on every executor, so that host and device decide alike and
/// nobody waits.
struct refresh_report {
  index_t call{};  ///< the call it belongs to
  index_t rank{};
  double captured{-1};  ///< ‖PᵀG‖² / ‖G‖² of that call's gradient and basis; -1 where it was not measured
  double overlap{-1};  ///< ‖P_oldᵀ P‖² / r: 1 for the same subspace, r / m for unrelated ones; -1 without an old basis
  double first_cosine{-2};  ///< product of the first columns of both: what Q-GaLore's code looks at; -2 without one
  index_t needed_rank{-1};  ///< columns that reach the share of energy asked for; 0: not reached; -1: not measured
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

}  // namespace lowrank
