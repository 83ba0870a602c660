// The devices: how they are set up, what went wrong on them, and the lock that every entry point holds.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

#include "runtime/failures.hpp"

namespace softgpu {

enum class stream_mode { lazy, eager };

/// Read from the environment once: SOFTGPU_STREAMS (lazy, eager), SOFTGPU_DEVICES, SOFTGPU_SMS, SOFTGPU_MEMORY (bytes),
/// SOFTGPU_FAIL.
struct device_settings {
  stream_mode streams = stream_mode::lazy;
  int devices = 1;  ///< of one memory and one default stream; they break together
  int multiprocessors = 132;
  std::size_t memory_bytes = std::size_t{16} << 30;
};
device_settings& settings();

/// The device that the calls of this thread are about.
int current_device();

/// Host threads take turns. Recursive, because a host function that a stream runs may ask for an error string.
std::recursive_mutex& device_lock();

/// The thread's last error, as cudaGetLastError sees it; success changes nothing.
cudaError_t remember(cudaError_t error);
/// A fault of a kernel: every later call returns it, and only a new process mends it.
cudaError_t sticky_error();
void set_sticky_error(cudaError_t error);
/// Forgets all work and everything that was made.
void reset_device();

/// Questions that need no device are answered even when it is broken.
enum class needs { device, nothing };

/// Runs an entry point of the runtime. What a broken device or a test's wish makes of the call comes first.
template <needs What = needs::device, class Body>
cudaError_t entry_point(char const* call, Body const& body) {
  std::lock_guard const guard{device_lock()};
  if (What == needs::device && sticky_error() != cudaSuccess) return remember(sticky_error());
  if (auto const failure = injected_failure(call)) return remember(static_cast<cudaError_t>(*failure));
  return remember(body());
}

}  // namespace softgpu
