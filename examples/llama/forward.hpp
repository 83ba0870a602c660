/// @file
/// From tokens to logits.
#pragma once

#include "adapting.hpp"
#include "attention.hpp"
#include "linear.hpp"
#include "normalization.hpp"
#include "swiglu.hpp"

namespace llama {

namespace detail {

/// Which layer of the model works on which layer of the activations: the same, unless one layer's memory serves all.
struct layer_place {
  index_t layer, memory;
};

/// What adapters make of a weight's output.
template <class Executor, class T, class Adapters>
void adapt(Executor& exec, role what, layer_place at, activations<T>& memory, Adapters& adapters) {
  adapters.forward(exec, what, at.layer, view<T const>(memory.input(what, at.memory)), memory.output(what, at.memory));
}

/// One linear weight of a layer.
template <class Executor, class T, class Adapters>
void forward_linear(Executor& exec, parameters<T> const& model, role what, layer_place at, activations<T>& memory,
                    Adapters& adapters) {
  auto const w = model.linear(what, at.layer);
  auto const y = memory.output(what, at.memory);
  if (T const scale = adapters.template base_scale<T>(what, at.layer); scale == T{1})
    apply_linear<Executor, T>(exec, w, memory.input(what, at.memory), memory.inner(what, at.memory),
                              memory.others(what, at.memory), y);
  else apply_scaled<Executor, T>(exec, scale, w, memory.input(what, at.memory), y);
  adapt(exec, what, at, memory, adapters);
}

/// Neighbours with the same input: one product while all are whole, `stacked` their outputs side by side.
template <class Executor, class T, class Adapters>
void forward_group(Executor& exec, parameters<T> const& model, std::span<role const> group, layer_place at,
                   view<T const> stacked_weight, view<T> stacked, activations<T>& memory, Adapters& adapters) {
  if (stacked_weight.empty() || adapters.scales_base()) {
    for (role const what : group) forward_linear(exec, model, what, at, memory, adapters);
    return;
  }
  multiply(exec, T{1}, view<T const>(memory.input(group[0], at.memory)), stacked_weight.t(), T{0}, stacked);
  for (role const what : group)
    if (auto const bias = model.linear(what, at.layer).bias; !bias.empty())
      add_bias<Executor, T>(exec, bias, memory.output(what, at.memory));
  for (role const what : group) adapt(exec, what, at, memory, adapters);
}

/// From the normed input of a layer to what it adds to `middle`, which waits for the norm that reads the sum.
template <class Executor, class T, class Adapters>
void forward_layer(Executor& exec, parameters<T> const& model, layer_place at, activations<T>& memory,
                   Adapters& adapters) {
  auto const layer = memory.at(at.memory);
  forward_group<Executor, T>(exec, model, attention_inputs, at, model.query_key_value(at.layer), layer.query_key_value,
                             memory, adapters);
  attention(exec, memory, layer);
  forward_linear(exec, model, role::attention_output, at, memory, adapters);
  rms_norm<Executor, T>(exec, layer.stream, layer.middle, model.weight(role::mlp_norm, at.layer),
                        model.config().epsilon, layer.middle_normed, layer.middle_scale);
  forward_group<Executor, T>(exec, model, feed_forward_inputs, at, model.gate_up(at.layer), layer.gate_up, memory,
                             adapters);
  swiglu<Executor, T>(exec, layer.gate_up, layer.active);
  forward_linear(exec, model, role::down, at, memory, adapters);
}

/// The norm behind layer `l`, of the next layer or the last one of all. The addition of the residual stream has waited for
/// it: it reads the sum.
template <class Executor, class T>
void norm_after(Executor& exec, parameters<T> const& model, index_t l, activations<T>& memory) {
  auto const& c = model.config();
  bool const last = l + 1 == c.layers;
  auto const next = memory.at(l + 1);
  auto const gain = last ? model.weight(role::final_norm) : model.weight(role::attention_norm, l + 1);
  rms_norm<Executor, T>(exec, memory.at(l).middle, next.stream, gain, c.epsilon,
                        last ? memory.final_normed() : next.normed, last ? memory.final_scale() : next.scale);
}

/// Rows of the embedding that the tokens name. A frozen one is opened row by row.
template <class Executor, class T>
void embed(Executor& exec, parameters<T> const& model, token_view const& batch, view<T> out) {
  if constexpr (std::same_as<T, float>)
    if (model[index_of(model.config(), role::embedding)].part == linear_part::frozen) {
      auto const& codes = model.frozen(role::embedding);
      index_t const quantum = codes.row_quantum();
      for (index_t t = 0; t < out.rows; ++t) {
        lowrank::scratch_scope const scope{exec};
        index_t const row = batch.tokens[static_cast<std::size_t>(t)], begin = row / quantum * quantum;
        auto const opened = codes.open(exec, begin, row + 1).row_range(row - begin, row - begin + 1);
        std::copy_n(opened.data, out.cols, out.data + t * out.cols);
      }
      return;
    }
  auto const embedding = model.weight(role::embedding);
  constexpr index_t chunk = activations<T>::rows_per_task;
  exec.parallel((out.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(out.rows, (task + 1) * chunk); ++t) {
      T const* const row = embedding.data + batch.tokens[static_cast<std::size_t>(t)] * embedding.cols;
      std::copy(row, row + out.cols, out.data + t * out.cols);
    }
  });
}

template <class Executor, class T>
void head(Executor& exec, parameters<T> const& model, view<T const> x, view<T> logits) {
  if (model[index_of(model.config(), role::head)].part == linear_part::frozen)
    apply_frozen<Executor, T>(exec, model.frozen(role::embedding), x, logits);
  else multiply(exec, T{1}, x, model.weight(role::head).t(), T{0}, logits);
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
/// `adapters` add to outputs of linear weights: see `no_adapters`.
/// Throws: shape_error, argument_error.
template <class Executor, class T, class Adapters = no_adapters>
void forward(Executor& exec, parameters<T> const& model, token_view const& batch, activations<T>& memory,
             Adapters&& adapters = {}) {
  auto const& c = model.config();
  lowrank::require(c == memory.config(), "llama::forward", "needs activations made for the same configuration");
  detail::check_tokens(c, batch);
  memory.shape_to(batch.sequences, batch.length);
  detail::embed<Executor, T>(exec, model, batch, memory.at(0).stream);
  for (index_t l = 0; l < c.layers; ++l) {
    auto const layer = memory.at(l);
    if (l == 0)
      rms_norm<Executor, T>(exec, {}, layer.stream, model.weight(role::attention_norm, l), c.epsilon, layer.normed,
                            layer.scale);
    detail::forward_layer(exec, model, {l, l}, memory, adapters);
    detail::norm_after(exec, model, l, memory);
  }
  detail::head<Executor, T>(exec, model, memory.final_normed(), memory.logits());
}

}  // namespace llama
