// The parameters of a small GPT as llm.c keeps them: one buffer of bf16 for the weights, one for the gradients. GaLore trains
// the matrices of the blocks, AdamW the rest. Written once: the executor says whether the pointers are the host's or a device's.
#pragma once

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "lowrank/interop/raw.hpp"
#include "lowrank/optim/presets.hpp"

namespace flat_model {

using lowrank::bf16, lowrank::index_t, lowrank::matrix_view;

constexpr index_t vocabulary = 96, channels = 32, layers = 2, steps = 120;
constexpr index_t of_layer = 2 * channels + 3 * channels * channels + 8 * channels * channels;
constexpr index_t parameters = vocabulary * channels + layers * of_layer;

template <class E>
class trainer {
  using space = typename E::space;

 public:
  /// The pointers stay the caller's, and are not touched before the first step.
  trainer(E& exec, bf16* weights, bf16 const* gradients) : exec_{exec} {
    lowrank::raw::flat_buffer<bf16, space> w{weights, parameters};
    lowrank::raw::flat_buffer<bf16 const, space> g{gradients, parameters};
    // In the order of memory. All layers of one tensor follow each other.
    add(adamw_, others_, w.layers(1, vocabulary, channels), g.layers(1, vocabulary, channels));
    add(adamw_, others_, w.layers(layers, 1, 2 * channels), g.layers(layers, 1, 2 * channels));
    add(galore_, matrices_, w.layers(layers, 3 * channels, channels), g.layers(layers, 3 * channels, channels));
    add(galore_, matrices_, w.layers(layers, 4 * channels, channels), g.layers(layers, 4 * channels, channels));
    add(galore_, matrices_, w.layers(layers, channels, 4 * channels), g.layers(layers, channels, 4 * channels));
    w.require_used_up();
    wide_ = lowrank::buffer<float, space>{largest_};
  }
  /// Puts one step of everything behind what is on the stream already, and waits for nothing but a new basis.
  void step(float rate) {
    for (auto& p : others_) step_one(adamw_, p, rate);
    for (auto& p : matrices_) step_one(galore_, p, rate);
  }
  [[nodiscard]] index_t state_bytes() const noexcept { return bytes_; }

 private:
  template <class Optimizer>
  struct parameter {
    lowrank::bf16_weight<space> weight;
    matrix_view<bf16 const, space> gradient;
    typename Optimizer::template state<space> state;
  };
  template <class Optimizer, class Weights, class Gradients>
  void add(Optimizer const& o, std::vector<parameter<Optimizer>>& to, Weights const& w, Gradients const& g) {
    for (index_t layer = 0; layer < w.size(); ++layer) {
      lowrank::bf16_weight<space> const weight{w[layer]};
      to.push_back({weight, g[layer], o.init(exec_, weight.shape(), count_++)});
      exec_.reserve(o.workspace_bytes(weight));
      largest_ = std::max(largest_, weight.shape().size());
      bytes_ += o.bytes(weight.shape());
    }
  }
  template <class Optimizer>
  void step_one(Optimizer const& o, parameter<Optimizer>& p, float rate) {
    // Optimizers read fp32: one tensor at a time is widened.
    auto const gradient = lowrank::row_major<space>(wide_.data(), p.gradient.shape());
    convert(exec_, p.gradient, gradient);
    o.step(exec_, p.state, p.weight, gradient, {.learning_rate = rate});
  }

  E& exec_;
  lowrank::adamw adamw_;
  lowrank::galore_adamw galore_{.rank = 8, .refresh = {.period = 20}};
  std::vector<parameter<lowrank::adamw>> others_;
  std::vector<parameter<lowrank::galore_adamw>> matrices_;
  lowrank::buffer<float, space> wide_;
  index_t largest_{}, bytes_{};
  std::uint32_t count_{};
};

/// What stands for a model and its data: weights that the training shall find, half their squared distance is the loss.
[[nodiscard]] inline std::vector<bf16> random_weights(unsigned seed) {
  std::mt19937 random{seed};
  std::normal_distribution<float> normal{0, 0.1F};
  std::vector<bf16> out(parameters);
  for (auto& x : out) x = lowrank::to_bf16(normal(random));
  return out;
}
[[nodiscard]] inline float rate_of(index_t step) {
  return 2e-2F * (1 + std::cos(3.14F * static_cast<float>(step) / steps));
}
[[nodiscard]] inline int judge(std::vector<bf16> const& begin, std::vector<bf16> const& end,
                               std::vector<bf16> const& wanted, index_t state_bytes) {
  double first = 0, last = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    double const was = begin[i].value() - wanted[i].value(), is = end[i].value() - wanted[i].value();
    first += 0.5 * was * was, last += 0.5 * is * is;
  }
  index_t const of_adamw = 2 * parameters * index_t{sizeof(float)};
  bool const right = last < 0.04 * first && state_bytes * 5 < of_adamw * 4;
  std::printf("loss %.3f -> %.4f, %lld bytes of state, AdamW alone would keep %lld\n%s\n", first, last,
              static_cast<long long>(state_bytes), static_cast<long long>(of_adamw), right ? "right" : "WRONG");
  return right ? 0 : 1;
}

}  // namespace flat_model
