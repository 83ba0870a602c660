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
  static_assert(!Refresh::traits.changes_rank || lists_moments<Rule>,
                "lowrank: a rank that changes needs a rule that lists its moments");
  rule.check();
  finder.check();
  refresh.check();
  lift.check();
}

LOWRANK_COMPOSITION
index_t LOWRANK_COMPOSED::bytes(extents weight) const {
  extents const g = facing(side_of(weight), weight);
  index_t const r = rank_of(weight);
  index_t const sums = accumulate_in == accumulation::projected ? map<host_space>::inner(g, r).size() : 0;
  return basis_bytes(weight) + rule_bytes(weight) + detail::finder_bytes(finder, g, r) + sums * index_t{sizeof(float)} +
         index_t{sizeof(step_record)};
}

LOWRANK_COMPOSITION
index_t LOWRANK_COMPOSED::renew_bytes(extents g, index_t r, index_t tokens) const {
  using candidate = detail::candidate<map<host_space>>;
  bool const turns = wants_of(transport).needs_change;
  index_t const change =
      turns || wants_of(refresh).needs_overlap ? map<host_space>::change_bytes(r) + scratch_bytes<double>(2) : 0;
  bool const resizes = wants_of(refresh).changes_rank, moves = turns || resizes;
  // Moments in codes are decoded to be moved, or to be looked at by the finder.
  index_t decoded = 0, momentum = 0;
  if constexpr (lists_moments<Rule>) {
    decoded = index_t{std::size(Rule::moment_orders)} * Rule::moment_format::read_bytes(map<host_space>::inner(g, r));
    if (wants_of(finder).reads_momentum && !two_sided) momentum = Rule::moment_format::read_bytes({r, g.cols});
  }
  return candidate::bytes(g, r) + scratch_bytes<std::int32_t>(1) + scratch_bytes<double>(1) +
         (opens_previous() ? store<host_space>::open_bytes(g, r, format) : 0) + momentum +
         std::max(
             {finder.workspace_bytes(g, r, tokens), resizes ? detail::resize_bytes(finder, g, r, tokens) : 0,
              change +
                  (moves ? decoded + transport.workspace_bytes(map<host_space>::inner(g, r), two_sided ? 2 : 1) : 0)});
}

LOWRANK_COMPOSITION
index_t LOWRANK_COMPOSED::measure_bytes(extents g, index_t r, index_t tokens) const {
  auto const wants = wants_of(refresh);
  bool const exact = measure != certificate::never || wants.needs_captured || wants.changes_rank;
  return scratch_bytes<double>(1) + scratch_bytes<index_t>(1) + (exact ? gradient_norm_bytes(g, tokens) : 0) +
         (wants.changes_rank ? scratch_bytes<double>(r) : 0);
}

LOWRANK_COMPOSITION
template <class W>
index_t LOWRANK_COMPOSED::workspace_bytes(W const& weight, index_t tokens) const {
  using chosen = map<host_space>;
  extents const shape = weight.shape(), g = facing(side_of(shape), shape);
  index_t const r = rank_of(shape);
  extents const inner = chosen::inner(g, r);
  index_t const panel_columns = side_of(shape) == side::left ? g.cols : detail::panel_rows(weight);
  index_t const within_step = std::max({chosen::project_bytes(g, r, tokens), rule.workspace_bytes(inner),
                                        rule.needs_weight_rms() ? detail::measure_bytes(weight) : 0,
                                        detail::weight_panel_bytes(weight) + chosen::lift_bytes(r, panel_columns),
                                        measure_bytes(g, r, tokens)});
  index_t const step = store<host_space>::open_bytes(g, r, format) + scratch_bytes<float>(inner.size()) + within_step;
  return std::max({step, renew_bytes(g, r, tokens), tokens > 0 ? detail::guard_bytes : 0});
}

