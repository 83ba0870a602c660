// Copies and fills. What a copy reads or writes on the host, and when, depends on whether that memory is pinned.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "memory.hpp"
#include "report.hpp"
#include "runtime/allocation.hpp"
#include "runtime/device.hpp"
#include "runtime/graph.hpp"
#include "runtime/launch.hpp"
#include "runtime/stream.hpp"

extern "C" __attribute__((weak)) void __asan_poison_memory_region(void const volatile* begin, std::size_t bytes);
extern "C" __attribute__((weak)) void __asan_unpoison_memory_region(void const volatile* begin, std::size_t bytes);

using namespace softgpu;

namespace {

enum class waits { never, always };

// `height` rows of `width` bytes, `pitch` bytes apart; a plain copy is one row.
struct rectangle {
  std::uint64_t base;
  std::size_t pitch;

  static rectangle at(void const* pointer, std::size_t pitch) {
    return {reinterpret_cast<std::uint64_t>(pointer), pitch};
  }
  std::uint64_t row(std::size_t n) const { return base + n * pitch; }
  char* host_row(std::size_t n) const { return reinterpret_cast<char*>(row(n)); }
  void const* pointer() const { return reinterpret_cast<void const*>(base); }
};
struct extent {
  std::size_t width, height;
};

// Where the copy will arrive, nothing can be read yet: NaN for everybody, a fault under AddressSanitizer.
void make_unreadable(rectangle const& area, extent size) {
  for (std::size_t n = 0; n < size.height; ++n) {
    std::memset(area.host_row(n), 0xFF, size.width);
    if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(area.host_row(n), size.width);
  }
}
void make_readable(rectangle const& area, extent size) {
  if (__asan_unpoison_memory_region == nullptr) return;
  for (std::size_t n = 0; n < size.height; ++n) __asan_unpoison_memory_region(area.host_row(n), size.width);
}

bool direction_fits(bool to_device, bool from_device, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

enum class source_read { at_once, when_it_runs };

// Host memory that queued copies have still to read: a later copy into it must not spoil it before its time.
std::multimap<std::uint64_t, std::uint64_t>& pending_reads() {
  static auto* const instance = new std::multimap<std::uint64_t, std::uint64_t>;
  return *instance;
}
bool will_be_read(rectangle const& area, extent size) {
  std::uint64_t const end = area.row(size.height - 1) + size.width;
  return std::ranges::any_of(pending_reads(), [&](auto const& r) { return r.first < end && area.base < r.second; });
}

operation to_device(rectangle to, rectangle from, extent size, source_read when) {
  auto staged = std::make_shared<std::vector<char>>();
  if (when == source_read::at_once) {
    staged->resize(size.width * size.height);
    for (std::size_t n = 0; n < size.height; ++n)
      std::memcpy(staged->data() + n * size.width, from.host_row(n), size.width);
    from = {reinterpret_cast<std::uint64_t>(staged->data()), size.width};
  }
  return {[=] {
    static_cast<void>(staged);  // lives as long as the operation
    if (auto const read = pending_reads().find(from.base); read != pending_reads().end()) pending_reads().erase(read);
    for (std::size_t n = 0; n < size.height; ++n)
      if (char* const target = memory().check(to.row(n), size.width, "copy to device, target")) {
        std::memcpy(target, from.host_row(n), size.width);
        memory().mark(to.row(n), size.width);
      }
  }};
}

operation to_host(rectangle to, rectangle from, extent size) {
  return {[=] {
    make_readable(to, size);
    for (std::size_t n = 0; n < size.height; ++n)
      if (char const* const source = memory().check(from.row(n), size.width, "copy to host, source"))
        std::memcpy(to.host_row(n), source, size.width);
  }};
}

operation within_device(rectangle to, rectangle from, extent size) {
  return {[=] {
    for (std::size_t n = 0; n < size.height; ++n)
      if (memory().check(to.row(n), size.width, "copy on device, target") != nullptr &&
          memory().check(from.row(n), size.width, "copy on device, source") != nullptr)
        memory().copy(to.row(n), from.row(n), size.width);
  }};
}

operation within_host(rectangle to, rectangle from, extent size) {
  return {[=] {
    for (std::size_t n = 0; n < size.height; ++n) std::memmove(to.host_row(n), from.host_row(n), size.width);
  }};
}

cudaError_t copy(rectangle to, rectangle from, extent size, cudaMemcpyKind kind, cudaStream_t stream, waits when) {
  if (size.width == 0 || size.height == 0) return cudaSuccess;
  if (size.width > to.pitch || size.width > from.pitch)
    return size.height > 1 ? cudaErrorInvalidPitchValue : cudaErrorInvalidValue;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  bool const target = is_device(to.pointer()), source = is_device(from.pointer());
  if (!direction_fits(target, source, kind)) {
    report("copy direction", "the kind of a copy does not fit its pointers");
    return cudaErrorInvalidValue;
  }
  if (target && source) return submit(stream, within_device(to, from, size));  // never waits

  if (source && when == waits::never && !capturing(stream) && !will_be_read(to, size)) make_unreadable(to, size);
  // The caller may change pageable memory as soon as the call has returned. A captured copy reads it at each launch.
  auto const read = is_pinned(from.pointer()) || capturing(stream) ? source_read::when_it_runs : source_read::at_once;
  if (target && read == source_read::when_it_runs && !capturing(stream))
    pending_reads().emplace(from.base, from.row(size.height - 1) + size.width);
  auto const status = submit(stream, target   ? to_device(to, from, size, read)
                                     : source ? to_host(to, from, size)
                                              : within_host(to, from, size));
  return status != cudaSuccess || when == waits::never ? status : wait_for(stream);
}

cudaError_t fill(rectangle area, int value, extent size, cudaStream_t stream) {
  return submit(stream, {[=] {
                  for (std::size_t n = 0; n < size.height; ++n)
                    if (char* const target = memory().check(area.row(n), size.width, "memset")) {
                      std::memset(target, value, size.width);
                      memory().mark(area.row(n), size.width);
                    }
                }});
}

}  // namespace

extern "C" {

cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry_point("cudaMemcpyAsync", [&] {
    return copy(rectangle::at(to, bytes), rectangle::at(from, bytes), {bytes, 1}, kind, stream, waits::never);
  });
}
cudaError_t cudaMemcpy(void* to, void const* from, size_t bytes, cudaMemcpyKind kind) {
  return entry_point("cudaMemcpy", [&] {
    return copy(rectangle::at(to, bytes), rectangle::at(from, bytes), {bytes, 1}, kind, nullptr, waits::always);
  });
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, void const* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return entry_point("cudaMemcpy2DAsync", [&] {
    return copy(rectangle::at(to, to_pitch), rectangle::at(from, from_pitch), {width, height}, kind, stream,
                waits::never);
  });
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, void const* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return entry_point("cudaMemcpy2D", [&] {
    return copy(rectangle::at(to, to_pitch), rectangle::at(from, from_pitch), {width, height}, kind, nullptr,
                waits::always);
  });
}

cudaError_t cudaMemsetAsync(void* area, int value, size_t bytes, cudaStream_t stream) {
  return entry_point("cudaMemsetAsync", [&] { return fill(rectangle::at(area, bytes), value, {bytes, 1}, stream); });
}
cudaError_t cudaMemset(void* area, int value, size_t bytes) {
  return entry_point("cudaMemset", [&] { return fill(rectangle::at(area, bytes), value, {bytes, 1}, nullptr); });
}
cudaError_t cudaMemset2DAsync(void* area, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return entry_point("cudaMemset2DAsync", [&] {
    return fill(rectangle::at(area, pitch), value, {width, height}, stream);
  });
}

cudaError_t cudaGetSymbolAddress(void** pointer, void const* symbol) {
  return entry_point("cudaGetSymbolAddress", [&] {
    *pointer = reinterpret_cast<void*>(address_of_variable(symbol));
    return *pointer != nullptr ? cudaSuccess : cudaErrorInvalidSymbol;
  });
}
cudaError_t cudaMemcpyToSymbolAsync(void const* symbol, void const* from, size_t bytes, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
  return entry_point("cudaMemcpyToSymbol", [&] {
    auto const base = address_of_variable(symbol);
    if (base == 0) return cudaErrorInvalidSymbol;
    return copy({base + offset, bytes}, rectangle::at(from, bytes), {bytes, 1}, kind, stream, waits::never);
  });
}
cudaError_t cudaMemcpyToSymbol(void const* symbol, void const* from, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return entry_point("cudaMemcpyToSymbol", [&] {
    auto const base = address_of_variable(symbol);
    if (base == 0) return cudaErrorInvalidSymbol;
    return copy({base + offset, bytes}, rectangle::at(from, bytes), {bytes, 1}, kind, nullptr, waits::always);
  });
}
cudaError_t cudaMemcpyFromSymbol(void* to, void const* symbol, size_t bytes, size_t offset, cudaMemcpyKind kind) {
  return entry_point("cudaMemcpyFromSymbol", [&] {
    auto const base = address_of_variable(symbol);
    if (base == 0) return cudaErrorInvalidSymbol;
    return copy(rectangle::at(to, bytes), {base + offset, bytes}, {bytes, 1}, kind, nullptr, waits::always);
  });
}
}
