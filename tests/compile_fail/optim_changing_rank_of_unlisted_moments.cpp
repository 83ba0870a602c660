// expect-error: "static assertion failed: lowrank: a rank that changes needs a rule that lists its moments"
#include "lowrank/lowrank.hpp"
#include "lowrank/refresh/energy_rank.hpp"

using optimizer =
    lowrank::compose<lowrank::rule::adafactor, lowrank::basis::randomized, lowrank::refresh::energy_rank<>>;

auto init(optimizer const& o, lowrank::host_executor& exec) { return o.init(exec, {8, 8}, 0); }
