// expect-error: "static assertion failed: lowrank: this policy fits no slot .refresh, transport, residual, lift, basis format."
#include "lowrank/lowrank.hpp"

lowrank::compose<lowrank::rule::adam, lowrank::basis::randomized, lowrank::rule::sgd> optimizer;
