/// @file
/// What the CUDA runtime and its libraries refuse, as exceptions that name the call and the code.
#pragma once

#include <cuda_runtime_api.h>

#include <string_view>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// A CUDA call that did not succeed. `code` is the cudaError_t, cublasStatus_t or cusolverStatus_t, as an integer.
struct cuda_error : error {
  cuda_error(std::string const& what, int its_code) : error{what}, code{its_code} {}

  int code;
};
/// Memory of the device that could not be had.
struct cuda_bad_alloc : cuda_error {
  using cuda_error::cuda_error;
};

namespace detail {

[[noreturn]] LOWRANK_COLD inline void refuse_cuda(cudaError_t status, std::string_view call, std::string_view detail) {
  // An error that does not stick is forgotten here, so that it is not taken for that of a later launch.
  static_cast<void>(cudaGetLastError());
  auto const text = join("lowrank: ", call, " failed with ", cudaGetErrorName(status), " (", static_cast<int>(status),
                         "): ", cudaGetErrorString(status), detail);
  if (status == cudaErrorMemoryAllocation) throw cuda_bad_alloc{text, static_cast<int>(status)};
  throw cuda_error{text, static_cast<int>(status)};
}
/// Throws unless a runtime call succeeded.
inline void check_cuda(cudaError_t status, std::string_view call, std::string_view detail = {}) {
  if (status != cudaSuccess) refuse_cuda(status, call, detail);
}
/// Throws unless a call of cuBLAS or cuSOLVER returned 0.
template <class Status>
void check_library(Status status, std::string_view call) {
  if (static_cast<int>(status) == 0) return;
  throw cuda_error{join("lowrank: ", call, " failed with status ", static_cast<int>(status)), static_cast<int>(status)};
}

}  // namespace detail
}  // namespace lowrank
