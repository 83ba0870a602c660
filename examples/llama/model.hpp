/// @file
/// The whole model: include this one.
///
///     llama::parameters<float> model{config};
///     llama::initialise(exec, model, {.seed = 1});
///     llama::activations<float> memory{config, sequences, length, llama::pass::training};
///     llama::gradients<float> gradients{model};
///     double const loss = llama::loss_and_gradients(exec, model, {inputs, targets}, memory, gradients);
#pragma once

#include "backward.hpp"
#include "forward.hpp"
#include "loss.hpp"

namespace llama {

/// Tokens and what should follow each of them.
struct batch_view {
  token_view inputs;
  std::span<std::int32_t const> targets;
};

/// Mean loss of a batch, without gradients.
template <class Executor, class T, class Adapters = no_adapters>
double mean_loss(Executor& exec, parameters<T> const& model, batch_view const& batch, activations<T>& memory,
                 Adapters&& adapters = {}) {
  forward(exec, model, batch.inputs, memory, adapters);
  return cross_entropy(exec, memory, batch.targets, {});
}

struct training_options {
  accumulation how{accumulation::overwrite};
  double scale{1};  ///< of all gradients: 1 / micro-batches when several add up to one step
};

/// Mean loss of a batch and the gradients of scale times it.
template <class Executor, class T, class OnGradient = ignore_gradients, class Adapters = no_adapters>
double loss_and_gradients(Executor& exec, parameters<T> const& model, batch_view const& batch, activations<T>& memory,
                          gradients<T>& out, training_options const& options = {}, OnGradient&& on_gradient = {},
                          Adapters&& adapters = {}) {
  forward(exec, model, batch.inputs, memory, adapters);
  double const loss = cross_entropy(exec, memory, batch.targets, {.scale = options.scale});
  backward(exec, model, batch.inputs, memory, out, options.how, on_gradient, adapters);
  return loss;
}

}  // namespace llama
