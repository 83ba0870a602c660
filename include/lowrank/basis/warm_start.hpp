/// @file
/// The basis of the last refresh, turned towards the current gradient.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/core/refresh_report.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/route.hpp"
#include "lowrank/linalg/sketch_range.hpp"
#include "lowrank/linalg/warm_range.hpp"

namespace lowrank::basis {

/// When the rule's first moment serves as the sketch: one product with G instead of two or more.
enum class moment_sketch : std::uint8_t {
  never,
  while_it_holds,  ///< until it captures less than `hold` times what the last full refresh did; then one full refresh
};
/// Which way the products go.
enum class route_choice : std::uint8_t {
  cheapest,  ///< by the flops of linalg/route.hpp; C = GGᵀ may need m x m scratch in fp64
  direct,    ///< products with G only
};

/// How a basis is found from nothing.
enum class cold_search : std::uint8_t {
  range_finder,  ///< as `cold` says: sketch, power steps, Rayleigh-Ritz
  sketch,        ///< `sketch_range`, one product: all there is where rank(G) <= r, as with fewer tokens than r
};

/// Warm-started block iteration; the first basis, and every `restart_every`-th, from a sketch.
/// Two passes with eight fresh columns are as good as a cold randomized SVD with two power steps, at two thirds of its
/// products; one pass without is the cheapest that never captures less than the basis it came from. Where the spectrum is
/// flat, `between = between_products::shift` and `again` = r / 16 give one pass the accuracy of svd_lowrank(niter = 2).
/// State: a few numbers. Cost: `warm_range`, or C = GGᵀ and products with it where `route` finds that cheaper.
/// Reference: Vogels et al. (PowerSGD), arXiv 1905.13727, Algorithm 1; Robert et al. (LDAdam), arXiv 2410.16103, section 3.
template <class Orthonormalizer = orthonormal::cholesky>
struct basic_warm_start : one_sided {
  static constexpr finder_traits traits{.keeps_state = true, .reads_previous = true, .reads_momentum = true};

  warm_options iterate{.fresh = 8, .passes = 2};
  range_options cold{.power_iterations = 2};
  route_choice route{route_choice::direct};
  index_t restart_every{0};  ///< refreshes after which the basis is found from nothing again; 0: never
  moment_sketch cheap{moment_sketch::never};
  double hold{0.95};
  cold_search first{cold_search::range_finder};
  Orthonormalizer make_orthonormal{};

  template <memory_space S>
  struct state {
    index_t since_cold{};
    std::uint8_t was_cheap{}, escalate{};
    double full_captured{-1};  ///< by the last refresh that was not a cheap one
    friend void visit_state(state& s, auto&& f) {
      f("since_cold", s.since_cold);
      f("was_cheap", s.was_cheap);
      f("escalate", s.escalate);
      f("full_captured", s.full_captured);
    }
  };

