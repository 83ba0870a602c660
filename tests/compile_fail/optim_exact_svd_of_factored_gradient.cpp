// expect-error: "static assertion failed: lowrank: the exact SVD needs the dense gradient; pass a matrix view, or use basis::randomized"
#include "lowrank/basis/svd.hpp"
#include "lowrank/linalg/host/decompositions.hpp"
#include "lowrank/lowrank.hpp"

using optimizer = lowrank::galore_adamw_with<lowrank::basis::svd>;

void step(optimizer const& o, lowrank::host_executor& exec, optimizer::state<lowrank::host_space>& state,
          lowrank::matrix_view<float> w, lowrank::outer_product<> g) {
  o.step(exec, state, w, g, {});
}
