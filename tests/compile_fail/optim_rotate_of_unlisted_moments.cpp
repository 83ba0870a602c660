// expect-error: "static assertion failed: lowrank: this transport does not fit this rule"
#include "lowrank/lowrank.hpp"
#include "lowrank/transport/rotate.hpp"

using optimizer = lowrank::compose<lowrank::rule::adafactor, lowrank::basis::randomized, lowrank::transport::rotate>;

auto init(optimizer const& o, lowrank::host_executor& exec) { return o.init(exec, {8, 8}, 0); }
