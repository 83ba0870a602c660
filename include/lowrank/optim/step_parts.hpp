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
  if constexpr (requires { g.output_gradient; })
    require<shape_error>(g.input.rows == g.output_gradient.rows, caller, "the factors of the gradient have ",
                         g.output_gradient.rows, " and ", g.input.rows, " rows");
}
/// Every view that a weight is made of, from every view that a gradient is made of.
template <class W, gradient G>
void check_aliasing(W const& weight, G const& g, char const* caller) {
  auto const apart = [&](auto const& values) {
    if constexpr (is_dense_gradient<G> || is_narrow_gradient<G>) return !overlap(values, g);
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

/// A null or misaligned pointer; on a device also memory that is not its own.
template <executor E, class T>
void check_pointer(E& exec, T const* data, char const* caller, char const* what) {
  require(data != nullptr, caller, what, " has no memory: the pointer is null");
  require(reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0, caller, what, " must be aligned to ", alignof(T),
          " bytes, is at ", static_cast<void const*>(data));
  if constexpr (requires { exec.check_memory(data, caller, what); }) exec.check_memory(data, caller, what);
}
/// Every pointer that a weight or a gradient is made of.
template <executor E, class Given>
void check_pointers(E& exec, Given const& given, char const* caller) {
  if (given.shape().size() == 0) return;
  if constexpr (is_dense_gradient<Given> || is_narrow_gradient<Given>)
    check_pointer(exec, given.data, caller, "the gradient");
  if constexpr (requires { given.values; }) check_pointer(exec, given.values.data, caller, "the weight");
  if constexpr (requires { given.master; }) check_pointer(exec, given.master.data, caller, "the master weight");
  if constexpr (requires { given.codes; }) {
    check_pointer(exec, given.codes.codes, caller, "the codes of the weight");
    check_pointer(exec, given.codes.scales, caller, "the scales of the weight");
  }
  if constexpr (requires { given.output_gradient; }) {
    if (given.tokens() == 0) return;
    check_pointer(exec, given.output_gradient.data, caller, "the gradient of the output");
    check_pointer(exec, given.input.data, caller, "the input of the layer");
  }
}
/// Whether the executor can work, and where the state and what is given to it are: asked before any of it is touched.
template <executor E, class... Given>
void check_memory(E& exec, step_record const* record, char const* caller, Given const&... given) {
  if constexpr (requires { exec.check_ready(caller); }) exec.check_ready(caller);
  check_pointer(exec, record, caller, "the state");
  (check_pointers(exec, given, caller), ...);
}

template <executor E>
void check_scratch(E& exec, index_t needed, char const* caller) {
  require<state_error>(exec.arena().available() >= needed, caller, "needs ", needed,
                       " bytes of scratch, available are ", exec.arena().available(),
                       "; call executor.reserve(workspace_bytes(...)) first");
}

/// A step that decides by what it finds waits for it, so it cannot be recorded.
template <executor E>
void check_not_recorded(E& exec, char const* caller) {
  if constexpr (requires { exec.recording(); })
    require<state_error>(!exec.recording(), caller,
                         "this step looks for a basis and waits for it, so it cannot be captured in a graph; capture "
                         "steps for which refresh_due says no");
}

/// Whether `o.live`, which the host does not see, holds numbers that a step can be made with.
[[nodiscard]] LOWRANK_HD inline bool usable(step_record const& r) noexcept {
  return is_finite(r.grad_scale) && is_finite(r.learning_rate) && r.learning_rate >= 0 && is_finite(r.decay) &&
         r.decay >= 0;
}
/// The record as a step begins: nothing bad seen yet.
template <executor E>
void begin_record(E& exec, step_record* record, step_options const& o) {
  exec.single([=] LOWRANK_DEVICE {
    auto const now = o.live != nullptr ? *o.live : live_options{o.learning_rate, o.weight_decay, o.grad_scale};
    *record = {};
    record->grad_scale = now.grad_scale;
    record->learning_rate = now.learning_rate;
    record->decay = now.weight_decay;
    record->replays = now.replays;
    if (!usable(*record)) record->skip = 1;
  });
}
/// What the record says of the step. Synchronises on a device.
template <executor E>
[[nodiscard]] step_status status_of(E& exec, step_record const* record) {
  look_scope const looking{exec};
  return exec.peek(record)->skip != 0 ? step_status::skipped_bad_gradient : step_status::stepped;
}
/// Skips the step unless the squares of the scaled gradient can be summed in fp32.
/// Scratch: guard_bytes.
template <executor E, gradient G>
void guard(E& exec, G const& g, step_record* record) {
  energy_bound(exec, g, &record->energy);
  exec.single([=] LOWRANK_DEVICE {
    double const scale = static_cast<double>(record->grad_scale);
    record->energy *= scale * scale;
    if (!representable(record->energy)) record->skip = 1;
  });
}
/// The same question about the projected gradient, which a NaN anywhere in the gradient spreads into.
template <executor E>
void guard_projected(E& exec, const_view_of<E> r, step_record* record) {
  squared_norm(exec, r, &record->projected);
  exec.single([=] LOWRANK_DEVICE {
    double const scale = static_cast<double>(record->grad_scale);
    record->projected *= scale * scale;
    if (!representable(record->projected)) record->skip = 1;
  });
}
inline constexpr index_t guard_bytes = scratch_bytes<double>(2);

/// Elements of a weight on a device that are worked on at once, at least: a panel shall outweigh the launch of its kernels,
/// and may stay in the cache.
template <class W>
inline constexpr index_t panel_elements = 0;
template <class W>
  requires std::same_as<typename W::space, device_space>
inline constexpr index_t panel_elements<W> = index_t{4} << 20;

/// Rows of the weight that are worked on at once: all of them in place, else panels of whole quanta, of at least 128 rows.
template <class W>
[[nodiscard]] index_t panel_rows(W const& weight) noexcept {
  extents const shape = weight.shape();
  if (!W::panels) return shape.rows;
  index_t const quantum = weight.row_quantum();
  index_t const least = std::max({index_t{128}, quantum, panel_elements<W> / std::max<index_t>(shape.cols, 1)});
  return std::min(shape.rows, (least + quantum - 1) / quantum * quantum);
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
    exec.single([=] LOWRANK_DEVICE { record->weight_rms += *sum; });
  });
  exec.single([=, size = weight.shape().size()] LOWRANK_DEVICE {
    record->weight_rms = std::sqrt(record->weight_rms / static_cast<double>(std::max<index_t>(size, 1)));
  });
}
template <class W>
[[nodiscard]] index_t measure_bytes(W const& weight) noexcept {
  return scratch_bytes<double>(1) + weight_panel_bytes(weight);
}

}  // namespace lowrank::detail

namespace lowrank {

/// B = *a A + *b B, the factors in the executor's memory. Any strides. An executor with memory of its own brings its own overload.
template <class A>
void combine(host_executor& exec, float const* a, matrix_view<A> x, float const* b, matrix_view<float> y) {
  if (y.row_stride < y.col_stride && y.cols > 1) x = x.t(), y = y.t();
  detail::for_row_groups(exec, y.shape(), [=](index_t begin, index_t end) {
    float const of_x = *a, of_y = *b;
    // Rounded as the fused kernels of the rules round it, so that a weight's layout does not change its bits.
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < y.cols; ++j) y(i, j) = fused_multiply_add(of_x, x(i, j), of_y * y(i, j));
  });
}

}  // namespace lowrank
