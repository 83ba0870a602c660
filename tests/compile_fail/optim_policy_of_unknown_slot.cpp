// expect-error: "static assertion failed: lowrank: this policy fits no slot .refresh, transport, residual, lift, basis format."
#include "lowrank/lowrank.hpp"

struct mistaken {
  using fills = int;
};
lowrank::compose<lowrank::rule::adam, lowrank::basis::randomized, mistaken> optimizer;
