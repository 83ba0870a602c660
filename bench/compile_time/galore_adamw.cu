// What a user of GaLore on a device compiles.
#include "lowrank/lowrank.cuh"

using device = lowrank::device_space;

lowrank::step_status step(lowrank::cuda_executor& exec, lowrank::galore_adamw const& optimizer,
                          lowrank::galore_adamw::state<device>& state, lowrank::matrix_view<float, device> weight,
                          lowrank::matrix_view<float const, device> gradient) {
  return optimizer.step(exec, state, weight, gradient, {});
}
