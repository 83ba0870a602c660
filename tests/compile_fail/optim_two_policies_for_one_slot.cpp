// expect-error: "static assertion failed: lowrank: two policies for one slot"
#include "lowrank/lowrank.hpp"

lowrank::compose<lowrank::rule::adam, lowrank::basis::randomized, lowrank::transport::reset, lowrank::transport::keep>
    optimizer;