LOWRANK_COMPOSITION
template <executor E>
auto LOWRANK_COMPOSED::init(E& exec, extents weight, std::uint32_t tensor) const -> state<typename E::space> {
  static_assert(update_rule<Rule, E>, "lowrank: the first slot needs an update rule (see rule/rule.hpp)");
  static_assert(basis_finder<Finder, E, const_view_of<E>>,
                "lowrank: the second slot needs a basis finder (see basis/finder.hpp)");
  static_assert(Transport::template fits<Rule>, "lowrank: this transport does not fit this rule");
  static_assert(transport_policy<Transport, Rule, E>, "lowrank: the transport slot needs a transport policy");
  check();
  require<shape_error>(weight.rows >= 0 && weight.cols >= 0, "low_rank::init", "shape must not be negative, got ",
                       weight);
  require(tensor < (1U << 24), "low_rank::init", "tensor must be below 2^24, got ", tensor);
  extents const g = facing(side_of(weight), weight);
  index_t const r = rank_of(weight);
  extents const inner = map<host_space>::inner(g, r);
  index_t const buffered = accumulate_in == accumulation::projected ? inner.size() : 0;
  refresh_context context{.tensor = tensor, .facing = g, .capacity = r};
  if constexpr (requires { finder.flops(g, r, index_t{}); })
    context.refresh_flops = [this, g, r](index_t count) { return finder.flops(g, r, count); };
  return {.weight = weight,
          .facing_side = side_of(weight),
          .capacity = r,
          .rank = r,
          .tensor = tensor,
          .refresh = refresh.init(context),
          .finder = detail::init_finder(exec, finder, g, r),
          .store = store<typename E::space>::init(g, r, format),
          .rule = rule.init(exec, facing(side_of(weight), inner)),
          .accumulated = buffer<float, typename E::space>(buffered)};
}

LOWRANK_COMPOSITION
template <memory_space S>
bool LOWRANK_COMPOSED::tries_again(state<S> const& s) noexcept {
  if (s.report.attempted == 0) return s.retry != 0;
  bool const refused = s.report.accepted == 0 && s.report.unchanged == 0;
  return refused && (s.report.bad_gradient != 0 || s.has_basis == 0);
}

LOWRANK_COMPOSITION
template <memory_space S>
void LOWRANK_COMPOSED::hear_report(state<S>& s) const {
  if (!has_news(s.report)) return;
  refresh.observe(s.refresh, s.report);
  if constexpr (Finder::traits.keeps_state) finder.observe(s.finder, s.report);
  s.retry = tries_again(s) ? 1 : 0;
  s.report.captured = -1;
  s.report.attempted = 0;
}

LOWRANK_COMPOSITION
template <memory_space S>
bool LOWRANK_COMPOSED::refresh_due(state<S> const& s) const {
  auto heard = s.refresh;  // as the next call will have it, which hears before it decides
  if (has_news(s.report)) refresh.observe(heard, s.report);
  return s.has_basis == 0 || tries_again(s) || refresh.due(heard, s.calls);
}

