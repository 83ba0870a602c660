// expect-error: "no match for call to .*device_space"
#include "lowrank/core/view.hpp"

float element(lowrank::matrix_view<float, lowrank::device_space> device) { return device(0, 0); }
