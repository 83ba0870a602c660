#pragma once

#include "lowrank/optim/low_rank.hpp"

namespace lowrank {

#define LOWRANK_COMPOSITION                                                                              \
  template <class Rule, class Finder, refresh_policy Refresh, class Transport, residual_policy Residual, \
            lift_policy Lift, class Format>
#define LOWRANK_COMPOSED low_rank<Rule, Finder, Refresh, Transport, Residual, Lift, Format>

LOWRANK_COMPOSITION
void LOWRANK_COMPOSED::check() const {
  require(rank >= 1, "low_rank", "rank must be at least 1, got ", rank);
  require(rule.decay != decay_order::coupled, "low_rank",
          "coupled (L2) weight decay would need PᵀW; choose decay_order::before or after");
  rule.check();
  finder.check();
  refresh.check();
  lift.check();
}

LOWRANK_COMPOSITION
index_t LOWRANK_COMPOSED::bytes(extents weight) const {
  using sized = store<host_space>;
  extents const g = facing(side_of(weight), weight);
  index_t const r = rank_of(weight);
  extents const inner = map<host_space>::inner(g, r);
  index_t const buffered = accumulate_in == accumulation::projected ? inner.size() * index_t{sizeof(float)} : 0;
  return sized::bytes(g, r) + rule.bytes(inner) + buffered + index_t{sizeof(step_record)};
}

LOWRANK_COMPOSITION
index_t LOWRANK_COMPOSED::renew_bytes(extents g, index_t r, index_t tokens) const {
  using candidate = detail::candidate<map<host_space>>;
  return candidate::bytes(g, r) + scratch_bytes<std::int32_t>(1) + scratch_bytes<double>(1) +
         finder.workspace_bytes(g, r, tokens);
}

LOWRANK_COMPOSITION
template <class W>
index_t LOWRANK_COMPOSED::workspace_bytes(W const& weight, index_t tokens) const {
  using chosen = map<host_space>;
  extents const shape = weight.shape(), g = facing(side_of(shape), shape);
  index_t const r = rank_of(shape);
  extents const inner = chosen::inner(g, r);
  index_t const panel_columns = side_of(shape) == side::left ? g.cols : detail::panel_rows(weight);
  index_t const within_step =
      std::max({chosen::project_bytes(g, r, tokens), rule.workspace_bytes(inner),
                rule.needs_weight_rms() ? detail::measure_bytes(weight) : 0,
                detail::weight_panel_bytes(weight) + chosen::lift_bytes(r, panel_columns),
                measure != certificate::never ? gradient_norm_bytes(g, tokens) + scratch_bytes<double>(1) : 0});
  index_t const step = store<host_space>::open_bytes(g, r) + scratch_bytes<float>(inner.size()) + within_step;
  return std::max({step, renew_bytes(g, r, tokens), tokens > 0 ? detail::guard_bytes : 0});
}

LOWRANK_COMPOSITION
template <executor E>
auto LOWRANK_COMPOSED::init(E& exec, extents weight, std::uint32_t tensor) const -> state<typename E::space> {
  static_assert(update_rule<Rule, E>, "lowrank: the first slot needs an update rule (see rule/rule.hpp)");
  static_assert(basis_finder<Finder, E, const_view_of<E>>,
                "lowrank: the second slot needs a basis finder (see basis/finder.hpp)");
  static_assert(transport_policy<Transport, Rule, E>, "lowrank: this transport does not fit this rule");
  check();
  require<shape_error>(weight.rows >= 0 && weight.cols >= 0, "low_rank::init", "shape must not be negative, got ",
                       weight);
  require(tensor < (1U << 24), "low_rank::init", "tensor must be below 2^24, got ", tensor);
  extents const g = facing(side_of(weight), weight);
  index_t const r = rank_of(weight);
  extents const inner = map<host_space>::inner(g, r);
  index_t const buffered = accumulate_in == accumulation::projected ? inner.size() : 0;
  return {.weight = weight,
          .facing_side = side_of(weight),
          .rank = r,
          .tensor = tensor,
          .refresh = refresh.init(tensor),
          .store = store<typename E::space>::init(g, r),
          .rule = rule.init(exec, facing(side_of(weight), inner)),
          .accumulated = buffer<float, typename E::space>(buffered)};
}

LOWRANK_COMPOSITION
template <memory_space S>
void LOWRANK_COMPOSED::hear_report(state<S>& s) const {
  if (s.report.attempted == 0) return;
  refresh.observe(s.refresh, s.report);
  bool const refused = s.report.accepted == 0 && s.report.unchanged == 0;
  s.retry = refused && (s.report.bad_gradient != 0 || s.has_basis == 0) ? 1 : 0;
  s.report.attempted = 0;
}

/// Finds and accepts a new basis; false: the old one stays, or there still is none.
LOWRANK_COMPOSITION
template <executor E, gradient G>
bool LOWRANK_COMPOSED::renew(E& exec, state<typename E::space>& s, G const& g, index_t call) const {
  using candidate_type = detail::candidate<map<typename E::space>>;
  scratch_scope const scope{exec};
  // The state hears of it at the end: a finder that throws, because of what it was given, leaves no trace.
  refresh_report report{.call = call, .rank = s.rank, .attempted = 1};
  auto const energy = exec.peek(&s.record.data()->energy);
  bool const blind = finder.needs_gradient() && energy && *energy == 0;
  if (blind && s.has_basis != 0) {
    report.unchanged = 1;
    s.report = report;
    return false;
  }
  auto const candidate = candidate_type::take(exec, s.facing_side, g.shape(), s.rank);
  auto* const failed = exec.arena().template take<std::int32_t>(1);
  auto* const norm = exec.arena().template take<double>(1);
  exec.single([=] { *failed = 0; });
  if (blind) {
    candidate.each([&](view_of<E> p) { fill_identity(exec, p); });
  } else {
    finder_inputs<E, G> const in{
        g, call, s.facing_side, {seed, static_cast<std::uint32_t>(call), s.tensor, rng_purpose::basis}};
    if constexpr (two_sided) finder.find(exec, in, candidate.u, candidate.v, failed);
    else finder.find(exec, in, candidate.p, failed);
    // Whatever a finder claims, a basis with NaN in it never reaches the state.
    candidate.each([&](view_of<E> p) {
      squared_norm(exec, const_view_of<E>(p), norm);
      exec.single([=] {
        if (!representable(*norm)) *failed = 1;
      });
    });
  }
  if (auto const refused = exec.peek(failed); refused && *refused != 0) {
    s.report = report;
    return false;
  }
  if (s.has_basis != 0) transport.apply(exec, rule, s.rule);
  store<typename E::space>::assign(exec, s.store, s.facing_side, candidate.map());
  s.has_basis = report.accepted = 1;
  s.report = report;
  return true;
}

LOWRANK_COMPOSITION
template <executor E, weight_view<E> W, gradient_argument G>
step_status LOWRANK_COMPOSED::step(E& exec, state<typename E::space>& s, W const& weight, G const& given,
                                   step_options const& options) const {
  auto const g = as_gradient(given);
  static_assert(std::same_as<typename G::space, typename E::space>,
                "lowrank: the gradient must be in the memory space of the executor");
  static_assert(has_products<E>,
                "lowrank: include products for this executor, for the host linalg/host/eigen_products.hpp");
  detail::check_options(options, "low_rank::step");
  detail::check_weight(s.weight, weight, "low_rank::step");
  detail::check_gradient(s.weight, g, "low_rank::step");
  detail::check_aliasing(weight, g, "low_rank::step");
  require(finder.takes(g), "low_rank::step", "this finder needs the dense gradient");
  require<state_error>(s.micro_batches == 0, "low_rank::step", s.micro_batches,
                       " micro-batches are pending; call step without a gradient");
  detail::check_scratch(exec, workspace_bytes(weight, tokens_of(g)), "low_rank::step");
  hear_report(s);
  bool const due = refresh_due(s);
  index_t const call = s.calls;
  auto const counted = [&](step_status status) {
    s.calls = call + 1;
    return status;
  };
  s.captured = -1;
  if (s.weight.size() == 0) return counted(step_status::stepped);

  scratch_scope const scope{exec};
  auto const faced = facing(s.facing_side, g);
  auto* const record = s.record.data();
  auto const skipped = [&] {
    auto const seen = exec.peek(&record->skip);
    return seen && *seen != 0;
  };
  detail::begin_record(exec, record, options);
  if (due || reads_gradient) detail::guard(exec, faced, record);
  if (skipped()) {
    if (due) s.report = {.call = call, .rank = s.rank, .attempted = 1, .bad_gradient = 1};
    return counted(step_status::skipped_bad_gradient);
  }
  bool const renewed = due && renew(exec, s, faced, call);
  if (s.has_basis == 0) return counted(step_status::skipped_no_basis);

  auto const p = store<typename E::space>::open(exec, s.store, s.facing_side, faced.shape(), s.rank);
  auto const r = take_matrix(exec, p.inner(faced.shape(), s.rank), s.facing_side);
  p.project(exec, faced, 0.0F, r);
  detail::guard_projected(exec, const_view_of<E>(r), record);
  if (skipped()) return counted(step_status::skipped_bad_gradient);
  if (measure == certificate::every_step || (measure == certificate::at_refresh && renewed))
    measure_captured(exec, s, faced);
  if (renewed) s.report.captured = s.captured;
  descend(exec, s, weight, p, r, call);
  return counted(due && !renewed ? step_status::stepped_old_basis : step_status::stepped);
}

LOWRANK_COMPOSITION
template <executor E, gradient G>
void LOWRANK_COMPOSED::measure_captured(E& exec, state<typename E::space>& s, G const& g) const {
  scratch_scope const scope{exec};
  auto* const whole = exec.arena().template take<double>(1);
  squared_norm(exec, g, whole);
  auto const total = exec.peek(whole);
  auto const inside = exec.peek(s.record.data());
  if (!total || !inside) return;
  double const scale = static_cast<double>(inside->grad_scale);
  s.captured = *total > 0 && scale != 0 ? inside->projected / (scale * scale * *total) : -1;
}

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
  require(finder.takes(g), "low_rank::accumulate", "this finder needs the dense gradient");
  extents const shape = facing(s.facing_side, s.weight);
  detail::check_scratch(exec,
                        std::max(renew_bytes(shape, s.rank, tokens_of(g)),
                                 store<host_space>::open_bytes(shape, s.rank) +
                                     map<host_space>::project_bytes(shape, s.rank, tokens_of(g))),
                        "low_rank::accumulate");
  if (s.weight.size() == 0) {
    ++s.micro_batches;
    return;
  }
  scratch_scope const scope{exec};
  auto const faced = facing(s.facing_side, g);
  bool const first = s.micro_batches == 0;
  if (first) {
    hear_report(s);
    s.bad_micro_batch = 0;
    if (refresh_due(s)) {
      auto* const record = s.record.data();
      detail::begin_record(exec, record, {});
      detail::guard(exec, faced, record);
      auto const bad = exec.peek(&record->skip);
      if (bad && *bad != 0) {
        s.report = {.call = s.calls, .rank = s.rank, .attempted = 1, .bad_gradient = 1};
        s.bad_micro_batch = 1;
      } else {
        std::ignore = renew(exec, s, faced, s.calls);
      }
    }
  }
  ++s.micro_batches;
  if (s.bad_micro_batch != 0 || s.has_basis == 0) return;
  auto const p = store<typename E::space>::open(exec, s.store, s.facing_side, faced.shape(), s.rank);
  auto const sum = natural<typename E::space>(s.facing_side, s.accumulated.data(), p.inner(faced.shape(), s.rank));
  p.project(exec, faced, first ? 0.0F : 1.0F, sum);
}

