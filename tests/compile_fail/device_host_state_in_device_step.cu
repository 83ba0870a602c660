// expect-error: "no instance of overloaded function .*step.* matches the argument list"
#include "lowrank/lowrank.cuh"

void step(lowrank::adamw const& o, lowrank::cuda_executor& exec, lowrank::adamw::state<lowrank::host_space>& state,
          lowrank::matrix_view<float, lowrank::device_space> w,
          lowrank::matrix_view<float const, lowrank::device_space> g) {
  o.step(exec, state, w, g, {});
}
