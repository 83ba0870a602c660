// The cuBLAS handle, and what all calls do first and last.
#pragma once

#include <cublas_v2.h>

#include <cstddef>
#include <functional>
#include <mutex>

#include "runtime/device.hpp"
#include "runtime/failures.hpp"
#include "runtime/stream.hpp"

struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

namespace softgpu {

bool is_blas_handle(cublasHandle_t handle);

/// Runs an entry point of cuBLAS: handle, broken device and a test's wish come first.
template <class Body>
cublasStatus_t blas_call(char const* call, cublasHandle_t handle, Body const& body) {
  std::lock_guard const guard{device_lock()};
  if (auto const failure = injected_failure(call)) return static_cast<cublasStatus_t>(*failure);
  if (!is_blas_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (sticky_error() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  return body();
}

/// alpha and beta: read now in host pointer mode, and when the call runs in device pointer mode.
template <class T>
struct scalar_pair {
  T alpha, beta;
};
template <class T>
using scalar_reader = std::function<scalar_pair<T>()>;
template <class T>
scalar_reader<T> scalars_of(cublasHandle_t handle, void const* alpha, void const* beta);

/// Queues the work of a call; the workspace that the caller gave is garbage afterwards.
cublasStatus_t submit_blas(cublasHandle_t handle, std::function<void()> work);

}  // namespace softgpu
