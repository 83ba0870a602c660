// expect-error: "static assertion failed: lowrank: Householder QR needs linalg/host/eigen_decompositions.hpp"
#include "lowrank/linalg/householder.hpp"
#include "lowrank/lowrank.hpp"

void make_orthonormal(lowrank::host_executor& exec, lowrank::matrix_view<float> y) {
  lowrank::orthonormal::householder{}(exec, y, {});
}
