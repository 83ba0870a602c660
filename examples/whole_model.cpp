// A whole model through parameter_set: parameters cut out of one flat buffer, matrices of the blocks in a subspace and the
// rest at full rank, two learning rates, micro-batches, clipping and a schedule. Linear layers hand over the two factors
// that their gradient is the product of, so backward never forms it.
#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "lowrank/interop/raw.hpp"
#include "lowrank/lowrank.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/schedule.hpp"

using namespace lowrank;
constexpr index_t layers = 2, width = 48, inner = 96, outputs = 16, tokens = 64, steps = 200;

/// H <- H + tanh(H Upᵀ + bias) Downᵀ in every layer, then Y = H Headᵀ. All parameters in one buffer, as llm.c has them.
struct model {
  std::vector<float> memory = std::vector<float>(layers * (inner + 2 * inner * width) + outputs * width);
  raw::flat_buffer<float> flat{memory.data(), static_cast<index_t>(memory.size())};
  raw::layer_stack<float> bias = flat.layers(layers, 1, inner), up = flat.layers(layers, inner, width),
                          down = flat.layers(layers, width, inner);
  matrix_view<float> head = flat.matrix(outputs, width);
  matrix<float> h[layers + 1], a[layers], y;  // activations

  model(std::uint64_t seed, float size, index_t rows) : y{rows, outputs} {
    flat.require_used_up();
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = size * gaussian({.seed = seed}, i);
    for (auto& x : h) x = {rows, width};
    for (auto& x : a) x = {rows, inner};
  }
  void forward(host_executor& exec, matrix<float> const& x) {
    copy(exec, x.view(), h[0].view());
    for (index_t l = 0; l < layers; ++l) {
      multiply(exec, 1.0F, h[l].view(), up[l].t(), 0.0F, a[l].view());
      for (index_t i = 0; i < a[l].shape().size(); ++i)
        a[l].data()[i] = std::tanh(a[l].data()[i] + bias[l](0, i % inner));
      copy(exec, h[l].view(), h[l + 1].view());
      multiply(exec, 1.0F, a[l].view(), down[l].t(), 1.0F, h[l + 1].view());
    }
    multiply(exec, 1.0F, h[layers].view(), head.t(), 0.0F, y.view());
  }
  /// From dY; every gradient goes to `set` as soon as it is known. Numbers of parameters: the order of `add` below.
  void backward(host_executor& exec, matrix<float> const& dy, parameter_set<host_executor>& set) const {
    matrix<float> dh{dy.shape().rows, width}, dz{dy.shape().rows, inner};
    set.accumulate_one(exec, 3 * layers, outer_product<>{dy.view(), h[layers].view()});
    multiply(exec, 1.0F, dy.view(), head, 0.0F, dh.view());
    for (index_t l = layers; l-- > 0;) {
      matrix<float> dbias{1, inner};
      set.accumulate_one(exec, 3 * l + 2, outer_product<>{dh.view(), a[l].view()});
      multiply(exec, 1.0F, dh.view(), down[l], 0.0F, dz.view());
      for (index_t i = 0; i < dz.shape().size(); ++i)
        dbias(0, i % inner) += dz.data()[i] *= 1 - a[l].data()[i] * a[l].data()[i];
      set.accumulate_one(exec, 3 * l + 1, outer_product<>{dz.view(), h[l].view()});
      set.accumulate_one(exec, 3 * l, std::as_const(dbias).view());
      multiply(exec, 1.0F, dz.view(), up[l], 1.0F, dh.view());
    }
  }
};

struct result {
  double loss{};
  index_t state_bytes{}, refreshed{}, steps_clipped{};
};

template <class Optimizer>
result train(char const* what, Optimizer const& for_blocks, index_t parts) {
  host_executor exec;
  model teacher{1, 0.15F, tokens / parts}, student{2, 0.1F, tokens / parts};
  auto const makes = [](auto o) {
    return [=](host_executor& e, extents shape, std::uint32_t id) { return make_optimizer(e, o, shape, id); };
  };
  // The first group that matches takes a parameter.
  parameter_set<host_executor> set{{{matrices_named({".up", ".down"}), makes(for_blocks), {.weight_decay = 0.01F}},
                                    {every_parameter, makes(adamw{}), {.learning_rate_scale = 0.5}}},
                                   micro_batches::many};
  for (index_t l = 0; l < layers; ++l)
    for (auto const& [name, stack] : {std::pair{".bias", student.bias}, {".up", student.up}, {".down", student.down}})
      set.add(exec, "layer" + std::to_string(l) + name, fp32_weight<>{stack[l]});
  set.add(exec, "head", fp32_weight<>{student.head});
  exec.reserve(set.workspace_bytes(tokens / parts));

  result out;
  for (index_t i = 0; i < set.size(); ++i) out.state_bytes += set.optimizer(i).bytes();
  schedule::warmup_cosine const schedule{.warmup = 10, .total = steps, .floor = 0.1};
  matrix<float> x{tokens / parts, width}, dy{tokens / parts, outputs};
  for (index_t step = 0; step < steps; ++step) {
    out.loss = 0;
    for (index_t part = 0; part < parts; ++part) {
      index_t const seen = (step * parts + part) * x.shape().size();
      for (index_t i = 0; i < x.shape().size(); ++i)
        x.data()[i] = gaussian({.seed = 3}, static_cast<std::uint64_t>(seen + i));
      teacher.forward(exec, x), student.forward(exec, x);
      for (index_t i = 0; i < dy.shape().size(); ++i) {
        dy.data()[i] = (student.y.data()[i] - teacher.y.data()[i]) / tokens;
        out.loss += 0.5 * tokens * static_cast<double>(dy.data()[i] * dy.data()[i]);
      }
      student.backward(exec, dy, set);
    }
    // dY is a share of the whole batch's mean; were it the mean of its part, grad_scale would be 1 / parts.
    auto const rate = static_cast<float>(0.01 * schedule.factor(step));
    auto const report = set.step_accumulated(exec, {.learning_rate = rate, .clip_norm = 5});
    out.refreshed += report.refreshed;
    out.steps_clipped += report.gradient_norm > 5 ? 1 : 0;
  }
  std::cout << what << ": loss " << out.loss << ", " << out.state_bytes << " bytes of state, " << out.refreshed
            << " refreshes, clipped in " << out.steps_clipped << " steps of " << steps << "\n";
  return out;
}

int main() {
  galore_adamw const galore{.rank = 12, .refresh = {20}};
  auto const full = train("AdamW", adamw{}, 1), low = train("GaLore in the blocks", galore, 1),
             parts = train("GaLore, four micro-batches", galore, 4);
  bool const learned = low.loss < 1.1 * full.loss && low.state_bytes * 5 < full.state_bytes * 2;
  bool const exact = std::abs(parts.loss - low.loss) < 1e-3 * low.loss && low.refreshed == 2 * layers * steps / 20;
  if (learned && exact && low.steps_clipped > 0 && low.steps_clipped < steps) return 0;
  std::cout << "WRONG: see the numbers above\n";
  return 1;
}
