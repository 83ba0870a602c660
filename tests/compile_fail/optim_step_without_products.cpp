// expect-error: "static assertion failed: lowrank: include products for this executor, for the host linalg/host/eigen_products.hpp"
#include "lowrank/basis/given.hpp"
#include "lowrank/optim/low_rank.hpp"
#include "lowrank/rule/sgd.hpp"

using optimizer = lowrank::low_rank<lowrank::rule::sgd, lowrank::basis::given>;

void step(optimizer const& o, lowrank::host_executor& exec, optimizer::state<lowrank::host_space>& state,
          lowrank::matrix_view<float> w, lowrank::matrix_view<float const> g) {
  o.step(exec, state, w, g, {});
}
