// The device side of a machine.
#pragma once

#include "lowrank/lowrank.cuh"

namespace lowrank_test {

inline void copy_bytes(lowrank::cuda_executor& exec, void* to, void const* from, std::size_t bytes) {
  lowrank::detail::check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, exec.stream()), "cudaMemcpyAsync");
  exec.synchronize();
}

}  // namespace lowrank_test

#include "device/machine.hpp"
