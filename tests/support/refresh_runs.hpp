// Refresh policies as the state machines that they are: calls in, due or not out.
#pragma once

#include <vector>

#include "lowrank/refresh/policy.hpp"

namespace lowrank_test {

/// Calls at which `policy` refreshes in the first `calls` ones. `seen(call, due)` is the report of a call; the policy hears
/// it at the next one, as in the composition, and only if it says something.
template <lowrank::refresh_policy Policy, class Seen>
[[nodiscard]] std::vector<lowrank::index_t> refreshes_of(Policy const& policy, lowrank::index_t calls, Seen const& seen,
                                                         lowrank::refresh_context const& context = {.capacity = 1}) {
  policy.check();
  auto state = policy.init(context);
  std::vector<lowrank::index_t> out;
  lowrank::refresh_report report;
  for (lowrank::index_t call = 0; call < calls; ++call) {
    if (report.attempted != 0 || report.captured >= 0) policy.observe(state, report);
    bool const due = out.empty() || policy.due(state, call);
    if (due) out.push_back(call);
    report = seen(call, due);
  }
  return out;
}

/// A refresh that was accepted.
[[nodiscard]] inline lowrank::refresh_report accepted(lowrank::index_t call) {
  return {.call = call, .rank = 1, .attempted = 1, .accepted = 1};
}

}  // namespace lowrank_test
