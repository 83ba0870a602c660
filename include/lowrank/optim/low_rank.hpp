/// @file
/// The composition: one rule in one subspace, and what surrounds it.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/basis/side.hpp"
#include "lowrank/basis/store.hpp"
#include "lowrank/lift/lift.hpp"
#include "lowrank/optim/step_parts.hpp"
#include "lowrank/refresh/every.hpp"
#include "lowrank/residual/drop.hpp"
#include "lowrank/transport/policy.hpp"

namespace lowrank {

/// Whether `accumulate` is going to be called: it needs an r x n buffer.
enum class accumulation : std::uint8_t { none, projected };
/// When ‖PᵀG‖² / ‖G‖² is measured. It costs one norm of the gradient; at a refresh from a dense gradient it costs nothing
/// and is always known.
enum class certificate : std::uint8_t { never, at_refresh, every_step };

/// Trains a matrix in a low-rank subspace: R = Pᵀ G, N from the rule on R, W <- keep W - rate scale P N.
/// Facing coordinates: G m x n, P m x r, R r x n (two-sided: r x r); a right-sided weight is the flipped view.
/// Each slot answers one question: Rule (what to do in the subspace), Finder (which basis), Refresh (when), Transport
/// (what becomes of the moments then), Residual (what of G - P R), Lift (how N acts on W), Format (how P is kept).
/// Settings are this aggregate; the state is made by `init` and owned by the caller. Cost of a step without refresh:
/// 4 m n r flops (dense), 2 T r (m + n) + 2 m n r (factored). Nothing allocates.
/// Synchronises: on a device, only steps that look for a new basis, and those of a refresh policy that measures every step;
/// they decide by what they find. All others never wait and can be captured in a graph.
/// Reference: Zhao et al., arXiv 2403.03507, Algorithm 2.
template <class Rule, class Finder, refresh_policy Refresh = refresh::every, class Transport = transport::keep,
          residual_policy Residual = residual::drop, lift_policy Lift = lift::back_project, class Format = format::fp32>
struct low_rank {
  // Constrained, these two aliases crash clang 14.
  template <class S>
  using map = typename Finder::template map<S>;
  template <class S>
  using store = basis_store<map<S>, Format>;
  static constexpr bool two_sided = map<host_space>::two_sided;
  static constexpr bool reads_gradient = Residual::traits.reads_gradient;
  static constexpr bool takes_factored = Finder::traits.takes_factored;

  index_t rank{128};  ///< at most; min(rank, m, n) is used
  side_choice keep_side{side_choice::keep_large};
  std::uint64_t seed{0};
  accumulation accumulate_in{accumulation::none};
  certificate measure{certificate::never};
  Rule rule{};
  Finder finder{};
  Refresh refresh{};
  Transport transport{};
  Residual residual{};
  Lift lift{};
  Format format{};

  template <memory_space S>
  struct state {
    extents weight{};
    side facing_side{};
    index_t capacity{};  ///< the largest rank
    index_t rank{};      ///< of the basis in use
    std::uint32_t tensor{};
    index_t calls{}, micro_batches{};
    std::uint8_t has_basis{}, retry{}, bad_micro_batch{};
    refresh_report report{};  ///< of the last call; the refresh policy hears of it at the next
    double captured{-1};      ///< ‖PᵀG‖² / ‖G‖² of the last step, where it was measured
    typename Refresh::state refresh;
    detail::finder_state_t<Finder, S> finder;
    typename store<S>::state store;
    state_of<Rule, S> rule;
    buffer<float, S> accumulated;
    buffer<step_record, S> record{1};

    friend void visit_state(state& s, auto&& f) {
      f("weight_rows", identity(s.weight.rows));
      f("weight_cols", identity(s.weight.cols));
      f("side", identity(s.facing_side));
      f("rank", identity(s.capacity));
      f("tensor", identity(s.tensor));
      f("calls", s.calls);
      f("micro_batches", s.micro_batches);
      f("has_basis", s.has_basis);
      f("retry", s.retry);
      f("bad_micro_batch", s.bad_micro_batch);
      f("captured", s.captured);
      visit_state(s.report, prefixed(f, "report."));
      if constexpr (Refresh::traits.needs_overlap) {
        f("report.overlap", s.report.overlap);
        f("report.first_cosine", s.report.first_cosine);
      }
      if constexpr (Refresh::traits.changes_rank) {
        f("report.needed_rank", s.report.needed_rank);
        f("active_rank", s.rank);
      }
      visit_state(s.refresh, prefixed(f, "refresh."));
      visit_state(s.finder, prefixed(f, "finder."));
      visit_state(s.store, prefixed(f, "basis."));
      visit_state(s.rule, prefixed(f, "rule."));
      f("accumulated", s.accumulated);
    }
  };

