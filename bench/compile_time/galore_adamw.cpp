// What a unit pays that includes everything and instantiates one optimizer: its state, and its step.
#include "lowrank/lowrank.hpp"

lowrank::galore_adamw::state<lowrank::host_space> make(lowrank::galore_adamw const& optimizer,
                                                       lowrank::host_executor& exec, lowrank::extents shape) {
  return optimizer.init(exec, shape, 1);
}
lowrank::step_status step(lowrank::galore_adamw const& optimizer, lowrank::host_executor& exec,
                          lowrank::galore_adamw::state<lowrank::host_space>& state, lowrank::matrix_view<float> weight,
                          lowrank::matrix_view<float const> gradient) {
  exec.reserve(optimizer.workspace_bytes(lowrank::fp32_weight<>{weight}));
  return optimizer.step(exec, state, weight, gradient, {.learning_rate = 1e-3F});
}
