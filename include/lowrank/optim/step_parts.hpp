/// @file
/// What every optimizer does around its rule: check what it is given, guard, and pass over the weight.
#pragma once

#include "lowrank/core/gradient.hpp"
#include "lowrank/core/status.hpp"
#include "lowrank/linalg/gradient_products.hpp"
#include "lowrank/quant/weight.hpp"
#include "lowrank/rule/rule.hpp"

namespace lowrank::detail {

inline void check_options(step_options const& o, char const* caller) {
  require(is_finite(o.learning_rate) && o.learning_rate >= 0, caller, "learning_rate must be finite and >= 0, got ",
          o.learning_rate);
  require(is_finite(o.weight_decay) && o.weight_decay >= 0, caller, "weight_decay must be finite and >= 0, got ",
          o.weight_decay);
  require(is_finite(o.grad_scale), caller, "grad_scale must be finite, got ", o.grad_scale);
}

template <class W>
void check_weight(extents state, W const& weight, char const* caller) {
  require<shape_error>(weight.shape() == state, caller, "the state is for ", state, ", the weight is ", weight.shape());
  if constexpr (requires { weight.master; })
    require<shape_error>(weight.values.shape() == state, caller, "the master weight is ", state, ", the weight is ",
                         weight.values.shape());
  if constexpr (requires { weight.codes; })
    require<shape_error>(weight.fits(), caller, "the codes are ", weight.codes.layout.lines, " lines of ",
                         weight.codes.layout.length, ", the weight is ", weight.shape());
}
template <gradient G>
void check_gradient(extents state, G const& g, char const* caller) {
  require<shape_error>(g.shape() == state, caller, "the state is for ", state, ", the gradient is ", g.shape());
  if constexpr (!is_dense_gradient<G>)
    require<shape_error>(g.input.rows == g.output_gradient.rows, caller, "the factors of the gradient have ",
                         g.output_gradient.rows, " and ", g.input.rows, " rows");
}
/// Every view that a weight is made of, from every view that a gradient is made of.
template <class W, gradient G>
void check_aliasing(W const& weight, G const& g, char const* caller) {
  auto const apart = [&](auto const& values) {
    if constexpr (is_dense_gradient<G>) return !overlap(values, g);
    else if constexpr (requires { g.output_gradient; })
      return !overlap(values, g.output_gradient) && !overlap(values, g.input);
    else return true;
  };
  if constexpr (requires { weight.values; })
    require(apart(weight.values), caller, "weight and gradient must not overlap in memory");
  if constexpr (requires { weight.master; })
    require(apart(weight.master), caller, "master weight and gradient must not overlap in memory");
  if constexpr (requires { weight.codes; })
    require(apart(weight.code_memory()) && apart(weight.scale_memory()), caller,
            "codes or scales of the weight and the gradient must not overlap in memory");
}

template <executor E>
void check_scratch(E& exec, index_t needed, char const* caller) {
  require<state_error>(exec.arena().available() >= needed, caller, "needs ", needed,
                       " bytes of scratch, available are ", exec.arena().available(),
                       "; call executor.reserve(workspace_bytes(...)) first");
}

/// The record as a step begins: nothing bad seen yet.
template <executor E>
void begin_record(E& exec, step_record* record, step_options const& o) {
  exec.single([=] {
    *record = {};
    record->grad_scale = o.grad_scale;
    record->learning_rate = o.learning_rate;
    record->decay = o.weight_decay;
  });
}
/// Skips the step unless the squares of the scaled gradient can be summed in fp32.
/// Scratch: guard_bytes.
template <executor E, gradient G>
void guard(E& exec, G const& g, step_record* record) {
  energy_bound(exec, g, &record->energy);
  exec.single([=] {
    double const scale = static_cast<double>(record->grad_scale);
    record->energy *= scale * scale;
    if (!representable(record->energy)) record->skip = 1;
  });
}
/// The same question about the projected gradient, which a NaN anywhere in the gradient spreads into.
template <executor E>
void guard_projected(E& exec, const_view_of<E> r, step_record* record) {
  squared_norm(exec, r, &record->projected);
  exec.single([=] {
    double const scale = static_cast<double>(record->grad_scale);
    record->projected *= scale * scale;
    if (!representable(record->projected)) record->skip = 1;
  });
}
inline constexpr index_t guard_bytes = scratch_bytes<double>(2);

/// Rows of the weight that are worked on at once: all of them in place, else panels of whole quanta, about 128 rows.
template <class W>
[[nodiscard]] index_t panel_rows(W const& weight) noexcept {
  if (!W::panels) return weight.shape().rows;
  index_t const quantum = weight.row_quantum();
  return std::min(weight.shape().rows, (std::max<index_t>(128, quantum) + quantum - 1) / quantum * quantum);
}
/// Scratch of one panel.
template <class W>
[[nodiscard]] index_t weight_panel_bytes(W const& weight) noexcept {
  return W::panels ? scratch_bytes<float>(panel_rows(weight) * weight.shape().cols) : 0;
}

/// body(panel, row_begin, row_end) on every panel of the weight, opened and closed around it.
template <executor E, weight_view<E> W, class Body>
void for_panels(E& exec, W const& weight, rng_key key, step_record const* record, Body const& body) {
  index_t const height = panel_rows(weight);
  for (index_t begin = 0; begin < weight.shape().rows; begin += height) {
    scratch_scope const scope{exec};
    index_t const end = std::min(weight.shape().rows, begin + height);
    auto const panel = weight.open(exec, begin, end);
    body(panel, begin, end);
    weight.close(exec, begin, end, panel, key, record);
  }
}

/// body(panel, row_begin, row_end) on every panel, for reading only.
template <executor E, weight_view<E> W, class Body>
void for_panels_read(E& exec, W const& weight, Body const& body) {
  index_t const height = panel_rows(weight);
  for (index_t begin = 0; begin < weight.shape().rows; begin += height) {
    scratch_scope const scope{exec};
    index_t const end = std::min(weight.shape().rows, begin + height);
    body(const_view_of<E>(weight.open(exec, begin, end)), begin, end);
  }
}

/// record->weight_rms for rules that ask. Scratch: measure_bytes.
template <executor E, weight_view<E> W>
void measure_weight(E& exec, W const& weight, step_record* record) {
  scratch_scope const scope{exec};
  auto* const sum = exec.arena().template take<double>(1);
  for_panels_read(exec, weight, [&](const_view_of<E> panel, index_t, index_t) {
    squared_norm(exec, panel, sum);
    exec.single([=] { record->weight_rms += *sum; });
  });
  exec.single([=, size = weight.shape().size()] {
    record->weight_rms = std::sqrt(record->weight_rms / static_cast<double>(std::max<index_t>(size, 1)));
  });
}
template <class W>
[[nodiscard]] index_t measure_bytes(W const& weight) noexcept {
  return scratch_bytes<double>(1) + weight_panel_bytes(weight);
}

/// B = *a A + *b B, the factors in the executor's memory. Any strides.
template <class A>
void combine(host_executor& exec, float const* a, matrix_view<A> x, float const* b, matrix_view<float> y) {
  if (y.row_stride < y.col_stride && y.cols > 1) x = x.t(), y = y.t();
  lowrank::detail::for_row_groups(exec, y.shape(), [=](index_t begin, index_t end) {
    float const of_x = *a, of_y = *b;
    // Rounded as the fused kernels of the rules round it, so that a weight's layout does not change its bits.
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < y.cols; ++j) y(i, j) = fused_multiply_add(of_x, x(i, j), of_y * y(i, j));
  });
}

}  // namespace lowrank::detail
