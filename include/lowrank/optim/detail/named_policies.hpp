#pragma once

#include <variant>

#include "lowrank/optim/detail/named_finder.hpp"
#include "lowrank/refresh/budget.hpp"
#include "lowrank/refresh/captured_energy.hpp"
#include "lowrank/refresh/energy_rank.hpp"
#include "lowrank/refresh/every.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "lowrank/refresh/staggered.hpp"
#include "lowrank/transport/policy.hpp"
#include "lowrank/transport/rotate.hpp"

namespace lowrank::detail {

/// The refresh policies that have names, chosen at run time; over rules whose moments can be resized, also with a rank
/// that follows the energy.
template <bool Resizes>
struct named_refresh {
  using fills = slots::refresh;
  static constexpr refresh_traits traits{.needs_overlap = true, .needs_captured = true, .changes_rank = Resizes};
  using policies = std::variant<refresh::every, refresh::staggered, refresh::lazy_overlap, refresh::captured_energy,
                                refresh::budget>;

  struct state {
    std::variant<refresh::every::state, refresh::staggered::state, refresh::lazy_overlap::state,
                 refresh::captured_energy::state, refresh::budget::state>
        chosen;
    refresh::energy_rank<>::state ranks{};
    friend void visit_state(state& s, auto&& f) {
      std::visit([&](auto& one) { visit_state(one, f); }, s.chosen);
      if constexpr (Resizes) visit_state(s.ranks, f);
    }
  };

  policies chosen{};
  refresh::energy_rank<> ranks{};
  bool follows_energy{};

  [[nodiscard]] refresh_traits wants() const noexcept {
    auto out = std::visit([](auto const& p) { return refresh_traits{p.traits}; }, chosen);
    out.changes_rank = follows_energy;
    return out;
  }
  void check() const {
    std::visit([](auto const& p) { p.check(); }, chosen);
    if (follows_energy) ranks.check();
  }
  [[nodiscard]] state init(refresh_context const& context) const {
    return {std::visit([&](auto const& p) { return decltype(state::chosen){p.init(context)}; }, chosen),
            ranks.init(context)};
  }
  [[nodiscard]] bool due(state const& s, index_t call) const {
    return visit_with(s.chosen, [call](auto const& p, auto const& own) { return p.due(own, call); });
  }
  void observe(state& s, refresh_report const& report) const {
    visit_with(s.chosen, [&](auto const& p, auto& own) { p.observe(own, report); });
    if (follows_energy) ranks.observe(s.ranks, report);
  }
  [[nodiscard]] index_t rank(state const& s) const { return s.ranks.rank; }
  [[nodiscard]] double share() const { return ranks.share(); }

 private:
  /// f(policy, its state).
  template <class Held, class F>
  auto visit_with(Held& held, F const& f) const {
    return std::visit(
        [&]<class P>(P const& policy) {
          using own = typename P::state;
          return f(policy, std::get<own>(held));
        },
        chosen);
  }
};

[[nodiscard]] inline auto take_refresh_policy(option_list& o, usual_choices usual) {
  bool const seldom = usual == usual_choices::q_galore;
  enum class kind : std::uint8_t { every, staggered, lazy, energy, budget };
  auto const which = o.take_choice<kind>("refresh",
                                         {{"every", kind::every},
                                          {"staggered", kind::staggered},
                                          {"lazy", kind::lazy},
                                          {"energy", kind::energy},
                                          {"budget", kind::budget}},
                                         seldom ? kind::lazy : kind::every);
  named_refresh<false>::policies out{};
  if (which == kind::energy) {
    refresh::captured_energy p;
    p.tolerance = o.take("tolerance", p.tolerance);
    p.settle = o.take("settle", p.settle);
    p.smoothing = o.take("smoothing", p.smoothing);
    p.longest = o.take("longest_gap", p.longest);
    out = p;
  } else if (which == kind::budget) {
    refresh::budget p;
    p.share = o.take("share", p.share);
    p.tokens = o.take("tokens", p.tokens);
    using form = refresh::budget::gradient_form;
    p.gradient =
        o.take_choice<form>("budget_gradient", {{"dense", form::dense}, {"factored", form::factored}}, p.gradient);
    out = p;
  } else {
    index_t const gap = o.take("update_proj_gap", index_t{200});
    if (which == kind::every) out = refresh::every{gap};
    if (which == kind::staggered) out = refresh::staggered{gap};
    if (which == kind::lazy) {
      refresh::lazy_overlap p{.gap = gap};
      p.threshold = o.take("cos_threshold", p.threshold);
      p.factor = o.take("gamma_proj", p.factor);
      p.history = o.take("queue_size", p.history);
      p.longest = o.take("longest_gap", p.longest);
      p.of = o.take_choice<refresh::likeness>(
          "likeness", {{"subspace", refresh::likeness::subspace}, {"first_vectors", refresh::likeness::first_vectors}},
          seldom ? refresh::likeness::first_vectors : p.of);
      out = p;
    }
  }
  return out;
}
template <bool Resizes>
[[nodiscard]] named_refresh<Resizes> take_refresh(option_list& o, usual_choices usual) {
  named_refresh<Resizes> out{.chosen = take_refresh_policy(o, usual)};
  if constexpr (Resizes) {
    double const share = o.take("energy_rank", 0.0);
    out.follows_energy = share != 0;
    if (out.follows_energy) {
      out.ranks.energy = share;
      out.ranks.least = o.take("least_rank", out.ranks.least);
      out.ranks.multiple = o.take("rank_multiple", out.ranks.multiple);
    }
  }
  return out;
}

/// keep, reset or rotate, chosen at run time. Rules without listed moments know the first two.
struct named_transport {
  using fills = slots::transport;
  static constexpr transport_traits traits{.needs_change = true};
  template <class>
  static constexpr bool fits = true;

  std::variant<transport::keep, transport::reset, transport::rotate> chosen{};

  [[nodiscard]] transport_traits wants() const noexcept {
    return std::visit([](auto const& t) { return transport_traits{t.traits}; }, chosen);
  }
  [[nodiscard]] index_t workspace_bytes(extents inner, index_t sides) const {
    return std::visit([&](auto const& t) { return t.workspace_bytes(inner, sides); }, chosen);
  }
  template <executor E, class Rule, class State>
  void apply(E& exec, Rule const& rule, State& state, transport_inputs<E> const& in) const {
    std::visit(
        [&]<class T>(T const& t) {
          if constexpr (T::template fits<Rule>) t.apply(exec, rule, state, in);
        },
        chosen);
  }
};
template <class Rule>
[[nodiscard]] named_transport take_transport(option_list& o) {
  enum class kind : std::uint8_t { keep, reset, rotate };
  auto const which = o.take_choice<kind>(
      "transport", {{"keep", kind::keep}, {"reset", kind::reset}, {"rotate", kind::rotate}}, kind::keep);
  if (which == kind::keep) return {};
  if (which == kind::reset) return {transport::reset{}};
  require(lists_moments<Rule>, "by_name", "transport=rotate needs a rule that lists its moments; Adafactor does not");
  transport::rotate out;
  using variance = transport::unknown_variance;
  out.unknown = o.take_choice<variance>(
      "unknown_variance", {{"column_mean", variance::column_mean}, {"zero", variance::zero}}, out.unknown);
  return {out};
}

}  // namespace lowrank::detail
