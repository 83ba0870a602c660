/// @file
/// When a basis is found anew. Decided on the host, from the count of calls and from reports that arrive one call late.
#pragma once

#include <concepts>
#include <functional>

#include "lowrank/core/refresh_report.hpp"
#include "lowrank/core/slots.hpp"
#include "lowrank/core/view.hpp"
#include "lowrank/core/visit.hpp"

namespace lowrank {

/// What a policy wants to be told; the composition measures nothing else.
struct refresh_traits {
  bool needs_overlap{};   ///< overlap and first_cosine, at refreshes: 2 m r² flops
  bool needs_captured{};  ///< captured, at every call: a norm of the gradient
  bool changes_rank{};    ///< has `rank(state)`; gets needed_rank for its `share()` at refreshes
};

/// The traits of a policy chosen at run time are what it might want; `wants()` is what it does want.
template <class P>
[[nodiscard]] constexpr auto wants_of(P const& policy) noexcept {
  if constexpr (requires { policy.wants(); }) return policy.wants();
  else return P::traits;
}

/// What a policy may know when the state of a matrix is made.
struct refresh_context {
  std::uint32_t tensor{};
  extents facing{};
  index_t capacity{};  ///< the largest rank
  /// Flops of a refresh from a gradient over that many tokens (0: dense); empty where the finder does not say.
  std::function<double(index_t tokens)> refresh_flops{};
};

/// `due(state, call)`: does call number `call` find a new basis? (The first one always does.) `observe` sees the report of
/// every call that has something to say. With `changes_rank`: `rank(state)` at the next refresh, and `share()`, the part
/// of ‖G‖² that a basis should capture.
template <class P>
concept refresh_policy = std::same_as<typename P::fills, slots::refresh> &&
    requires(P const policy, typename P::state& state, refresh_report const& report, refresh_context const& context) {
  { P::traits } -> std::convertible_to<refresh_traits>;
  policy.check();
  { policy.init(context) } -> std::same_as<typename P::state>;
  { policy.due(state, index_t{}) } -> std::same_as<bool>;
  policy.observe(state, report);
  requires !P::traits.changes_rank || requires {
    { policy.rank(state) } -> std::same_as<index_t>;
    { policy.share() } -> std::same_as<double>;
  };
};

}  // namespace lowrank
