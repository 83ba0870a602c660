// expect-error: "static assertion failed: lowrank: a full-rank step needs the dense gradient"
#include "lowrank/lowrank.hpp"

void step(lowrank::adamw const& o, lowrank::host_executor& exec, lowrank::adamw::state<lowrank::host_space>& state,
          lowrank::matrix_view<float> w, lowrank::outer_product<> g) {
  o.step(exec, state, w, g, {});
}
