/// @file
/// Refreshes of different matrices at different calls, so that no step pays for all of them.
#pragma once

#include "lowrank/refresh/every.hpp"

namespace lowrank::refresh {

/// A phase in [0, period) for each tensor: neighbours in number are far apart in phase, and any run of consecutive tensors
/// spreads evenly (multiples of the golden ratio).
[[nodiscard]] constexpr index_t phase_of(std::uint32_t tensor, index_t period) noexcept {
  auto const turn = static_cast<std::uint32_t>(tensor * 0x9E3779B9ULL);  // frac(tensor / phi) 2^32
  return static_cast<index_t>(static_cast<std::uint64_t>(turn) * static_cast<std::uint64_t>(period) >> 32);
}

/// `every`, moved by a phase of the tensor's own. The first basis is found at call 0 all the same.
struct staggered {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{};
  struct state {
    index_t phase{};
    friend void visit_state(state& s, auto&& f) { f("phase", identity(s.phase)); }
  };

  index_t period{200};

  void check() const { require(period >= 1, "refresh::staggered", "period must be at least 1, got ", period); }
  [[nodiscard]] state init(refresh_context const& context) const { return {phase_of(context.tensor, period)}; }
  [[nodiscard]] bool due(state const& s, index_t call) const { return (call + s.phase) % period == 0; }
  void observe(state&, refresh_report const&) const {}
};
static_assert(refresh_policy<staggered>);

}  // namespace lowrank::refresh
