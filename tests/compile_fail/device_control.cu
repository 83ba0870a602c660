// expect-success
// The calls of the files device_*.cu, used rightly: if this does not compile, their errors prove nothing.
#include "lowrank/interop/raw.hpp"
#include "lowrank/lowrank.cuh"

using namespace lowrank;

void step(adamw const& o, cuda_executor& exec, adamw::state<device_space>& state, matrix_view<float, device_space> w,
          matrix_view<float const, device_space> g) {
  o.step(exec, state, w, g, {});
}
void product(cuda_executor& exec, float const* a, float const* b, float* c) {
  multiply(exec, 1.0F, raw::row_major<device_space>(a, 8, 8), raw::row_major<device_space>(b, 8, 8), 0.0F,
           raw::row_major<device_space>(c, 8, 8));
}
