#include "cublas/handle.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <utility>

#include "memory.hpp"
#include "operand.hpp"
#include "report.hpp"
#include "runtime/allocation.hpp"
#include "runtime/census.hpp"
#include "runtime/graph.hpp"

namespace softgpu {
namespace {

constexpr std::size_t workspace_alignment = 256, most_garbage = std::size_t{1} << 20;

std::set<cublasHandle_t>& handles() {
  static auto* const instance = new std::set<cublasHandle_t>;
  return *instance;
}

struct status_text {
  cublasStatus_t status;
  char const *name, *text;
};
constexpr status_text status_texts[] = {
#define SOFTGPU_STATUS(name, text) \
  { name, #name, text }
    SOFTGPU_STATUS(CUBLAS_STATUS_SUCCESS, "success"),
    SOFTGPU_STATUS(CUBLAS_STATUS_NOT_INITIALIZED, "the library was not initialized"),
    SOFTGPU_STATUS(CUBLAS_STATUS_ALLOC_FAILED, "the resource allocation failed"),
    SOFTGPU_STATUS(CUBLAS_STATUS_INVALID_VALUE, "an unsupported value or parameter was passed to the function"),
    SOFTGPU_STATUS(CUBLAS_STATUS_ARCH_MISMATCH,
                   "the function requires an architectural feature absent from the device"),
    SOFTGPU_STATUS(CUBLAS_STATUS_MAPPING_ERROR, "an access to GPU memory space failed"),
    SOFTGPU_STATUS(CUBLAS_STATUS_EXECUTION_FAILED, "the function failed to launch on the GPU"),
    SOFTGPU_STATUS(CUBLAS_STATUS_INTERNAL_ERROR, "an internal operation failed"),
    SOFTGPU_STATUS(CUBLAS_STATUS_NOT_SUPPORTED, "the requested functionality is not supported"),
#undef SOFTGPU_STATUS
};
status_text const& describe(cublasStatus_t status) {
  static constexpr status_text unknown{CUBLAS_STATUS_INTERNAL_ERROR, "unknown status", "unknown status"};
  auto const* const found = std::ranges::find(status_texts, status, &status_text::status);
  return found != std::end(status_texts) ? *found : unknown;
}

template <class T>
T number_at(void const* pointer) {
  T value;
  if (!is_device(pointer)) {
    report("host pointer", "a scalar in device pointer mode");
    return static_cast<T>(NAN);
  }
  operand const number{"scalar in device pointer mode", pointer, 1, 1, 1, sizeof value};
  char const* const found = number.read();
  if (found == nullptr) return static_cast<T>(NAN);
  std::memcpy(&value, found, sizeof value);
  return value;
}

}  // namespace

bool is_blas_handle(cublasHandle_t handle) { return handles().contains(handle); }

template <class T>
scalar_reader<T> scalars_of(cublasHandle_t handle, void const* alpha, void const* beta) {
  if (handle->pointer_mode == CUBLAS_POINTER_MODE_DEVICE)
    return [=] { return scalar_pair<T>{number_at<T>(alpha), beta != nullptr ? number_at<T>(beta) : T{0}}; };
  scalar_pair<T> const now{*static_cast<T const*>(alpha), beta != nullptr ? *static_cast<T const*>(beta) : T{0}};
  return [=] { return now; };
}
template scalar_reader<float> scalars_of(cublasHandle_t, void const*, void const*);
template scalar_reader<double> scalars_of(cublasHandle_t, void const*, void const*);

cublasStatus_t submit_blas(cublasHandle_t handle, std::function<void()> work) {
  auto const with_workspace = [work = std::move(work), workspace = handle->workspace,
                               bytes = std::min(handle->workspace_bytes, most_garbage)] {
    work();
    use_up(workspace, bytes, "cuBLAS workspace");
  };
  return submit(handle->stream, {with_workspace}) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                 : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  std::lock_guard const guard{device_lock()};
  if (auto const failure = injected_failure("cublasCreate")) return static_cast<cublasStatus_t>(*failure);
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (sticky_error() != cudaSuccess || forbidden_in_capture() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  forbidden_in_any_capture();  // a relaxed one is lost as well, though the call succeeds
  *handle = new cublasContext;
  handles().insert(*handle);
  count_made(live_kind::blas_handle);
  return CUBLAS_STATUS_SUCCESS;
}
// Also on a broken device: destructors must not fail.
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  std::lock_guard const guard{device_lock()};
  if (handles().erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete handle;
  count_gone(live_kind::blas_handle);
  return CUBLAS_STATUS_SUCCESS;
}

// As documented: a new stream forgets the workspace that the caller gave.
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return blas_call("cublasSetStream", handle, [&] {
    handle->stream = stream;
    handle->workspace = nullptr;
    handle->workspace_bytes = 0;
    return CUBLAS_STATUS_SUCCESS;
  });
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  return blas_call("cublasGetStream", handle, [&] { return *stream = handle->stream, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  return blas_call("cublasSetPointerMode", handle, [&] { return handle->pointer_mode = mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
  return blas_call("cublasGetPointerMode", handle, [&] { return *mode = handle->pointer_mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  return blas_call("cublasSetMathMode", handle, [&] { return handle->math_mode = mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  return blas_call("cublasGetMathMode", handle, [&] { return *mode = handle->math_mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  return blas_call("cublasSetWorkspace", handle, [&] {
    if (reinterpret_cast<std::uint64_t>(workspace) % workspace_alignment != 0)
      report("misaligned workspace", "cublasSetWorkspace asks for 256 bytes");  // and the real one accepts it
    handle->workspace = workspace;
    handle->workspace_bytes = bytes;
    return CUBLAS_STATUS_SUCCESS;
  });
}
cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  *version = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}

char const* cublasGetStatusName(cublasStatus_t status) { return describe(status).name; }
char const* cublasGetStatusString(cublasStatus_t status) { return describe(status).text; }
}
