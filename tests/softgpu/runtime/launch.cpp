#include "runtime/launch.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "exec/launch.hpp"
#include "fatbin.hpp"
#include "ptx/module.hpp"
#include "report.hpp"
#include "runtime/census.hpp"
#include "runtime/device.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

constexpr std::size_t default_dynamic_shared = std::size_t{48} << 10, most_shared = std::size_t{227} << 10;

struct binary {
  std::string_view ptx;
  std::unique_ptr<module> loaded{};  // parsed when one of its kernels is first asked for
};

struct function {
  binary* from = nullptr;
  std::string name;
  kernel const* code = nullptr;
  std::size_t most_dynamic_shared = default_dynamic_shared;
};

struct variable {
  binary* from = nullptr;
  std::string name;
};

// Objects register before main, in any order.
struct program {
  std::vector<std::unique_ptr<binary>> binaries;
  std::map<void const*, function> functions;  // by the address of the host stub
  std::map<void const*, variable> variables;
};
program& registered() {
  static auto* const instance = new program;
  return *instance;
}

module& load(binary& from) {
  if (!from.loaded) from.loaded = std::make_unique<module>(from.ptx);
  return *from.loaded;
}

function* find_function(void const* host_stub) {
  auto const found = registered().functions.find(host_stub);
  if (found == registered().functions.end()) return nullptr;
  function& f = found->second;
  if (f.code == nullptr) {
    try {
      f.code = load(*f.from).find_kernel(f.name);
      if (f.code == nullptr) report("no such kernel", f.name);
    } catch (std::runtime_error const& error) { report("unreadable PTX", error.what()); }
  }
  return f.code != nullptr ? &f : nullptr;
}

bool launchable(kernel const& code, dim3 grid, dim3 block) {
  std::uint64_t const threads = std::uint64_t{block.x} * block.y * block.z;
  std::uint64_t const blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  return threads > 0 && threads <= code.max_threads && block.x <= 1024 && block.y <= 1024 && block.z <= 64 &&
         blocks > 0 && grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535;
}

// What the driver would call the fault that has just been reported; success if it would not notice.
cudaError_t error_of_last_fault() {
  std::string_view const kind{last_report()};
  if (kind.starts_with("misaligned")) return cudaErrorMisalignedAddress;
  if (kind.starts_with("uninitialised")) return cudaSuccess;
  bool const gave_up = kind.starts_with("trap") || kind.starts_with("unsupported") || kind.starts_with("no progress");
  return gave_up ? cudaErrorLaunchFailure : cudaErrorIllegalAddress;
}

cudaError_t start(void const* host_stub, dim3 grid, dim3 block, void** arguments, std::size_t shared,
                  cudaStream_t stream) {
  return entry_point("cudaLaunchKernel", [&] {
    function const* const f = find_function(host_stub);
    if (f == nullptr) return failed_on(stream, cudaErrorInvalidDeviceFunction);
    if (auto const queue = queue_of(stream); queue && queue->device().value_or(current_device()) != current_device())
      return cudaErrorInvalidResourceHandle;
    kernel const& code = *f->code;
    if (!launchable(code, grid, block) || shared > f->most_dynamic_shared || code.static_shared + shared > most_shared)
      return failed_on(stream, cudaErrorInvalidValue);

    launch description{.grid = {grid.x, grid.y, grid.z},
                       .block = {block.x, block.y, block.z},
                       .dynamic_shared = static_cast<std::uint32_t>(shared),
                       .parameters = std::vector<char>(code.parameter_bytes)};
    for (std::size_t n = 0; n < code.parameters.size(); ++n)
      std::memcpy(&description.parameters[code.parameters[n].offset], arguments[n], code.parameters[n].size);
    return submit(stream, {[&code, description = std::move(description)] {
                    if (execute(code, description) == outcome::faulted) set_sticky_error(error_of_last_fault());
                  }});
  });
}

struct call_configuration {
  dim3 grid, block;
  std::size_t shared = 0;
  cudaStream_t stream = nullptr;
};
thread_local call_configuration pushed;

}  // namespace

std::uint64_t address_of_variable(void const* host_shadow) {
  auto const found = registered().variables.find(host_shadow);
  if (found == registered().variables.end()) return 0;
  auto const* const known = load(*found->second.from).find_variable(found->second.name);
  return known != nullptr ? known->address : 0;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

// ---- what object files of nvcc call before main, and around every <<<>>> --------------------------------------------
void** __cudaRegisterFatBinary(void* wrapper) {
  judge_program_at_exit();
  registered().binaries.push_back(std::make_unique<binary>(binary{ptx_of(wrapper)}));
  return reinterpret_cast<void**>(registered().binaries.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void** handle, char const* host_stub, char*, char const* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  registered().functions[host_stub] = {reinterpret_cast<binary*>(handle), name};
}
void __cudaRegisterVar(void** handle, char* host_shadow, char*, char const* name, int, size_t, int, int) {
  registered().variables[host_shadow] = {reinterpret_cast<binary*>(handle), name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  pushed = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<cudaStream_t*>(stream) = pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* handle, void const* host_stub) {
  *handle = static_cast<cudaKernel_t>(const_cast<void*>(host_stub));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t handle, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return start(handle, grid, block, arguments, shared, stream);
}

// ---- kernels --------------------------------------------------------------------------------------------------------
cudaError_t cudaLaunchKernel(void const* host_stub, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return start(host_stub, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(cudaLaunchConfig_t const* config, void const* host_stub, void** arguments) {
  return start(host_stub, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes, config->stream);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void const* host_stub) {
  return entry_point("cudaFuncGetAttributes", [&] {
    function const* const f = find_function(host_stub);
    if (f == nullptr) return cudaErrorInvalidDeviceFunction;
    *attributes = {};
    attributes->maxThreadsPerBlock = static_cast<int>(f->code->max_threads);
    attributes->sharedSizeBytes = f->code->static_shared;
    attributes->localSizeBytes = f->code->local_bytes;
    attributes->ptxVersion = attributes->binaryVersion = f->code->arch;
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(f->most_dynamic_shared);
    attributes->numRegs = 32;  // only ptxas knows
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(void const* host_stub, cudaFuncAttribute attribute, int value) {
  return entry_point("cudaFuncSetAttribute", [&] {
    function* const f = find_function(host_stub);
    if (f == nullptr) return cudaErrorInvalidDeviceFunction;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || f->code->static_shared + static_cast<std::size_t>(value) > most_shared)
      return cudaErrorInvalidValue;
    f->most_dynamic_shared = static_cast<std::size_t>(value);
    return cudaSuccess;
  });
}

// Threads and shared memory are what is known here; registers are not.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void const* host_stub, int threads,
                                                                   size_t shared, unsigned) {
  return entry_point("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&] {
    function const* const f = find_function(host_stub);
    if (f == nullptr) return cudaErrorInvalidDeviceFunction;
    if (threads <= 0) return cudaErrorInvalidValue;
    if (threads > static_cast<int>(f->code->max_threads) || f->code->static_shared + shared > most_shared) {
      *blocks = 0;
      return cudaSuccess;
    }
    std::size_t const reserved = f->code->static_shared + shared + 1024;
    *blocks = std::min({32, 2048 / threads, static_cast<int>((std::size_t{228} << 10) / reserved)});
    return cudaSuccess;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void const* host_stub, int threads,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host_stub, threads, shared, 0);
}
}
