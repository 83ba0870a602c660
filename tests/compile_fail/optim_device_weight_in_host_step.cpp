// expect-error: "no matching function for call to .*step.*matrix_view<float, lowrank::device_space>"
#include "lowrank/lowrank.hpp"

void step(lowrank::galore_adamw const& o, lowrank::host_executor& exec,
          lowrank::galore_adamw::state<lowrank::host_space>& state,
          lowrank::matrix_view<float, lowrank::device_space> w, lowrank::matrix_view<float const> g) {
  o.step(exec, state, w, g, {});
}
