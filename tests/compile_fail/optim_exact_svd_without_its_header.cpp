// expect-error: "static assertion failed: lowrank: include linalg/host/eigen_decompositions.hpp .or lapack_decompositions.hpp. for the exact SVD"
#include "lowrank/basis/svd.hpp"
#include "lowrank/lowrank.hpp"

using optimizer = lowrank::galore_adamw_with<lowrank::basis::svd>;

void step(optimizer const& o, lowrank::host_executor& exec, optimizer::state<lowrank::host_space>& state,
          lowrank::matrix_view<float> w, lowrank::matrix_view<float const> g) {
  o.step(exec, state, w, g, {});
}
