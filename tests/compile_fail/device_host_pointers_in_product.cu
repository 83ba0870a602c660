// expect-error: "no instance of .multiply. matches the argument list"
#include "lowrank/interop/raw.hpp"
#include "lowrank/lowrank.cuh"

void product(lowrank::cuda_executor& exec, float const* a, float const* b, float* c) {
  multiply(exec, 1.0F, lowrank::raw::row_major(a, 8, 8), lowrank::raw::row_major(b, 8, 8), 0.0F,
           lowrank::raw::row_major(c, 8, 8));
}
