/// @file
/// Whose memory a pointer leads to.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lowrank/core/cuda/error.cuh"

namespace lowrank {

/// Whether every step asks the driver whose memory its weight, gradient and state are. It answers without the device and
/// without waiting, in less time than one launch takes, and a step launches tens of kernels: so it is asked unless told otherwise.
enum class pointer_checks : std::uint8_t { every_step, none };

namespace detail {

/// What the driver knows of a pointer, against what a view of device memory must be.
inline void require_memory_of(int device, cudaPointerAttributes const& found, void const* pointer, char const* caller,
                              char const* what) {
  require(found.type != cudaMemoryTypeUnregistered, caller, what,
          " must be memory of a CUDA device; no device knows the pointer ", pointer);
  // A device could follow it, over the bus: nobody means that for what every step reads and writes.
  require(found.type != cudaMemoryTypeHost, caller, what, " must be memory of device ", device,
          "; pinned memory of the host is at ", pointer);
  require(found.type == cudaMemoryTypeManaged || found.device == device, caller, what, " must be memory of device ",
          device, "; that at ", pointer, " is of device ", found.device);
}

}  // namespace detail
}  // namespace lowrank