  [[nodiscard]] constexpr finder_traits wants() const noexcept {
    auto out = traits;
    out.reads_momentum = cheap != moment_sketch::never;
    return out;
  }
  void check() const {
    lowrank::detail::check_warm("basis::warm_start", iterate);
    require(cold.oversampling >= 0 && cold.power_iterations >= 0, "basis::warm_start",
            "oversampling and power_iterations must not be negative, got ", cold.oversampling, " and ",
            cold.power_iterations);
    require(restart_every >= 0, "basis::warm_start", "restart_every must not be negative, got ", restart_every);
    require(hold >= 0 && hold <= 1, "basis::warm_start", "hold must be in [0, 1], got ", hold);
  }
  template <executor E>
  [[nodiscard]] state<typename E::space> init(E&, extents, index_t) const {
    return {};
  }
  [[nodiscard]] static constexpr index_t bytes(extents, index_t) noexcept { return 0; }
  /// Of a warm refresh.
  [[nodiscard]] double flops(extents g, index_t r, index_t tokens) const {
    auto const work = warm_work(g, r, tokens);
    double const cost = route_flops(chosen(work), work).cost();
    if (chosen(work) != range_route::direct || r == 0) return cost;  // which makes no pass again
    double const again = static_cast<double>(std::min(iterate.again, r)) / static_cast<double>(r);
    return cost * (1 + again / static_cast<double>(iterate.passes));
  }
  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t tokens) const {
    auto const by_gram = [&](range_work const& work, gram_range_options const& options) {
      return chosen(work) == range_route::direct ? 0 : gram_range_bytes(g, r, options, tokens);
    };
    auto const w = warm_work(g, r, tokens), c = cold_work(g, r, tokens);
    index_t const from_nothing = first == cold_search::sketch ? sketch_range_bytes<Orthonormalizer>(g, r, tokens)
                                                              : std::max(find_range_bytes(g, r, cold, tokens),
                                                                         by_gram(c, gram_options(c, chosen(c))));
    return scratch_bytes<range_report>(1) +
           std::max(
               {warm_range_bytes<Orthonormalizer>(g, r, r, iterate, tokens),
                cheap == moment_sketch::never ? 0 : sketched_range_bytes<Orthonormalizer>(g, r, r, r, iterate, tokens),
                from_nothing, by_gram(w, gram_options(w, chosen(w)))});
  }
  /// Most where the widest basis shrinks to one column: the narrower, the more is dropped of the same block. Or where it
  /// loses one: the wider, the more takes another pass.
  [[nodiscard]] index_t resize_bytes(extents g, index_t r, index_t tokens) const {
    index_t const least = std::min<index_t>(r, 1);
    return scratch_bytes<range_report>(1) +
           std::max(std::max(warm_range_bytes<Orthonormalizer>(g, r, least, iterate, tokens),
                             warm_range_bytes<Orthonormalizer>(g, r, std::max(least, r - 1), iterate, tokens)),
                    cheap == moment_sketch::never
                        ? 0
                        : sketched_range_bytes<Orthonormalizer>(g, r, r, least, iterate, tokens));
  }
  void observe(auto& s, refresh_report const& report) const {
    if (report.accepted == 0 || report.captured < 0) return;
    if (s.was_cheap == 0) s.full_captured = report.captured;
    else if (report.captured < hold * s.full_captured) s.escalate = 1;
  }
  template <executor E, gradient G>
  void find(E& exec, state<typename E::space>& s, finder_inputs<E, G> const& in, view_of<E> p,
            std::int32_t* failed) const {
    scratch_scope const scope{exec};
    auto* const report = exec.arena().template take<range_report>(1);
    auto const& g = in.gradient;
    bool const restart = in.previous.empty() || (restart_every > 0 && s.since_cold + 1 >= restart_every);
    bool const sketched =
        !restart && cheap != moment_sketch::never && s.escalate == 0 && s.full_captured >= 0 && !in.momentum.empty();
    if (restart) from_nothing(exec, g, in.key, p, report);
    else if (sketched)
      sketched_range(exec, g, in.momentum.t(), in.previous, p, iterate, in.key, report, nullptr, make_orthonormal);
    else turned(exec, g, in.previous, in.key, p, report);
    exec.single([=] LOWRANK_DEVICE { *failed = report->failed; });
    if (auto const bad = exec.peek(failed); bad && *bad != 0) return;
    s.since_cold = restart ? 0 : s.since_cold + 1;
    s.was_cheap = sketched ? 1 : 0;
    if (!sketched) s.escalate = 0;
  }

 private:
  [[nodiscard]] range_work warm_work(extents g, index_t r, index_t tokens) const noexcept {
    return {g, r, iterate.fresh, iterate.passes, tokens, range_start::warm};
  }
  [[nodiscard]] range_work cold_work(extents g, index_t r, index_t tokens) const noexcept {
    return {g, r, cold.oversampling, cold.power_iterations, tokens, range_start::cold};
  }
  [[nodiscard]] range_route chosen(range_work const& work) const noexcept {
    return route == route_choice::direct ? range_route::direct : cheapest_route(work);
  }
  [[nodiscard]] static gram_range_options gram_options(range_work const& work, range_route way) noexcept {
    index_t const one_more = work.start == range_start::cold ? 1 : 0;
    return {.solver = way == range_route::gram_eigen ? gram_solver::eigen : gram_solver::subspace,
            .iterations = work.passes + one_more,
            .oversampling = work.oversampling};
  }
  template <executor E, gradient G>
  void from_nothing(E& exec, G const& g, rng_key const& key, view_of<E> p, range_report* report) const {
    if (first == cold_search::sketch) return sketch_range(exec, g, p, key, report, make_orthonormal);
    auto const work = cold_work(g.shape(), p.cols, tokens_of(g));
    if (auto const way = chosen(work); way == range_route::direct) find_range(exec, g, p, cold, key, report);
    else find_range_by_gram(exec, g, p, gram_options(work, way), key, report);
  }
  template <executor E, gradient G>
  void turned(E& exec, G const& g, const_view_of<E> previous, rng_key const& key, view_of<E> p,
              range_report* report) const {
    auto const work = warm_work(g.shape(), p.cols, tokens_of(g));
    auto const way = previous.cols == p.cols ? chosen(work) : range_route::direct;
    if (way == range_route::direct)
      return warm_range(exec, g, previous, p, iterate, key, report, nullptr, make_orthonormal);
    find_range_by_gram(exec, g, previous, p, gram_options(work, way), key, report);
    if (iterate.align != alignment::none) align_frame(exec, previous, p, iterate.align, key);
  }
};
using warm_start = basic_warm_start<>;

}  // namespace lowrank::basis
