/// @file
/// From the gradient of the logits to the gradient of every weight.
#pragma once

#include "adapting.hpp"
#include "attention.hpp"
#include "gradients.hpp"
#include "linear.hpp"
#include "normalization.hpp"
#include "swiglu.hpp"

namespace llama {

/// Whether dense gradients are written anew or added to: micro-batches of one step after the first add.
enum class accumulation : std::uint8_t { overwrite, add };

/// For callers that wait for the whole pass.
struct ignore_gradients {
  void operator()(index_t) const noexcept {}
};

namespace detail {

template <class Executor, class T, class OnGradient, class Adapters>
class backward_pass {
 public:
  backward_pass(Executor& exec, parameters<T> const& model, token_view const& batch, activations<T>& memory,
                gradients<T>& out, accumulation how, OnGradient& on_gradient, Adapters& adapters)
      : exec_{exec},
        model_{model},
        batch_{batch},
        memory_{memory},
        out_{out},
        keep_{how == accumulation::add ? T{1} : T{0}},
        on_gradient_{on_gradient},
        adapters_{adapters} {}

  void run() {
    auto const& c = model_.config();
    bool const tied = c.head == output_head::tied;
    auto const d_normed = memory_.scratch(c.width);
    if (model_[index_of(c, role::head)].part == linear_part::frozen)
      apply_frozen_transposed<Executor, T>(exec_, model_.frozen(role::embedding), as_const(memory_.logits()), T{0},
                                           d_normed);
    else multiply(exec_, T{1}, as_const(memory_.logits()), model_.weight(role::head), T{0}, d_normed);
    if (tied) accumulate(index_of(c, role::head), memory_.logits(), memory_.final_normed());
    else finish_linear(role::head, 0);
    normalise(role::final_norm, 0, {}, d_normed, memory_.at(c.layers).stream, memory_.final_scale());
    adapters_.stream_gradient(exec_, c.layers, memory_.at(c.layers).stream);
    for (index_t l = c.layers; l-- > 0;) {
      feed_forward(l);
      mix(l);
      adapters_.stream_gradient(exec_, l, memory_.at(l).stream);
    }
    scatter(tied ? T{1} : keep_);
    report(index_of(c, role::embedding));
  }

 private:
  static view<T const> as_const(view<T> v) noexcept { return v; }

  void feed_forward(index_t l) {
    auto const layer = memory_.at(l);
    view<T> const d_out = memory_.at(l + 1).stream;
    auto const d_active = memory_.scratch(model_.config().ffn);
    input_gradient(role::down, l, lowrank::gradient_mode::overwrite, d_active);
    finish_linear(role::down, l);
    swiglu_backward<Executor, T>(exec_, d_active, layer.gate_up);
    auto const d_normed = memory_.scratch(model_.config().width);
    group_gradient(feed_forward_inputs, l, model_.gate_up(l), layer.gate_up, d_normed);
    finish_linear(role::up, l);
    finish_linear(role::gate, l);
    normalise(role::mlp_norm, l, d_out, d_normed, layer.middle, layer.middle_scale);
  }
  void mix(index_t l) {
    auto const layer = memory_.at(l);
    auto const d_mixed = memory_.scratch(model_.config().width);
    input_gradient(role::attention_output, l, lowrank::gradient_mode::overwrite, d_mixed);
    finish_linear(role::attention_output, l);
    attention_backward(exec_, memory_, layer, d_mixed);
    auto const d_normed = memory_.scratch(model_.config().width);
    group_gradient(attention_inputs, l, model_.query_key_value(l), layer.query_key_value, d_normed);
    finish_linear(role::value, l);
    finish_linear(role::key, l);
    finish_linear(role::query, l);
    normalise(role::attention_norm, l, layer.middle, d_normed, layer.stream, layer.scale);
  }

