// Every kernel of the steps of the presets, and of the policies that they can be composed with. Nothing here runs.
#include "lowrank/lowrank.cuh"

namespace {

using namespace lowrank;  // NOLINT(google-build-using-namespace)
using device_matrix = matrix_view<float, device_space>;
using device_gradient = matrix_view<float const, device_space>;
using device_codes = quantized_weight<codec::affine<8>, 256, device_space>;

/// A weight, as every kind of them.
struct weights {
  device_matrix wide;
  matrix_view<bf16, device_space> narrow;
  device_codes codes;
};

template <class Optimizer>
void instantiate_step(cuda_executor& exec, device_gradient g, fp32_weight<device_space> const& weight) {
  Optimizer const optimizer{};
  auto state = optimizer.init(exec, g.shape(), 0);
  optimizer.step(exec, state, weight, g, {});
}
template <class Optimizer>
void instantiate_steps(cuda_executor& exec, device_gradient g, weights const& w) {
  Optimizer const optimizer{};
  auto state = optimizer.init(exec, g.shape(), 0);
  optimizer.step(exec, state, fp32_weight<device_space>{w.wide}, g, {});
  optimizer.step(exec, state, bf16_weight<device_space>{w.narrow}, g, {});
  optimizer.step(exec, state, w.codes, g, {});
}

}  // namespace

void instantiate_presets(lowrank::cuda_executor& exec, device_gradient g, weights const& w) {
  instantiate_steps<galore_adamw>(exec, g, w);
  instantiate_steps<galore_adamw_8bit>(exec, g, w);
  instantiate_steps<q_galore_adamw_8bit>(exec, g, w);
  instantiate_steps<galore_adafactor>(exec, g, w);
  instantiate_steps<galore_sgd>(exec, g, w);
  instantiate_steps<galore_lion>(exec, g, w);
  instantiate_steps<adamw>(exec, g, w);
  instantiate_steps<adamw_8bit>(exec, g, w);
  instantiate_steps<adafactor>(exec, g, w);
}

void instantiate_policies(lowrank::cuda_executor& exec, device_gradient g,
                          lowrank::fp32_weight<device_space> const& w) {
  instantiate_step<compose<rule::adam, basis::warm_start, transport::rotate>>(exec, g, w);
  instantiate_step<compose<rule::adam_8bit, basis::tracked, transport::rotate, refresh::captured_energy>>(exec, g, w);
  instantiate_step<compose<rule::adam, basis::stiefel, refresh::staggered, format::bf16>>(exec, g, w);
  instantiate_step<compose<rule::sgd, basis::two_sided<basis::randomized>, format::int8>>(exec, g, w);
}
