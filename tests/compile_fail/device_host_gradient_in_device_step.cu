// expect-error: "lowrank: the gradient must be in the memory space of the executor"
#include "lowrank/lowrank.cuh"

void step(lowrank::adamw const& o, lowrank::cuda_executor& exec, lowrank::adamw::state<lowrank::device_space>& state,
          lowrank::matrix_view<float, lowrank::device_space> w, lowrank::matrix_view<float const> g) {
  o.step(exec, state, w, g, {});
}