/// Finds and accepts a new basis; false: the old one stays, or there still is none.
LOWRANK_COMPOSITION
template <executor E, gradient G>
bool LOWRANK_COMPOSED::renew(E& exec, state<typename E::space>& s, G const& g, index_t call) const {
  using candidate_type = detail::candidate<map<typename E::space>>;
  scratch_scope const scope{exec};
  // The state hears of it at the end: a finder that throws, because of what it was given, leaves no trace.
  index_t r = s.capacity;
  if constexpr (Refresh::traits.changes_rank) r = std::clamp<index_t>(refresh.rank(s.refresh), 1, s.capacity);
  refresh_report report{.call = call, .rank = r, .attempted = 1};
  auto const energy = exec.peek(&s.record.data()->energy);
  bool const blind = finder.needs_gradient() && energy && *energy == 0;
  if (blind && s.has_basis != 0) {
    report.unchanged = 1;
    report.rank = s.rank;
    s.report = report;
    return false;
  }
  auto const candidate = candidate_type::take(exec, s.facing_side, g.shape(), r);
  auto* const failed = exec.arena().template take<std::int32_t>(1);
  auto* const norm = exec.arena().template take<double>(1);
  exec.single([=] LOWRANK_DEVICE { *failed = 0; });
  map<typename E::space> old{};
  if (opens_previous() && s.has_basis != 0)
    old = store<typename E::space>::open(exec, s.store, s.facing_side, g.shape(), s.rank);
  if (blind) {
    candidate.each([&](view_of<E> p) { fill_identity(exec, p); });
  } else {
    finder_inputs<E, G> in{
        g, call, s.facing_side, {seed, static_cast<std::uint32_t>(call), s.tensor, rng_purpose::basis}};
    if constexpr (two_sided) in.previous = old.u, in.previous_right = old.v;
    else in.previous = old.p;
    if constexpr (Finder::traits.reads_momentum && lists_moments<Rule> && !two_sided) {
      if constexpr (std::size(Rule::moment_orders) > 0)
        if (s.has_basis != 0 && Rule::moment_orders[0] == moment_order::first && wants_of(finder).reads_momentum)
          in.momentum = Rule::moment_format::read(exec, s.rule.moment[0], s.facing_side, {s.rank, g.shape().cols});
    }
    if constexpr (two_sided) detail::find_basis(exec, finder, s.finder, in, candidate.u, candidate.v, failed);
    else detail::find_basis(exec, finder, s.finder, in, candidate.p, failed);
    // Whatever a finder claims, a basis with NaN in it never reaches the state.
    candidate.each([&](view_of<E> p) {
      squared_norm(exec, const_view_of<E>(p), norm);
      exec.single([=] LOWRANK_DEVICE {
        if (!representable(*norm)) *failed = 1;
      });
    });
  }
  if (auto const refused = exec.peek(failed); refused && *refused != 0) {
    s.report = report;
    return false;
  }
  if (s.has_basis != 0) {
    scratch_scope const move{exec};
    extents const shape = g.shape();
    transport_inputs<E> in{s.facing_side, old.inner(shape, s.rank), candidate.map().inner(shape, r)};
    if (wants_of(transport).needs_change || wants_of(refresh).needs_overlap) {
      in.change = candidate.map().change_from(exec, old);
      auto* const overlap = exec.arena().template take<double>(2);
      squared_norm(exec, in.change.left, overlap);
      exec.single([=, c = in.change.left] LOWRANK_DEVICE { overlap[1] = static_cast<double>(c(0, 0)); });
      if (auto const shared = exec.peek(overlap)) {
        report.overlap = *shared / static_cast<double>(r);
        report.first_cosine = *exec.peek(overlap + 1);
      }
    }
    transport.apply(exec, rule, s.rule, in);
  }
  store<typename E::space>::assign(exec, s.store, s.facing_side, candidate.map());
  s.rank = r;
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
  detail::check_memory(exec, s.record.data(), "low_rank::step", weight, g);
  require(finder.takes(g), "low_rank::step", "this finder needs the dense gradient");
  require<state_error>(s.micro_batches == 0, "low_rank::step", s.micro_batches,
                       " micro-batches are pending; call step without a gradient");
  detail::check_scratch(exec, workspace_bytes(weight, tokens_of(g)), "low_rank::step");
  if (refresh_due(s) || looks_every_step()) detail::check_not_recorded(exec, "low_rank::step");
  hear_report(s);
  bool const due = refresh_due(s);
  index_t const call = s.calls;
  double captured = -1;
  auto const counted = [&](step_status status) {
    s.calls = call + 1;
    s.captured = captured;
    return status;
  };
  if (s.weight.size() == 0) return counted(step_status::stepped);

  std::optional<look_scope<E>> looking;
  if (due || looks_every_step()) looking.emplace(exec);
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
  captured = take_measures(exec, s, faced, const_view_of<E>(r), {due, renewed});
  looking.reset();
  descend(exec, s, weight, p, r, call);
  return counted(due && !renewed ? step_status::stepped_old_basis : step_status::stepped);
}

