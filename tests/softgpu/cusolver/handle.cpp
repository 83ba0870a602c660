#include "cusolver/handle.hpp"

#include <set>
#include <utility>

#include "operand.hpp"
#include "runtime/census.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

std::set<cusolverDnHandle_t>& handles() {
  static auto* const instance = new std::set<cusolverDnHandle_t>;
  return *instance;
}

}  // namespace

bool is_solver_handle(cusolverDnHandle_t handle) { return handles().contains(handle); }

cusolverStatus_t submit_solver(cusolverDnHandle_t handle, when_captured rule, void* workspace, std::size_t bytes,
                               int* info, std::function<int()> work) {
  if (capturing(handle->stream) && rule == when_captured::fails) return CUSOLVER_STATUS_EXECUTION_FAILED;
  if (capturing(handle->stream) && rule == when_captured::ends_capture) {
    forbidden_on(handle->stream);
    return CUSOLVER_STATUS_INTERNAL_ERROR;
  }
  auto const checked = [=, work = std::move(work)] {
    if (!use_up(workspace, bytes, "cuSOLVER workspace")) return;
    int const result = work();
    use_up(workspace, bytes, "cuSOLVER workspace");
    write_number(info, result, "devInfo");
  };
  return submit(handle->stream, {checked}) == cudaSuccess ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_INTERNAL_ERROR;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  std::lock_guard const guard{device_lock()};
  if (auto const failure = injected_failure("cusolverDnCreate")) return static_cast<cusolverStatus_t>(*failure);
  if (handle == nullptr) return CUSOLVER_STATUS_INVALID_VALUE;
  if (sticky_error() != cudaSuccess || forbidden_in_capture() != cudaSuccess) return CUSOLVER_STATUS_INTERNAL_ERROR;
  forbidden_in_any_capture();  // a relaxed one is lost as well, though the call succeeds
  *handle = new cusolverDnContext;
  handles().insert(*handle);
  count_made(live_kind::solver_handle);
  return CUSOLVER_STATUS_SUCCESS;
}
// Also on a broken device: destructors must not fail.
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  std::lock_guard const guard{device_lock()};
  if (handles().erase(handle) == 0) return CUSOLVER_STATUS_NOT_INITIALIZED;
  delete handle;
  count_gone(live_kind::solver_handle);
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  return solver_call("cusolverDnSetStream", handle, [&] { return handle->stream = stream, CUSOLVER_STATUS_SUCCESS; });
}
cusolverStatus_t cusolverDnGetStream(cusolverDnHandle_t handle, cudaStream_t* stream) {
  return solver_call("cusolverDnGetStream", handle, [&] { return *stream = handle->stream, CUSOLVER_STATUS_SUCCESS; });
}
cusolverStatus_t cusolverDnSetDeterministicMode(cusolverDnHandle_t handle, cusolverDeterministicMode_t) {
  return solver_call("cusolverDnSetDeterministicMode", handle, [] { return CUSOLVER_STATUS_SUCCESS; });
}
}
