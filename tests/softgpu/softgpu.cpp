// The test's view of the software GPU, and the judgement at the end of a program.
#include "softgpu.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "exec/launch.hpp"
#include "memory.hpp"
#include "report.hpp"
#include "runtime/census.hpp"
#include "runtime/device.hpp"
#include "runtime/failures.hpp"
#include "runtime/stream.hpp"

using namespace softgpu;

namespace {

constexpr int exit_status_of_reports = 97;

std::uint64_t address(void const* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

void copy_counts(statistics const& from, softgpu_counts* to) {
  *to = {from.launches, from.warp_instructions, from.thread_instructions,
         from.requests, from.sectors_read,      from.sectors_written};
}

void judge_at_exit() {
  std::lock_guard const guard{device_lock()};
  if (std::size_t const left = unfinished_work(); left != 0)
    report("never waited for", std::to_string(left) + " stream operations");
  run_all();  // what is left now gives memory back
  if (std::string const left = census_of_live_objects(); !left.empty()) report("never given back", left);
  if (std::getenv("SOFTGPU_STATISTICS") != nullptr)
    for (std::string const& name : launched_kernels()) {
      statistics const s = kernel_statistics(name);
      std::fprintf(stderr, "softgpu: %llu launches, %llu warp instructions, %llu sectors read, %llu written: %s\n",
                   static_cast<unsigned long long>(s.launches), static_cast<unsigned long long>(s.warp_instructions),
                   static_cast<unsigned long long>(s.sectors_read), static_cast<unsigned long long>(s.sectors_written),
                   name.c_str());
    }
  if (report_count() == 0) return;
  std::fprintf(stderr, "softgpu: %d reports\n", report_count());
  std::fflush(nullptr);
  _exit(exit_status_of_reports);
}

}  // namespace

namespace softgpu {

void judge_program_at_exit() {
  static bool const registered = std::atexit(judge_at_exit) == 0;
  static_cast<void>(registered);
}

}  // namespace softgpu

extern "C" {

int softgpu_reports() { return report_count(); }
char const* softgpu_last_report() { return last_report().c_str(); }
void softgpu_clear_reports() { clear_reports(); }
void softgpu_expect(char const* part, int count) { expect_reports(part, count); }
int softgpu_missing() { return missing_reports(); }

void softgpu_fail(char const* call, int nth, int status) { fail_call(call, nth, status); }
int softgpu_drop_failures() { return drop_failures(); }
long softgpu_calls(char const* call) { return calls_of(call); }

long softgpu_host_waits() { return host_waits(); }
std::uint64_t softgpu_live_bytes() { return memory().live_bytes(); }
long softgpu_live_objects() { return count_of_live_objects(); }

void softgpu_forbid(void const* begin, std::size_t bytes) { memory().forbid(address(begin), bytes); }
void softgpu_allow(void const* begin, std::size_t bytes) { memory().allow(address(begin), bytes); }

void softgpu_total(softgpu_counts* counts) { copy_counts(total_statistics(), counts); }
void softgpu_last(softgpu_counts* counts) { copy_counts(last_launch(), counts); }
void softgpu_of_kernel(char const* part, softgpu_counts* counts) {
  statistics sum;
  for (std::string const& name : launched_kernels())
    if (name.find(part) != std::string::npos) sum += kernel_statistics(name);
  copy_counts(sum, counts);
}
char const* softgpu_kernel_name(int n) {
  static std::string name;
  auto const names = launched_kernels();
  if (n < 0 || n >= static_cast<int>(names.size())) return nullptr;
  name = names[static_cast<std::size_t>(n)];
  return name.c_str();
}
void softgpu_clear_counts() { clear_statistics(); }
int softgpu_is_eager() { return settings().streams == stream_mode::eager ? 1 : 0; }
}
