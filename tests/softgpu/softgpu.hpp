// What tests may ask of the software GPU; the only header of it that they include. On a real GPU nothing of it is
// linked: `present()` is false, counts are zero and wishes are ignored, so the same objects run there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

extern "C" {
struct softgpu_counts {
  std::uint64_t launches, warp_instructions, thread_instructions;
  std::uint64_t requests;                       ///< warp accesses to global memory
  std::uint64_t sectors_read, sectors_written;  ///< distinct 32-byte sectors, each once per launch
};

#define SOFTGPU_WEAK __attribute__((weak))
SOFTGPU_WEAK int softgpu_reports();
SOFTGPU_WEAK char const* softgpu_last_report();
SOFTGPU_WEAK void softgpu_clear_reports();
SOFTGPU_WEAK void softgpu_expect(char const* part, int count);
SOFTGPU_WEAK int softgpu_missing();
SOFTGPU_WEAK void softgpu_fail(char const* call, int nth, int status);
SOFTGPU_WEAK int softgpu_drop_failures();
SOFTGPU_WEAK long softgpu_calls(char const* call);
SOFTGPU_WEAK long softgpu_host_waits();
SOFTGPU_WEAK std::uint64_t softgpu_live_bytes();
SOFTGPU_WEAK long softgpu_live_objects();
SOFTGPU_WEAK void softgpu_forbid(void const* begin, std::size_t bytes);
SOFTGPU_WEAK void softgpu_allow(void const* begin, std::size_t bytes);
SOFTGPU_WEAK void softgpu_total(softgpu_counts* counts);
SOFTGPU_WEAK void softgpu_last(softgpu_counts* counts);
SOFTGPU_WEAK void softgpu_of_kernel(char const* part, softgpu_counts* counts);
SOFTGPU_WEAK char const* softgpu_kernel_name(int n);
SOFTGPU_WEAK void softgpu_clear_counts();
SOFTGPU_WEAK int softgpu_is_eager();
#undef SOFTGPU_WEAK
}

namespace softgpu::test {

inline bool present() { return softgpu_reports != nullptr; }
inline bool eager() { return present() && softgpu_is_eager() != 0; }

// ---- reports: an unexpected one makes the process end with status 97 ------------------------------------------------
inline int reports() { return present() ? softgpu_reports() : 0; }
inline char const* last_report() { return present() ? softgpu_last_report() : ""; }
inline void clear_reports() {
  if (present()) softgpu_clear_reports();
}

/// While it lives, `count` reports whose "kind: what" contains `part` are what the test is about.
class expected_reports {
 public:
  explicit expected_reports(char const* part, int count = 1) {
    if (present()) softgpu_expect(part, count);
  }
  ~expected_reports() { missing(); }
  expected_reports(expected_reports const&) = delete;
  expected_reports& operator=(expected_reports const&) = delete;

  /// How many have not come; none is expected afterwards.
  int missing() { return present() ? softgpu_missing() : 0; }
};

// ---- failures on demand ---------------------------------------------------------------------------------------------
/// While it lives: the n-th call from now on of this name fails with `status` and does nothing. Names have no _v2 and
/// no _64; one that ends in * means all calls that begin like this. A launch is "cudaLaunchKernel".
class failing_call {
 public:
  failing_call(char const* call, int nth, int status) {
    if (present()) softgpu_fail(call, nth, status);
  }
  ~failing_call() {
    if (present()) softgpu_drop_failures();
  }
  failing_call(failing_call const&) = delete;
  failing_call& operator=(failing_call const&) = delete;
};

// ---- what has been done ---------------------------------------------------------------------------------------------
/// Calls so far of this name, or of all names that begin like "cudaMalloc*".
inline long calls(char const* call) { return present() ? softgpu_calls(call) : 0; }
inline long allocations() { return calls("cudaMalloc*"); }
/// How often the host has waited for the device.
inline long host_waits() { return present() ? softgpu_host_waits() : 0; }
inline std::uint64_t live_bytes() { return present() ? softgpu_live_bytes() : 0; }
/// Allocations, streams, events, graphs and handles that have not been given back.
inline long live_objects() { return present() ? softgpu_live_objects() : 0; }

/// Of all launches since `clear_counts`, of the last one, and of the kernels whose (mangled) name contains `part`.
inline softgpu_counts total_counts() {
  softgpu_counts counts{};
  if (present()) softgpu_total(&counts);
  return counts;
}
inline softgpu_counts last_launch() {
  softgpu_counts counts{};
  if (present()) softgpu_last(&counts);
  return counts;
}
inline softgpu_counts counts_of(char const* part) {
  softgpu_counts counts{};
  if (present()) softgpu_of_kernel(part, &counts);
  return counts;
}
/// The n-th name of the kernels launched since `clear_counts`, null behind the last.
inline char const* kernel_name(int n) { return present() ? softgpu_kernel_name(n) : nullptr; }
inline void clear_counts() {
  if (present()) softgpu_clear_counts();
}

// ---- arenas ---------------------------------------------------------------------------------------------------------
/// An access to forbidden bytes of an allocation is reported; bytes that are allowed again are unwritten.
inline void forbid(void const* begin, std::size_t bytes) {
  if (present()) softgpu_forbid(begin, bytes);
}
inline void allow(void const* begin, std::size_t bytes) {
  if (present()) softgpu_allow(begin, bytes);
}

}  // namespace softgpu::test