  /// dX of one linear weight. One in factors gives all of its gradients at once: what is between them is written over.
  void input_gradient(role what, index_t l, lowrank::gradient_mode mode, view<T> dx) {
    base_gradient(what, l, mode, dx);
    adapters_.backward(exec_, what, l, as_const(memory_.input(what, l)), as_const(memory_.output(what, l)), dx);
  }
  void base_gradient(role what, index_t l, lowrank::gradient_mode mode, view<T> dx) {
    auto const w = model_.linear(what, l);
    auto const dy = memory_.output(what, l);
    T const scale = adapters_.template base_scale<T>(what, l);
    T const keep = mode == lowrank::gradient_mode::add ? T{1} : T{0};
    if (scale != T{1}) return apply_scaled_transposed<Executor, T>(exec_, scale, w, dy, keep, dx);
    if (w.form == linear_form::whole) return multiply(exec_, T{1}, as_const(dy), w.left, keep, dx);
    if (w.form == linear_form::frozen)
      return apply_frozen_transposed<Executor, T>(exec_, *w.frozen, as_const(dy), keep, dx);
    auto const wanted = [&](index_t index) { return index < 0 ? view<T>{} : out_.dense(index); };
    auto const bias = wanted(model_.bias_of(what, l));
    lowrank::layer_gradient<T> const out{
        .left = wanted(index_of(model_.config(), what, l)),
        .right = wanted(model_.right_of(what, l)),
        .bias = {bias.data, static_cast<std::size_t>(bias.size())},
        .mode = keep_ == T{0} ? lowrank::gradient_mode::overwrite : lowrank::gradient_mode::add,
        .input_mode = mode};
    auto const inner = memory_.inner(what, l);
    if (w.form == linear_form::factors)
      lowrank::backward(exec_, w.factors(), memory_.input(what, l), inner, dy, inner, dx, out);
    else
      lowrank::backward(exec_, w.pivoted(), memory_.input(what, l), inner, dy, inner, memory_.others(what, l), dx, out);
  }
  /// dX of neighbours with the same input.
  void group_gradient(std::span<role const> group, index_t l, view<T const> stacked_weight, view<T> d_stacked,
                      view<T> dx) {
    if (!stacked_weight.empty() && !adapters_.scales_base()) {
      multiply(exec_, T{1}, as_const(d_stacked), stacked_weight, T{0}, dx);
      for (role const what : group)
        adapters_.backward(exec_, what, l, as_const(memory_.input(what, l)), as_const(memory_.output(what, l)), dx);
      return;
    }
    using lowrank::gradient_mode;
    for (role const what : group)
      input_gradient(what, l, what == group[0] ? gradient_mode::overwrite : gradient_mode::add, dx);
  }
  /// What is wanted of dW = dYᵀ X of a whole weight, and of its bias. The gradient of the input has been computed before,
  /// with the weight as it was.
  void finish_linear(role what, index_t l) {
    index_t const index = index_of(model_.config(), what, l);
    bool const frozen = model_[index].part == linear_part::frozen;
    bool const whole = model_[index].part == linear_part::whole;
    if (whole) {
      auto const f = factors_of(memory_, model_[index]);
      accumulate(index, f.output_gradient, f.input);
    }
    report(index);
    if (what == role::head) return;
    if (index_t const right = model_.right_of(what, l); right >= 0) report(right);
    if (index_t const bias = model_.bias_of(what, l); bias >= 0) {
      if ((whole || frozen) && out_.form(bias) == gradient_form::dense)
        bias_gradient<Executor, T>(exec_, memory_.output(what, l), keep_, out_.dense(bias));
      report(bias);
    }
  }
  void accumulate(index_t index, view<T const> output_gradient, view<T const> input) {
    if (out_.form(index) == gradient_form::dense)
      multiply(exec_, T{1}, output_gradient.t(), input, keep_, out_.dense(index));
  }
  void normalise(role what, index_t l, view<T const> skipped, view<T const> dy, view<T> x, T const* scale) {
    index_t const index = index_of(model_.config(), what, l);
    auto const gradient = out_.form(index) == gradient_form::dense ? out_.dense(index) : view<T>{};
    rms_norm_backward<Executor, T>(exec_, skipped, dy, model_.weight(index), scale, x, gradient,
                                   memory_.gain_partials(), keep_);
    report(index);
  }
  /// Rows of the stream's gradient go to the embeddings of their tokens. Cut by columns, so that each element is summed
  /// by one thread in the order of the tokens.
  void scatter(T keep) {
    index_t const index = index_of(model_.config(), role::embedding);
    if (out_.form(index) != gradient_form::dense) return;
    constexpr index_t columns = 64;
    view<T> const to = out_.dense(index), from = memory_.at(0).stream;
    exec_.parallel((to.cols + columns - 1) / columns, [&](index_t task) {
      index_t const begin = task * columns, end = std::min(to.cols, begin + columns);
      if (keep == T{0})
        for (index_t v = 0; v < to.rows; ++v) std::fill(&to(v, begin), &to(v, begin) + (end - begin), T{});
      for (index_t t = 0; t < from.rows; ++t) {
        T* const __restrict row = to.data + batch_.tokens[static_cast<std::size_t>(t)] * to.cols;
        T const* const __restrict more = from.data + t * from.cols;
        for (index_t i = begin; i < end; ++i) row[i] += more[i];
      }
    });
  }
  void report(index_t index) {
    if (out_.form(index) != gradient_form::none) on_gradient_(index);
  }

  Executor& exec_;
  parameters<T> const& model_;
  token_view const& batch_;
  activations<T>& memory_;
  gradients<T>& out_;
  T keep_;
  OnGradient& on_gradient_;
  Adapters& adapters_;
};

}  // namespace detail

/// Gradients of the last `forward` and `cross_entropy` over the same batch.
/// `on_gradient(index)` is called as soon as the gradient of one parameter is complete and its weight is not read any
/// more in this pass, from the last layer to the first; the caller may change that weight at once. Frozen parameters are
/// not reported. Afterwards the activations hold gradients: one backward pass a forward pass.
/// Cost: twice the flops of `forward`, less m n a token for each m x n weight without a dense gradient; nothing is
/// allocated.
/// Adapters compute their own gradients in the same pass; they need those of no weight.
/// Throws: shape_error, argument_error, state_error.
template <class Executor, class T, class OnGradient = ignore_gradients, class Adapters = no_adapters>
void backward(Executor& exec, parameters<T> const& model, token_view const& batch, activations<T>& memory,
              gradients<T>& out, accumulation how = accumulation::overwrite, OnGradient&& on_gradient = {},
              Adapters&& adapters = {}) {
  lowrank::require<lowrank::state_error>(memory.purpose() == pass::training, "llama::backward",
                                         "needs activations made for training");
  lowrank::require<lowrank::shape_error>(batch.sequences == memory.sequences() && batch.length == memory.length(),
                                         "llama::backward", "needs the batch of the last forward pass, ",
                                         memory.sequences(), " x ", memory.length(), ", got ", batch.sequences, " x ",
                                         batch.length);
  lowrank::require(how == accumulation::overwrite || !out.shares_memory(), "llama::backward",
                   "cannot add to dense gradients that share one buffer");
  detail::backward_pass<Executor, T, std::remove_reference_t<OnGradient>, std::remove_reference_t<Adapters>>{
      exec, model, batch, memory, out, how, on_gradient, adapters}
      .run();
}

}  // namespace llama
