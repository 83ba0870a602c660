// expect-success
// The calls of the files beside this one, used rightly: if this does not compile, their errors prove nothing.
#include "lowrank/basis/svd.hpp"
#include "lowrank/linalg/host/decompositions.hpp"
#include "lowrank/lowrank.hpp"
#include "lowrank/refresh/energy_rank.hpp"
#include "lowrank/transport/rotate.hpp"

using namespace lowrank;

using exact = galore_adamw_with<basis::svd>;
using composed = compose<rule::adam, basis::randomized, transport::reset, lift::nothing>;
using turning = compose<rule::adam, basis::randomized, transport::rotate, refresh::energy_rank<>>;

auto init(turning const& o, host_executor& exec) { return o.init(exec, {8, 8}, 0); }

void step(host_executor& exec, exact::state<host_space>& a, composed::state<host_space>& b, adamw::state<host_space>& c,
          matrix_view<float> w, matrix_view<float const> g, outer_product<> factored) {
  exact{}.step(exec, a, w, g, {});
  composed{}.step(exec, b, w, factored, {});
  adamw{}.step(exec, c, w, g, {});
}
