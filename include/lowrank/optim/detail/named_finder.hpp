#pragma once

#include <functional>
#include <variant>

#include "lowrank/basis/given.hpp"
#include "lowrank/basis/randomized.hpp"
#include "lowrank/basis/stiefel.hpp"
#include "lowrank/basis/svd.hpp"
#include "lowrank/basis/tracked.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/optim/options.hpp"
#include "lowrank/refresh/policy.hpp"

namespace lowrank {

/// What a string cannot say.
template <executor E>
struct by_name_context {
  /// For finder=svd: `exact_svd` of a header with decompositions, which this header does not include (compile time).
  std::function<svd_status(E&, const_view_of<E>, svd_output<typename E::space> const&)> exact_svd{};
  /// For finder=given.
  basis::basic_given<typename E::space> bases{};
};

namespace detail {

template <executor E>
using named_svd = basis::basic_svd<decltype(by_name_context<E>::exact_svd)>;
template <executor E>
using named_given = basis::basic_given<typename E::space>;

/// The finders that have names, chosen at run time so that each rule is compiled once.
template <executor E>
struct named_finder : basis::one_sided {
  static constexpr finder_traits traits{.keeps_state = true, .reads_previous = true, .reads_momentum = true};

  std::variant<basis::randomized, named_svd<E>, basis::stiefel, named_given<E>, basis::warm_start, basis::tracked>
      chosen{};

  template <memory_space S>
  struct state {
    std::variant<stateless, finder_state_t<basis::warm_start, S>, finder_state_t<basis::tracked, S>> of{};
    friend void visit_state(state& s, auto&& f) {
      std::visit([&f](auto& own) { visit_state(own, f); }, s.of);
    }
  };