LOWRANK_COMPOSITION
template <executor E, weight_view<E> W>
step_status LOWRANK_COMPOSED::step(E& exec, state<typename E::space>& s, W const& weight,
                                   step_options const& options) const {
  static_assert(has_products<E>,
                "lowrank: include products for this executor, for the host linalg/host/eigen_products.hpp");
  detail::check_options(options, "low_rank::step");
  detail::check_weight(s.weight, weight, "low_rank::step");
  require<state_error>(s.micro_batches > 0, "low_rank::step", "nothing was accumulated");
  detail::check_scratch(exec, workspace_bytes(weight), "low_rank::step");
  index_t const call = s.calls++;
  s.micro_batches = 0;
  s.captured = -1;
  if (s.weight.size() == 0) return step_status::stepped;
  if (s.bad_micro_batch != 0) return step_status::skipped_bad_gradient;
  if (s.has_basis == 0) return step_status::skipped_no_basis;
  scratch_scope const scope{exec};
  auto* const record = s.record.data();
  extents const g = facing(s.facing_side, s.weight);
  detail::begin_record(exec, record, options);
  auto const p = store<typename E::space>::open(exec, s.store, s.facing_side, g, s.rank);
  // The sum is spent by this step, so the rule may write its direction over it.
  auto const r = natural<typename E::space>(s.facing_side, s.accumulated.data(), p.inner(g, s.rank));
  detail::guard_projected(exec, const_view_of<E>(r), record);
  if (auto const seen = exec.peek(&record->skip); seen && *seen != 0) return step_status::skipped_bad_gradient;
  bool const refused = s.report.attempted != 0 && s.report.accepted == 0;
  descend(exec, s, weight, p, r, call);
  return refused ? step_status::stepped_old_basis : step_status::stepped;
}

