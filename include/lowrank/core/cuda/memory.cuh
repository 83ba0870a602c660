/// @file
/// Device memory for buffers and state.
#pragma once

#include <cuda_runtime_api.h>

#include "lowrank/core/cuda/error.cuh"
#include "lowrank/core/space.hpp"

namespace lowrank {

/// Device memory of the current device, from cudaMalloc (256-byte aligned). Only states and arenas ask for it, never a step.
template <>
struct memory<device_space> {
  static constexpr std::size_t alignment = 256;

  /// Throws: cuda_bad_alloc, cuda_error.
  [[nodiscard]] static void* allocate(std::size_t bytes) {
    void* data = nullptr;
    detail::check_cuda(cudaMalloc(&data, bytes), "cudaMalloc", detail::join(" (", bytes, " bytes)"));
    return data;
  }
  /// Waits for the device, so work that still uses the memory is safe.
  static void release(void* data, std::size_t) noexcept { static_cast<void>(cudaFree(data)); }
  /// Synchronises: streams that do not wait for the default stream could otherwise read what was there before.
  static void zero(void* data, std::size_t bytes) {
    if (bytes == 0) return;
    detail::check_cuda(cudaMemset(data, 0, bytes), "cudaMemset");
    detail::check_cuda(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
  }
};

}  // namespace lowrank