  [[nodiscard]] finder_traits wants() const noexcept {
    return std::visit([](auto const& f) { return finder_traits{wants_of(f)}; }, chosen);
  }
  void check() const {
    std::visit([](auto const& f) { f.check(); }, chosen);
    if (auto const* exact = std::get_if<named_svd<E>>(&chosen))
      require(static_cast<bool>(exact->call), "by_name", "finder=svd needs by_name_context::exact_svd");
  }
  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t tokens) const {
    return std::visit([&](auto const& f) { return f.workspace_bytes(g, r, tokens); }, chosen);
  }
  [[nodiscard]] index_t resize_bytes(extents g, index_t r, index_t tokens) const {
    return std::visit([&](auto const& f) { return detail::resize_bytes(f, g, r, tokens); }, chosen);
  }
  [[nodiscard]] double flops(extents g, index_t r, index_t tokens) const {
    return std::visit(
        [&](auto const& f) {
          if constexpr (requires { f.flops(g, r, tokens); }) return f.flops(g, r, tokens);
          else return 0.0;
        },
        chosen);
  }
  template <gradient G>
  [[nodiscard]] bool takes(G const&) const noexcept {
    return is_dense_gradient<G> || !std::holds_alternative<named_svd<E>>(chosen);
  }
  [[nodiscard]] bool needs_gradient() const noexcept {
    return std::visit([](auto const& f) { return f.needs_gradient(); }, chosen);
  }
  [[nodiscard]] state<typename E::space> init(E& exec, extents g, index_t r) const {
    return std::visit([&](auto const& f) { return state<typename E::space>{init_finder(exec, f, g, r)}; }, chosen);
  }
  [[nodiscard]] index_t bytes(extents g, index_t r) const {
    return std::visit([&](auto const& f) { return finder_bytes(f, g, r); }, chosen);
  }
  void observe(state<typename E::space>& s, refresh_report const& report) const {
    std::visit(
        [&]<class F>(F const& f) {
          if constexpr (F::traits.keeps_state) f.observe(std::get<finder_state_t<F, typename E::space>>(s.of), report);
        },
        chosen);
  }
  template <gradient G>
  void find(E& exec, state<typename E::space>& s, finder_inputs<E, G> const& in, view_of<E> p,
            std::int32_t* failed) const {
    std::visit(
        [&]<class F>(F const& f) {
          if constexpr (F::traits.keeps_state)
            f.find(exec, std::get<finder_state_t<F, typename E::space>>(s.of), in, p, failed);
          else if constexpr (is_dense_gradient<G> || F::traits.takes_factored) f.find(exec, in, p, failed);
        },
        chosen);
  }
};

[[nodiscard]] inline alignment take_alignment(option_list& o, alignment usual) {
  return o.take_choice<alignment>(
      "align", {{"none", alignment::none}, {"signs", alignment::signs}, {"nearest", alignment::nearest_frame}}, usual);
}
[[nodiscard]] inline range_options take_range(option_list& o, range_options found) {
  found.oversampling = o.take("oversampling", found.oversampling);
  found.power_iterations = o.take("power_iterations", found.power_iterations);
  found.sketch = o.take_choice<sketch_kind>(
      "sketch", {{"rademacher", sketch_kind::rademacher}, {"gaussian", sketch_kind::gaussian}}, found.sketch);
  return found;
}
[[nodiscard]] inline basis::warm_start take_warm_start(option_list& o, basis::warm_start out) {
  out.iterate.passes = o.take("passes", out.iterate.passes);
  out.iterate.fresh = o.take("fresh", out.iterate.fresh);
  out.iterate.order = o.take_choice<column_order>(
      "order", {{"as_iterated", column_order::as_iterated}, {"by_energy", column_order::by_energy}}, out.iterate.order);
  out.iterate.align = take_alignment(o, out.iterate.align);
  out.restart_every = o.take("restart_every", out.restart_every);
  out.cheap = o.take_choice<basis::moment_sketch>(
      "cheap", {{"never", basis::moment_sketch::never}, {"momentum", basis::moment_sketch::while_it_holds}}, out.cheap);
  out.hold = o.take("hold", out.hold);
  out.cold = take_range(o, out.cold);
  return out;
}
[[nodiscard]] inline basis::tracked take_tracked(option_list& o) {
  basis::tracked out;
  out.track.forgetting = o.take("forgetting", out.track.forgetting);
  out.track.fresh = o.take("fresh", out.track.fresh);
  out.track.align = take_alignment(o, out.track.align);
  out.cold = take_range(o, out.cold);
  return out;
}

/// What is meant where options say nothing.
enum class usual_choices : std::uint8_t { galore, q_galore };

template <executor E>
[[nodiscard]] named_finder<E> take_finder(option_list& o, by_name_context<E> const& context, usual_choices usual) {
  enum class kind : std::uint8_t { randomized, svd, stiefel, given, warm, tracked };
  bool const lazy = usual == usual_choices::q_galore;
  auto const which = o.take_choice<kind>("finder",
                                         {{"randomized", kind::randomized},
                                          {"svd", kind::svd},
                                          {"stiefel", kind::stiefel},
                                          {"given", kind::given},
                                          {"warm", kind::warm},
                                          {"tracked", kind::tracked}},
                                         lazy ? kind::warm : kind::randomized);
  named_finder<E> out;
  if (which == kind::svd) out.chosen = named_svd<E>{{}, context.exact_svd};
  if (which == kind::stiefel) out.chosen = basis::stiefel{};
  if (which == kind::given) out.chosen = context.bases;
  if (which == kind::warm) {
    basis::warm_start warm;
    if (lazy) warm.iterate.order = column_order::by_energy, warm.iterate.align = alignment::signs;
    out.chosen = take_warm_start(o, warm);
  }
  if (which == kind::tracked) out.chosen = take_tracked(o);
  if (which == kind::randomized) {
    basis::randomized found;
    found.range = take_range(o, found.range);
    out.chosen = found;
  }
  return out;
}

}  // namespace detail
}  // namespace lowrank
