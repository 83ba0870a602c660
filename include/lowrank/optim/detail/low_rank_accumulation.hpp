#pragma once

#include "lowrank/optim/low_rank.hpp"

namespace lowrank {

#define LOWRANK_COMPOSITION                                                                              \
  template <class Rule, class Finder, refresh_policy Refresh, class Transport, residual_policy Residual, \
            lift_policy Lift, class Format>
#define LOWRANK_COMPOSED low_rank<Rule, Finder, Refresh, Transport, Residual, Lift, Format>

LOWRANK_COMPOSITION
template <executor E, gradient_argument G>
void LOWRANK_COMPOSED::accumulate(E& exec, state<typename E::space>& s, G const& given) const {
  auto const g = as_gradient(given);
  static_assert(
      !reads_gradient,
      "lowrank: this residual needs the whole gradient in every step, so it cannot be accumulated in the subspace");
  require<state_error>(accumulate_in == accumulation::projected, "low_rank::accumulate",
                       "set accumulate_in = accumulation::projected before init");
  detail::check_gradient(s.weight, g, "low_rank::accumulate");
  detail::check_memory(exec, s.record.data(), "low_rank::accumulate", g);
  require(finder.takes(g), "low_rank::accumulate", "this finder needs the dense gradient");
  extents const shape = facing(s.facing_side, s.weight);
  detail::check_scratch(exec,
                        std::max(renew_bytes(shape, s.capacity, tokens_of(g)),
                                 store<host_space>::open_bytes(shape, s.capacity, format) +
                                     std::max(map<host_space>::project_bytes(shape, s.capacity, tokens_of(g)),
                                              measure_bytes(shape, s.capacity, tokens_of(g)))),
                        "low_rank::accumulate");
  if (s.weight.size() == 0) {
    ++s.micro_batches;
    return;
  }
  bool const first = s.micro_batches == 0;
  std::optional<look_scope<E>> looking;
  if (first && (refresh_due(s) || looks_every_step())) {
    detail::check_not_recorded(exec, "low_rank::accumulate");
    looking.emplace(exec);
  }
  scratch_scope const scope{exec};
  auto const faced = facing(s.facing_side, g);
  bool due = false, renewed = false;
  if (first) {
    hear_report(s);
    s.bad_micro_batch = 0;
    due = refresh_due(s);
    detail::begin_record(exec, s.record.data(), {});
    if (due) {
      auto* const record = s.record.data();
      detail::guard(exec, faced, record);
      auto const bad = exec.peek(&record->skip);
      if (bad && *bad != 0) {
        s.report = {.call = s.calls, .rank = s.rank, .attempted = 1, .bad_gradient = 1};
        s.bad_micro_batch = 1;
      } else {
        renewed = renew(exec, s, faced, s.calls);
      }
    }
  }
  if (first) s.captured = -1;
  if (s.bad_micro_batch != 0 || s.has_basis == 0) {
    ++s.micro_batches;
    return;
  }
  auto const p = store<typename E::space>::open(exec, s.store, s.facing_side, faced.shape(), s.rank);
  auto const sum = natural<typename E::space>(s.facing_side, s.accumulated.data(), p.inner(faced.shape(), s.rank));
  p.project(exec, faced, first ? 0.0F : 1.0F, sum);
  ++s.micro_batches;
  if (!first) return;
  // What the refresh policy hears of a step is what its first micro-batch showed.
  squared_norm(exec, const_view_of<E>(sum), &s.record.data()->projected);
  s.captured = take_measures(exec, s, faced, const_view_of<E>(sum), {due, renewed});
}

LOWRANK_COMPOSITION
template <executor E, weight_view<E> W>
step_status LOWRANK_COMPOSED::step(E& exec, state<typename E::space>& s, W const& weight,
                                   step_options const& options) const {
  static_assert(has_products<E>,
                "lowrank: include products for this executor, for the host linalg/host/eigen_products.hpp");
  detail::check_options(options, "low_rank::step");
  detail::check_weight(s.weight, weight, "low_rank::step");
  detail::check_memory(exec, s.record.data(), "low_rank::step", weight);
  require<state_error>(s.micro_batches > 0, "low_rank::step", "nothing was accumulated");
  detail::check_scratch(exec, workspace_bytes(weight), "low_rank::step");
  index_t const call = s.calls;
  auto const counted = [&](step_status status) {
    s.calls = call + 1;
    s.micro_batches = 0;
    return status;
  };
  if (s.weight.size() == 0) return counted(step_status::stepped);
  if (s.bad_micro_batch != 0) return counted(step_status::skipped_bad_gradient);
  if (s.has_basis == 0) return counted(step_status::skipped_no_basis);
  scratch_scope const scope{exec};
  auto* const record = s.record.data();
  extents const g = facing(s.facing_side, s.weight);
  detail::begin_record(exec, record, options);
  auto const p = store<typename E::space>::open(exec, s.store, s.facing_side, g, s.rank);
  // The sum is spent by this step, so the rule may write its direction over it.
  auto const r = natural<typename E::space>(s.facing_side, s.accumulated.data(), p.inner(g, s.rank));
  detail::guard_projected(exec, const_view_of<E>(r), record);
  if (auto const seen = exec.peek(&record->skip); seen && *seen != 0) return counted(step_status::skipped_bad_gradient);
  bool const refused = s.report.attempted != 0 && s.report.accepted == 0;
  descend(exec, s, weight, p, r, call);
  return counted(refused ? step_status::stepped_old_basis : step_status::stepped);
}

#undef LOWRANK_COMPOSITION
#undef LOWRANK_COMPOSED

}  // namespace lowrank
