// expect-error: "this matrix ends with the expression; give it a name first"
#include "lowrank/interop/eigen.hpp"

auto dangling() { return lowrank::eigen::view(Eigen::MatrixXf(3, 3)); }