  [[nodiscard]] side side_of(extents weight) const noexcept {
    return two_sided ? side::left : choose_side(keep_side, weight);
  }
  [[nodiscard]] index_t rank_of(extents weight) const noexcept { return std::min({rank, weight.rows, weight.cols}); }
  /// Throws argument_error naming the first setting that cannot be meant.
  void check() const;
  /// Bytes the state of a weight of that shape holds: basis, what the rule keeps, and the rest.
  [[nodiscard]] index_t bytes(extents weight) const;
  [[nodiscard]] index_t basis_bytes(extents weight) const {
    return store<host_space>::bytes(facing(side_of(weight), weight), rank_of(weight), format);
  }
  [[nodiscard]] index_t rule_bytes(extents weight) const {
    return rule.bytes(map<host_space>::inner(facing(side_of(weight), weight), rank_of(weight)));
  }
  /// Scratch of the largest phase of a step; `tokens` is the T of factored gradients, 0 for dense ones.
  template <class W>
  [[nodiscard]] index_t workspace_bytes(W const& weight, index_t tokens = 0) const;
  /// The state of one weight. `tensor` tells weights of equal shape apart in everything random.
  template <executor E>
  [[nodiscard]] state<typename E::space> init(E& exec, extents weight, std::uint32_t tensor) const;

  /// One step. Bad use throws before anything is written; bad numbers skip the step or keep the basis, as the status says.
  template <executor E, weight_view<E> W, gradient_argument G>
  step_status step(E& exec, state<typename E::space>& s, W const& weight, G const& g,
                   step_options const& options) const;
  template <executor E, gradient_argument G>
  step_status step(E& exec, state<typename E::space>& s, view_of<E> weight, G const& g,
                   step_options const& options) const {
    return step(exec, s, fp32_weight<typename E::space>{weight}, g, options);
  }
  /// What became of the last step. Synchronises on a device, where `step` answers as if all went well.
  template <executor E>
  [[nodiscard]] step_status status(E& exec, state<typename E::space> const& s) const {
    return detail::status_of(exec, s.record.data());
  }
  /// Tells the state that a step recorded once (a CUDA graph) has been repeated. Requires: no refresh was due in between.
  template <memory_space S>
  void advance(state<S>& s, index_t repetitions) const {
    s.calls += repetitions;
  }
  /// Whether the next step looks for a new basis.
  template <memory_space S>
  [[nodiscard]] bool refresh_due(state<S> const& s) const;
  /// Adds a micro-batch in the subspace: exact, because projection is linear. The first of a step asks for the refresh.
  template <executor E, gradient_argument G>
  void accumulate(E& exec, state<typename E::space>& s, G const& g) const;
  /// The step of everything accumulated since the last one. The gradient is the sum: give grad_scale = 1 / micro-batches
  /// for the mean.
  template <executor E, weight_view<E> W>
  step_status step(E& exec, state<typename E::space>& s, W const& weight, step_options const& options) const;
  template <executor E>
  step_status step(E& exec, state<typename E::space>& s, view_of<E> weight, step_options const& options) const {
    return step(exec, s, fp32_weight<typename E::space>{weight}, options);
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  /// Whether a call looked for a basis, and whether it found one.
  struct attempt {
    bool due{}, renewed{};
  };
  /// Whether the last call has something to say that nobody has heard yet.
  [[nodiscard]] static bool has_news(refresh_report const& report) noexcept {
    return report.attempted != 0 || report.captured >= 0;
  }
  template <memory_space S>
  [[nodiscard]] static bool tries_again(state<S> const& s) noexcept;
  template <memory_space S>
  void hear_report(state<S>& s) const;
  template <executor E, gradient G>
  [[nodiscard]] bool renew(E& exec, state<typename E::space>& s, G const& g, index_t call) const;
  template <executor E, gradient G>
  double take_measures(E& exec, state<typename E::space>& s, G const& g, const_view_of<E> r, attempt happened) const;
  [[nodiscard]] bool looks_every_step() const noexcept {
    return wants_of(refresh).needs_captured || measure == certificate::every_step;
  }
  [[nodiscard]] bool opens_previous() const noexcept {
    return wants_of(finder).reads_previous || wants_of(transport).needs_change || wants_of(refresh).needs_overlap;
  }
  template <executor E, class W>
  void descend(E& exec, state<typename E::space>& s, W const& weight, map<typename E::space> const& p, view_of<E> r,
               index_t call) const;
  [[nodiscard]] index_t renew_bytes(extents g, index_t r, index_t tokens) const;
  [[nodiscard]] index_t measure_bytes(extents g, index_t r, index_t tokens) const;
};

}  // namespace lowrank

#include "lowrank/optim/detail/low_rank.hpp"