/// From R to the weight: the rule in place, then W <- keep W + down P X over panels of W's own rows.
LOWRANK_COMPOSITION
template <executor E, class W>
void LOWRANK_COMPOSED::descend(E& exec, state<typename E::space>& s, W const& weight, map<typename E::space> const& p,
                               view_of<E> r, index_t call) const {
  auto* const record = s.record.data();
  if (rule.needs_weight_rms()) detail::measure_weight(exec, weight, record);
  rule.begin(exec, s.rule, record);
  exec.single([record, coefficient = lift.coefficient()] { record->direction_scale = record->rate * coefficient; });
  // The rule sees R as the weight lies, so that a basis of columns of the identity changes no bit of what it does.
  auto const own = facing(s.facing_side, r);
  rule.update(exec, s.rule, const_view_of<E>(own), own, record);
  auto const seen = exec.peek(record);
  float const keep = seen ? seen->keep : 1.0F, down = seen ? seen->down : -1.0F;
  extents const g = facing(s.facing_side, s.weight);
  rng_key const key{seed, static_cast<std::uint32_t>(call), s.tensor, rng_purpose::rounding};
  detail::for_panels(exec, weight, key, record, [&](view_of<E> panel, index_t begin, index_t end) {
    block const part = s.facing_side == side::left ? block{begin, end, 0, g.cols} : block{0, g.rows, begin, end};
    auto const out = facing(s.facing_side, panel);
    if constexpr (Lift::lifts) p.lift(exec, down, const_view_of<E>(r), part, keep, out);
    else if (keep != 1.0F) scale(exec, keep, out);
  });
}

#undef LOWRANK_COMPOSITION
#undef LOWRANK_COMPOSED

}  // namespace lowrank
