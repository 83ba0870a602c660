/// @file
/// Compositions with their policies in any order.
#pragma once

#include "lowrank/optim/low_rank.hpp"

namespace lowrank {

namespace detail {

template <class P, class... Slot>
concept fills_one_of = (std::same_as<typename P::fills, Slot> || ...);
template <class P>
concept fills_a_slot =
    fills_one_of<P, slots::refresh, slots::transport, slots::residual, slots::lift, slots::basis_format>;

template <class Slot, class Default, class... Policies>
struct pick {
  using type = Default;
};
template <class Slot, class Default, class Head, class... Tail>
struct pick<Slot, Default, Head, Tail...> {
  static_assert(fills_a_slot<Head>,
                "lowrank: this policy fits no slot (refresh, transport, residual, lift, basis format)");
  template <class P>
  static constexpr bool here = std::same_as<typename P::fills, Slot>;
  static_assert(!here<Head> || !(here<Tail> || ...), "lowrank: two policies for one slot");
  using type = std::conditional_t<here<Head>, Head, typename pick<Slot, Default, Tail...>::type>;
};

}  // namespace detail

/// `compose<rule::adam, basis::randomized, format::bf16, transport::reset>`: rule and finder first, policies in any order,
/// GaLore's choices for those left out.
template <class Rule, class Finder, class... P>
using compose = low_rank<Rule, Finder, typename detail::pick<slots::refresh, refresh::every, P...>::type,
                         typename detail::pick<slots::transport, transport::keep, P...>::type,
                         typename detail::pick<slots::residual, residual::drop, P...>::type,
                         typename detail::pick<slots::lift, lift::back_project, P...>::type,
                         typename detail::pick<slots::basis_format, format::fp32, P...>::type>;

}  // namespace lowrank
