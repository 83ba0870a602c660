// expect-error: "static assertion failed: lowrank: the gradient must be in the memory space of the executor"
#include "lowrank/lowrank.hpp"

void step(lowrank::galore_adamw const& o, lowrank::host_executor& exec,
          lowrank::galore_adamw::state<lowrank::host_space>& state, lowrank::matrix_view<float> w,
          lowrank::matrix_view<float const, lowrank::device_space> g) {
  o.step(exec, state, w, g, {});
}
