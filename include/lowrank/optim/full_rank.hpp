/// @file
/// A rule on the whole parameter: what embeddings, norms and everything else outside a subspace get.
#pragma once

#include "lowrank/optim/step_parts.hpp"

namespace lowrank {

/// W <- keep W - rate N, with N from the rule on the whole gradient. Same calls as `low_rank`. A vector is a 1 x n matrix.
/// Cost: for packed weights and gradients and elementwise rules one pass (28 bytes an element for Adam in fp32, 10.06 for
/// Adam in 8 bits on bf16 weights and gradients); else the gradient is copied to scratch first.
template <class Rule>
struct full_rank {
  Rule rule{};
  std::uint64_t seed{0};  ///< of stochastic rounding

  template <memory_space S>
  struct state {
    extents weight{};
    std::uint32_t tensor{};
    index_t calls{};
    state_of<Rule, S> rule;
    buffer<step_record, S> record{1};

    friend void visit_state(state& s, auto&& f) {
      f("weight_rows", identity(s.weight.rows));
      f("weight_cols", identity(s.weight.cols));
      f("tensor", identity(s.tensor));
      f("calls", s.calls);
      visit_state(s.rule, prefixed(f, "rule."));
    }
  };

  void check() const { rule.check(); }
  /// As those of `low_rank`.
  template <executor E>
  [[nodiscard]] step_status status(E& exec, state<typename E::space> const& s) const {
    return detail::status_of(exec, s.record.data());
  }
  template <memory_space S>
  void advance(state<S>& s, index_t repetitions) const {
    s.calls += repetitions;
  }
  /// Bytes the state holds.
  [[nodiscard]] index_t bytes(extents shape) const { return rule.bytes(shape) + index_t{sizeof(step_record)}; }
  /// Scratch a step takes, whatever the layout of its weight and gradient.
  template <class W>
  [[nodiscard]] index_t workspace_bytes(W const& weight, index_t /*tokens*/ = 0) const {
    extents const shape = weight.shape();
    index_t const turned =
        scratch_bytes<float>(shape.size()) + std::max(rule.workspace_bytes(shape), detail::weight_panel_bytes(weight));
    return std::max({turned, detail::guard_bytes, rule.needs_weight_rms() ? detail::measure_bytes(weight) : 0});
  }
  template <executor E>
  [[nodiscard]] state<typename E::space> init(E& exec, extents shape, std::uint32_t tensor) const {
    check();
    require<shape_error>(shape.rows >= 0 && shape.cols >= 0, "full_rank::init", "shape must not be negative, got ",
                         shape);
    require(tensor < (1U << 24), "full_rank::init", "tensor must be below 2^24, got ", tensor);
    return {shape, tensor, 0, rule.init(exec, shape)};
  }

  /// One step. Throws before anything is written; bad numbers skip the step.
  template <executor E, weight_view<E> W, gradient_argument G>
  step_status step(E& exec, state<typename E::space>& s, W const& weight, G const& given,
                   step_options const& options) const {
    auto const g = as_gradient(given);
    using given_type = std::remove_const_t<decltype(g)>;
    static_assert(is_dense_gradient<given_type> || is_narrow_gradient<given_type>,
                  "lowrank: a full-rank step needs the dense gradient");
    static_assert(std::same_as<typename G::space, typename E::space>,
                  "lowrank: the gradient must be in the memory space of the executor");
    detail::check_options(options, "full_rank::step");
    detail::check_weight(s.weight, weight, "full_rank::step");
    detail::check_gradient(s.weight, g, "full_rank::step");
    detail::check_aliasing(weight, g, "full_rank::step");
    detail::check_memory(exec, s.record.data(), "full_rank::step", weight, g);
    detail::check_scratch(exec, workspace_bytes(weight), "full_rank::step");
    auto const call = s.calls;
    auto const counted = [&](step_status status) {
      s.calls = call + 1;
      return status;
    };
    if (s.weight.size() == 0) return counted(step_status::stepped);
    scratch_scope const scope{exec};
    auto* const record = s.record.data();
    detail::begin_record(exec, record, options);
    detail::guard(exec, g, record);
    if (auto const seen = exec.peek(record); seen && seen->skip != 0) return counted(step_status::skipped_bad_gradient);
    if (rule.needs_weight_rms()) detail::measure_weight(exec, weight, record);
    rule.begin(exec, s.rule, record);
    exec.single([=] LOWRANK_DEVICE { record->direction_scale = record->rate; });
    if constexpr (requires { rule.apply(exec, s.rule, g, weight.tiles(rng_key{}), record); }) {
      if (weight.packed() && g.is_row_major()) {
        rule.apply(exec, s.rule, g, weight.tiles(key_of(call, s)), record);
        return counted(step_status::stepped);
      }
    }
    descend(exec, s, weight, g, record, key_of(call, s));
    return counted(step_status::stepped);
  }
  template <executor E, gradient_argument G>
  step_status step(E& exec, state<typename E::space>& s, view_of<E> weight, G const& g,
                   step_options const& options) const {
    return step(exec, s, fp32_weight<typename E::space>{weight}, g, options);
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  template <memory_space S>
  [[nodiscard]] rng_key key_of(index_t call, state<S> const& s) const noexcept {
    return {seed, static_cast<std::uint32_t>(call), s.tensor, rng_purpose::rounding};
  }
  /// Any layout: the direction in scratch, then panels of the weight.
  template <executor E, class W, gradient G>
  void descend(E& exec, state<typename E::space>& s, W const& weight, G const& g, step_record* record,
               rng_key key) const {
    auto const n = take_matrix(exec, g.shape());
    convert(exec, g, n);
    if (rule.decay == decay_order::coupled) {
      detail::for_panels_read(exec, weight, [&](const_view_of<E> panel, index_t begin, index_t end) {
        combine(exec, &record->decay, panel, &record->grad_scale, n.row_range(begin, end));
      });
      exec.single([=] LOWRANK_DEVICE { record->grad_scale = 1; });
    }
    rule.update(exec, s.rule, const_view_of<E>(n), n, record);
    detail::for_panels(exec, weight, key, record, [&](view_of<E> panel, index_t begin, index_t end) {
      combine(exec, &record->down, n.row_range(begin, end), &record->keep, panel);
    });
  }
};

}  // namespace lowrank
