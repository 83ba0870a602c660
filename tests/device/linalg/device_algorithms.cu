#include "device/device_machine.cuh"
#include "device/linalg/algorithm_cases.hpp"
#include "lowrank/linalg/cuda/decompositions.cuh"

namespace lowrank_test {

linalg_side device_algorithms() { return algorithm_cases<machine<lowrank::cuda_executor>>{}.take(); }

}  // namespace lowrank_test
