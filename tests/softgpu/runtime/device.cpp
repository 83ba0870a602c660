#include "runtime/device.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "runtime/allocation.hpp"
#include "runtime/census.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

cudaError_t broken = cudaSuccess;
thread_local cudaError_t last = cudaSuccess;
thread_local int current = 0;

std::uint64_t number_from(char const* variable, std::uint64_t otherwise) {
  char const* const text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

device_settings from_environment() {
  device_settings chosen;
  char const* const streams = std::getenv("SOFTGPU_STREAMS");
  if (streams != nullptr && std::string_view{streams} == "eager") chosen.streams = stream_mode::eager;
  chosen.multiprocessors =
      static_cast<int>(number_from("SOFTGPU_SMS", static_cast<std::uint64_t>(chosen.multiprocessors)));
  chosen.memory_bytes = number_from("SOFTGPU_MEMORY", chosen.memory_bytes);
  chosen.devices = static_cast<int>(number_from("SOFTGPU_DEVICES", static_cast<std::uint64_t>(chosen.devices)));
  return chosen;
}

bool exists(int device) { return device >= 0 && device < settings().devices; }

struct error_text {
  cudaError_t error;
  char const *name, *text;
};
constexpr error_text error_texts[] = {
#define SOFTGPU_ERROR(name, text) \
  { name, #name, text }
    SOFTGPU_ERROR(cudaSuccess, "no error"),
    SOFTGPU_ERROR(cudaErrorInvalidValue, "invalid argument"),
    SOFTGPU_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    SOFTGPU_ERROR(cudaErrorInitializationError, "initialization error"),
    SOFTGPU_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    SOFTGPU_ERROR(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    SOFTGPU_ERROR(cudaErrorInvalidSymbol, "invalid device symbol"),
    SOFTGPU_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    SOFTGPU_ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    SOFTGPU_ERROR(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    SOFTGPU_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    SOFTGPU_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    SOFTGPU_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    SOFTGPU_ERROR(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    SOFTGPU_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    SOFTGPU_ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    SOFTGPU_ERROR(cudaErrorNotReady, "device not ready"),
    SOFTGPU_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    SOFTGPU_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    SOFTGPU_ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    SOFTGPU_ERROR(cudaErrorAssert, "device-side assert triggered"),
    SOFTGPU_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    SOFTGPU_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    SOFTGPU_ERROR(cudaErrorNotPermitted, "operation not permitted"),
    SOFTGPU_ERROR(cudaErrorNotSupported, "operation not supported"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureImplicit,
                  "operation would make the legacy stream depend on a capturing blocking stream"),
    SOFTGPU_ERROR(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    SOFTGPU_ERROR(cudaErrorStreamCaptureWrongThread,
                  "attempt to terminate a thread-local capture sequence from another thread"),
    SOFTGPU_ERROR(cudaErrorUnknown, "unknown error"),
#undef SOFTGPU_ERROR
};
error_text const& describe(cudaError_t error) {
  static constexpr error_text unknown{cudaErrorUnknown, "unrecognized error code", "unrecognized error code"};
  auto const* const found = std::ranges::find(error_texts, error, &error_text::error);
  return found != std::end(error_texts) ? *found : unknown;
}

// What an H100 answers.
int attribute_value(cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      return settings().multiprocessors;
    case cudaDevAttrComputeCapabilityMajor:
      return 9;
    case cudaDevAttrComputeCapabilityMinor:
      return 0;
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrMaxThreadsPerBlock:
      return 1024;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return 1024;
    case cudaDevAttrMaxBlockDimZ:
      return 64;
    case cudaDevAttrMaxGridDimX:
      return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return 48 << 10;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return 227 << 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return 228 << 10;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return 1 << 10;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return 2048;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return 32;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return 65536;
    case cudaDevAttrTotalConstantMemory:
      return 65536;
    case cudaDevAttrTextureAlignment:
      return 512;
    case cudaDevAttrL2CacheSize:
      return 50 << 20;
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrAsyncEngineCount:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCanMapHostMemory:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

device_settings& settings() {
  static device_settings chosen = from_environment();
  return chosen;
}
std::recursive_mutex& device_lock() {
  static auto* const instance = new std::recursive_mutex;
  return *instance;
}
cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}
int current_device() { return current; }
cudaError_t sticky_error() { return broken; }
void set_sticky_error(cudaError_t error) { broken = error; }
void reset_device() {
  drop_all_work();
  release_everything();
  forget_live_objects();
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGetDevice(int* device) {
  return entry_point<needs::nothing>("cudaGetDevice", [&] { return *device = current, cudaSuccess; });
}
cudaError_t cudaSetDevice(int device) {
  return entry_point("cudaSetDevice", [&] {
    if (!exists(device)) return cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceCount(int* count) {
  return entry_point<needs::nothing>("cudaGetDeviceCount", [&] { return *count = settings().devices, cudaSuccess; });
}
cudaError_t cudaDeviceSynchronize() {
  return entry_point("cudaDeviceSynchronize", [&] {
    if (auto const status = forbidden_in_any_capture()) return status;
    count_host_wait();
    run_all();
    return sticky_error();
  });
}
// Gives everything back. A device that was broken is not mended by it.
cudaError_t cudaDeviceReset() {
  std::lock_guard const guard{device_lock()};
  reset_device();
  if (sticky_error() != cudaSuccess) set_sticky_error(cudaErrorDevicesUnavailable);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  std::lock_guard const guard{device_lock()};
  return std::exchange(last, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() { return last; }
char const* cudaGetErrorName(cudaError_t error) { return describe(error).name; }
char const* cudaGetErrorString(cudaError_t error) { return describe(error).text; }

cudaError_t cudaRuntimeGetVersion(int* version) {
  return entry_point<needs::nothing>("cudaRuntimeGetVersion", [&] { return *version = CUDART_VERSION, cudaSuccess; });
}
cudaError_t cudaDriverGetVersion(int* version) {
  return entry_point<needs::nothing>("cudaDriverGetVersion", [&] { return *version = CUDART_VERSION, cudaSuccess; });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return entry_point<needs::nothing>("cudaDeviceGetAttribute", [&] {
    if (!exists(device)) return cudaErrorInvalidDevice;
    *value = attribute_value(attribute);
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return entry_point("cudaGetDeviceProperties", [&] {
    if (!exists(device)) return cudaErrorInvalidDevice;
    cudaDeviceProp& p = *properties;
    p = {};
    std::strcpy(p.name, "Software GPU (as an H100)");
    p.totalGlobalMem = settings().memory_bytes;
    p.major = attribute_value(cudaDevAttrComputeCapabilityMajor);
    p.minor = attribute_value(cudaDevAttrComputeCapabilityMinor);
    p.multiProcessorCount = attribute_value(cudaDevAttrMultiProcessorCount);
    p.warpSize = attribute_value(cudaDevAttrWarpSize);
    p.maxThreadsPerBlock = attribute_value(cudaDevAttrMaxThreadsPerBlock);
    p.maxThreadsPerMultiProcessor = attribute_value(cudaDevAttrMaxThreadsPerMultiProcessor);
    p.maxBlocksPerMultiProcessor = attribute_value(cudaDevAttrMaxBlocksPerMultiprocessor);
    for (int d = 0; d < 3; ++d) {
      p.maxThreadsDim[d] = d < 2 ? 1024 : 64;
      p.maxGridSize[d] = d < 1 ? 2147483647 : 65535;
    }
    p.sharedMemPerBlock = 48u << 10;
    p.sharedMemPerBlockOptin = 227u << 10;
    p.sharedMemPerMultiprocessor = 228u << 10;
    p.reservedSharedMemPerBlock = 1u << 10;
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.totalConstMem = 65536;
    p.textureAlignment = 512;
    p.l2CacheSize = attribute_value(cudaDevAttrL2CacheSize);
    p.memoryPoolsSupported = p.concurrentKernels = p.asyncEngineCount = p.unifiedAddressing = p.canMapHostMemory = 1;
    p.streamPrioritiesSupported = p.cooperativeLaunch = 1;
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return entry_point("cudaDeviceGetStreamPriorityRange", [&] {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return cudaSuccess;
  });
}
}
