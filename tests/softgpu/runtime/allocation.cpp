#include "runtime/allocation.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>

#include "memory.hpp"
#include "report.hpp"
#include "runtime/census.hpp"
#include "runtime/device.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

constexpr std::size_t page = 4096;

struct memory_ledger {
  std::map<std::uint64_t, int> from_program;    // live or about to be, with its device
  std::map<std::uint64_t, std::size_t> pinned;  // base, bytes
};
memory_ledger& ledger() {
  static auto* const instance = new memory_ledger;
  return *instance;
}

std::uint64_t address(void const* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

std::map<std::uint64_t, std::size_t>::const_iterator pinned_block(void const* pointer) {
  auto const& pinned = ledger().pinned;
  auto block = pinned.upper_bound(address(pointer));
  if (block == pinned.begin()) return pinned.end();
  --block;
  return address(pointer) - block->first < block->second ? block : pinned.end();
}

cudaError_t take(void** pointer, std::size_t bytes, life state) {
  if (pointer == nullptr) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > settings().memory_bytes - std::min<std::size_t>(settings().memory_bytes, memory().live_bytes()))
    return cudaErrorMemoryAllocation;
  std::uint64_t const base = memory().allocate(bytes, state);
  if (base == 0) return cudaErrorMemoryAllocation;
  ledger().from_program.emplace(base, current_device());
  *pointer = reinterpret_cast<void*>(base);
  return cudaSuccess;
}

}  // namespace

bool is_device(void const* pointer) { return memory().contains(pointer); }
bool is_pinned(void const* pointer) { return pinned_block(pointer) != ledger().pinned.end(); }

void release_everything() {
  for (auto const& [base, device] : ledger().from_program)
    if (auto const* const found = memory().find(base); found != nullptr && found->state == life::live)
      memory().release(base, "cudaDeviceReset");
  ledger().from_program.clear();
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return entry_point("cudaMalloc", [&] {
    if (auto const status = forbidden_in_capture()) return status;
    return take(pointer, bytes, life::live);
  });
}

// Waits for everything, as the driver does before it unmaps memory.
cudaError_t cudaFree(void* pointer) {
  return entry_point("cudaFree", [&] {
    if (auto const status = forbidden_in_capture()) return status;
    if (pointer == nullptr) return cudaSuccess;
    run_all();
    ledger().from_program.erase(address(pointer));
    return memory().release(address(pointer), "cudaFree") ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return entry_point("cudaMallocAsync", [&] {
    if (capturing(stream)) {
      report("allocation in capture", "cudaMallocAsync would add a memory node; the software GPU has none");
      return forbidden_on(stream);
    }
    if (!queue_of(stream)) return cudaErrorInvalidResourceHandle;
    if (auto const status = forbidden_in_capture()) return status;
    if (auto const status = take(pointer, bytes, life::reserved)) return status;
    if (*pointer == nullptr) return cudaSuccess;
    return submit(stream, {[base = address(*pointer)] { memory().set_live(base); }, operation_kind::housekeeping});
  });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return entry_point("cudaFreeAsync", [&] {
    if (capturing(stream)) {
      report("allocation in capture", "cudaFreeAsync would add a memory node; the software GPU has none");
      return forbidden_on(stream);
    }
    if (pointer == nullptr) return cudaSuccess;
    auto const release = [base = address(pointer)] {
      ledger().from_program.erase(base);
      memory().release(base, "cudaFreeAsync");
    };
    return submit(stream, {release, operation_kind::housekeeping});
  });
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  return entry_point("cudaMallocHost", [&] {
    if (auto const status = forbidden_in_capture()) return status;
    std::size_t const whole = (bytes + page - 1) / page * page;
    *pointer = bytes != 0 ? std::aligned_alloc(page, whole) : nullptr;
    if (bytes != 0 && *pointer == nullptr) return cudaErrorMemoryAllocation;
    if (bytes == 0) return cudaSuccess;
    ledger().pinned[address(*pointer)] = bytes;
    count_made(live_kind::pinned_block);
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault); }

cudaError_t cudaFreeHost(void* pointer) {
  return entry_point("cudaFreeHost", [&] {
    if (auto const status = forbidden_in_capture()) return status;
    if (pointer == nullptr) return cudaSuccess;
    run_all();
    if (ledger().pinned.erase(address(pointer)) == 0) return cudaErrorInvalidValue;
    std::free(pointer);
    count_gone(live_kind::pinned_block);
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  return entry_point("cudaMemGetInfo", [&] {
    *total = settings().memory_bytes;
    *available = *total - std::min<std::size_t>(*total, memory().live_bytes());
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, void const* pointer) {
  return entry_point("cudaPointerGetAttributes", [&] {
    if (attributes == nullptr) return cudaErrorInvalidValue;
    *attributes = {};
    void* const plain = const_cast<void*>(pointer);
    auto const* const found = is_device(pointer) ? memory().find(address(pointer)) : nullptr;
    if (found != nullptr && address(pointer) - found->base < found->size && found->state != life::freed) {
      auto const block = ledger().from_program.find(found->base);
      attributes->type = cudaMemoryTypeDevice;
      attributes->device = block != ledger().from_program.end() ? block->second : 0;
      attributes->devicePointer = plain;
    } else if (is_pinned(pointer)) {
      attributes->type = cudaMemoryTypeHost;
      attributes->hostPointer = attributes->devicePointer = plain;
    } else {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->device = cudaInvalidDeviceId;
      attributes->hostPointer = plain;
    }
    return cudaSuccess;
  });
}
}
