/// @file
/// From tokens to logits.
#pragma once

#include "attention.hpp"
#include "linear.hpp"
#include "normalization.hpp"
#include "swiglu.hpp"

namespace llama {

namespace detail {

/// One linear weight of a layer.
template <class Executor, class T>
void forward_linear(Executor& exec, parameters<T> const& model, role what, index_t l, activations<T>& memory) {
  auto const w = model.linear(what, l);
  auto const y = memory.output(what, l);
  auto const permuted = w.form == linear_form::pivoted ? memory.permuted(y.cols) : view<T>{};
  apply_linear<Executor, T>(exec, w, memory.input(what, l), memory.inner(what, l), permuted, y);
}

/// Neighbours with the same input: one product while all are whole, `stacked` their outputs side by side.
template <class Executor, class T>
void forward_group(Executor& exec, parameters<T> const& model, std::span<role const> group, index_t l,
                   view<T const> stacked_weight, view<T> stacked, activations<T>& memory) {
  if (stacked_weight.empty()) {
    for (role const what : group) forward_linear(exec, model, what, l, memory);
    return;
  }
  multiply(exec, T{1}, view<T const>(memory.input(group[0], l)), stacked_weight.t(), T{0}, stacked);
  for (role const what : group)
    if (auto const bias = model.linear(what, l).bias; !bias.empty())
      add_bias<Executor, T>(exec, bias, memory.output(what, l));
}

template <class Executor, class T>
void embed(Executor& exec, view<T const> embedding, token_view const& batch, view<T> out) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  exec.parallel((out.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(out.rows, (task + 1) * chunk); ++t) {
      T const* const row = embedding.data + batch.tokens[static_cast<std::size_t>(t)] * embedding.cols;
      std::copy(row, row + out.cols, out.data + t * out.cols);
    }
  });
}

inline void check_tokens(config const& c, token_view const& batch) {
  lowrank::require<lowrank::shape_error>(static_cast<index_t>(batch.tokens.size()) == batch.count(), "llama::forward",
                                         "needs sequences x length = ", batch.count(), " tokens, got ",
                                         batch.tokens.size());
  for (auto const token : batch.tokens)
    lowrank::require(token >= 0 && token < c.vocabulary, "llama::forward", "tokens must be in [0, ", c.vocabulary,
                     "), got ", token);
}

}  // namespace detail

/// memory.logits() = the model's logits for every token of the batch.
/// Cost: 2 tokens (linear weights) flops and 2 tokens length width layers for attention; nothing is allocated.
/// Throws: shape_error, argument_error.
template <class Executor, class T>
void forward(Executor& exec, parameters<T> const& model, token_view const& batch, activations<T>& memory) {
  auto const& c = model.config();
  lowrank::require(c == memory.config(), "llama::forward", "needs activations made for the same configuration");
  detail::check_tokens(c, batch);
  memory.shape_to(batch.sequences, batch.length);
  detail::embed<Executor, T>(exec, model.weight(role::embedding), batch, memory.at(0).stream);
  for (index_t l = 0; l < c.layers; ++l) {
    auto const layer = memory.at(l);
    auto const next = memory.at(l + 1).stream;
    if (l == 0)
      rms_norm<Executor, T>(exec, {}, layer.stream, model.weight(role::attention_norm, l), c.epsilon, layer.normed,
                            layer.scale);
    detail::forward_group<Executor, T>(exec, model, attention_inputs, l, model.query_key_value(l),
                                       layer.query_key_value, memory);
    attention(exec, memory, layer);
    detail::forward_linear(exec, model, role::attention_output, l, memory);
    rms_norm<Executor, T>(exec, layer.stream, layer.middle, model.weight(role::mlp_norm, l), c.epsilon,
                          layer.middle_normed, layer.middle_scale);
    detail::forward_group<Executor, T>(exec, model, feed_forward_inputs, l, model.gate_up(l), layer.gate_up, memory);
    swiglu<Executor, T>(exec, layer.gate_up, layer.active);
    detail::forward_linear(exec, model, role::down, l, memory);
    // The addition of the residual stream waits for the norm that reads the sum.
    bool const last = l + 1 == c.layers;
    if (last)
      rms_norm<Executor, T>(exec, layer.middle, next, model.weight(role::final_norm), c.epsilon, memory.final_normed(),
                            memory.final_scale());
    else
      rms_norm<Executor, T>(exec, layer.middle, next, model.weight(role::attention_norm, l + 1), c.epsilon,
                            memory.at(l + 1).normed, memory.at(l + 1).scale);
  }
  multiply(exec, T{1}, view<T const>(memory.final_normed()), model.weight(role::head).t(), T{0}, memory.logits());
}

}  // namespace llama
