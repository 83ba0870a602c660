// The cuSOLVER handle, and what all calls do first and last.
#pragma once

#include <cusolverDn.h>

#include <cstddef>
#include <functional>
#include <mutex>

#include "runtime/device.hpp"
#include "runtime/failures.hpp"

struct cusolverDnContext {
  cudaStream_t stream = nullptr;
};

namespace softgpu {

bool is_solver_handle(cusolverDnHandle_t handle);

/// Runs an entry point of cuSOLVER: handle, broken device and a test's wish come first.
template <class Body>
cusolverStatus_t solver_call(char const* call, cusolverDnHandle_t handle, Body const& body) {
  std::lock_guard const guard{device_lock()};
  if (auto const failure = injected_failure(call)) return static_cast<cusolverStatus_t>(*failure);
  if (!is_solver_handle(handle)) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (sticky_error() != cudaSuccess) return CUSOLVER_STATUS_INTERNAL_ERROR;
  return body();
}

/// What an H100 with CUDA 13.0 says of a call on a capturing stream: it becomes nodes, it fails, or it loses the
/// capture too.
enum class when_captured { recorded, fails, ends_capture };

/// Queues the work of a call, which returns what devInfo shall hold. The workspace is checked before, and garbage
/// afterwards.
cusolverStatus_t submit_solver(cusolverDnHandle_t handle, when_captured rule, void* workspace, std::size_t bytes,
                               int* info, std::function<int()> work);

}  // namespace softgpu