LOWRANK_COMPOSITION
template <executor E, gradient G>
double LOWRANK_COMPOSED::take_measures(E& exec, state<typename E::space>& s, G const& g, const_view_of<E> r,
                                       attempt happened) const {
  auto const [due, renewed] = happened;
  auto const wants = wants_of(refresh);
  bool const asked = measure == certificate::every_step || wants.needs_captured ||
                     (renewed && (measure == certificate::at_refresh || wants.changes_rank));
  // The guard of a refresh has summed the squares of a dense gradient already.
  bool const known = due && is_dense_gradient<G>;
  if (!asked && !(known && renewed)) return -1;
  scratch_scope const scope{exec};
  auto* const record = s.record.data();
  auto* const whole = exec.arena().template take<double>(1);
  auto* const needed = exec.arena().template take<index_t>(1);
  if (known) exec.single([=] LOWRANK_DEVICE { *whole = record->energy; });
  else squared_norm(exec, g, whole);
  exec.single([=] LOWRANK_DEVICE {
    double const scale = static_cast<double>(record->grad_scale);
    if (known) *whole = scale != 0 ? *whole / (scale * scale) : 0;
    *needed = -1;
  });
  if constexpr (Refresh::traits.changes_rank) {
    if (renewed && wants.changes_rank) {
      auto* const energies = exec.arena().template take<double>(r.rows);
      row_mean_squares(exec, r, [=, n = static_cast<double>(r.cols)] LOWRANK_DEVICE(index_t i, double mean) {
        energies[i] = n * mean;
      });
      exec.single([=, count = r.rows, share = refresh.share()] LOWRANK_DEVICE {
        double sum = 0;
        *needed = 0;
        for (index_t k = 0; k < count && *needed == 0; ++k) {
          for (index_t j = k + 1; j < count; ++j)
            if (energies[j] > energies[k]) {
              double const larger = energies[j];
              energies[j] = energies[k];
              energies[k] = larger;
            }
          if ((sum += energies[k]) >= share * *whole) *needed = k + 1;
        }
      });
    }
  }
  auto const total = exec.peek(whole);
  auto const inside = exec.peek(record);
  if (!total || !inside) return -1;
  double const scale = static_cast<double>(inside->grad_scale);
  // A micro-batch comes here unguarded, and a NaN in a policy's state would stay there.
  bool const known_share = is_finite(*total) && is_finite(inside->projected) && *total > 0 && scale != 0;
  double const captured = known_share ? inside->projected / (scale * scale * *total) : -1;
  if (renewed) s.report.needed_rank = *exec.peek(needed);
  else if (wants.needs_captured && s.report.attempted == 0) s.report = {.call = s.calls, .rank = s.rank};
  if (renewed || wants.needs_captured) s.report.captured = captured;
  return captured;
}

/// From R to the weight: the rule in place, then W <- keep W + down P X over panels of W's own rows.
LOWRANK_COMPOSITION
template <executor E, class W>
void LOWRANK_COMPOSED::descend(E& exec, state<typename E::space>& s, W const& weight, map<typename E::space> const& p,
                               view_of<E> r, index_t call) const {
  auto* const record = s.record.data();
  if (rule.needs_weight_rms()) detail::measure_weight(exec, weight, record);
  rule.begin(exec, s.rule, record);
  exec.single([record, coefficient = lift.coefficient()] LOWRANK_DEVICE {
    record->direction_scale = record->rate * coefficient;
  });
  // The rule sees R as the weight lies, so that a basis of columns of the identity changes no bit of what it does.
  auto const own = facing(s.facing_side, r);
  rule.update(exec, s.rule, const_view_of<E>(own), own, record);
  extents const g = facing(s.facing_side, s.weight);
  rng_key const key{seed, static_cast<std::uint32_t>(call), s.tensor, rng_purpose::rounding};
  // A product cannot ask whether the step is skipped; then X is zero and keep is 1, so that W keeps its bits.
  auto const lift_panels = [&](auto down, auto keep) {
    detail::for_panels(exec, weight, key, record, [&](view_of<E> panel, index_t begin, index_t end) {
      block const part = s.facing_side == side::left ? block{begin, end, 0, g.cols} : block{0, g.rows, begin, end};
      auto const out = facing(s.facing_side, panel);
      if constexpr (Lift::lifts) p.lift(exec, down, const_view_of<E>(r), part, keep, out);
      else scale(exec, keep, out);
    });
  };
  if constexpr (std::same_as<typename E::space, host_space>) lift_panels(record->down, record->keep);
  else lift_panels(static_cast<float const*>(&record->down), static_cast<float const*>(&record->keep));
}

#undef LOWRANK_COMPOSITION
#undef LOWRANK_COMPOSED

}  // namespace lowrank

#include "lowrank/optim/detail/low_rank_accumulation.hpp"
