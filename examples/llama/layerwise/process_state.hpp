/// @file
/// What the operating system knows of this process and of its machine.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "lowrank/core/config.hpp"

namespace llama {

using lowrank::index_t;

/// Bytes of a line such as "VmHWM:" of a file of /proc; -1 where there is none.
[[nodiscard]] inline index_t proc_bytes(char const* file, std::string const& name) {
  std::ifstream in{file};
  for (std::string word; in >> word;)
    if (word == name) {
      index_t kib = -1;
      in >> kib;
      return kib < 0 ? -1 : kib * 1024;
    }
  return -1;
}
/// The most that was ever resident; counted from the start of the program.
[[nodiscard]] inline index_t peak_resident() { return proc_bytes("/proc/self/status", "VmHWM:"); }
[[nodiscard]] inline index_t resident_now() { return proc_bytes("/proc/self/status", "VmRSS:"); }
[[nodiscard]] inline index_t memory_available() { return proc_bytes("/proc/meminfo", "MemAvailable:"); }

/// Processor seconds since some moment.
struct processor_time {
  double own{}, all{};  ///< of this process, of everybody on this machine
};
[[nodiscard]] inline processor_time processor_seconds() {
  processor_time out;
  rusage mine{};
  getrusage(RUSAGE_SELF, &mine);
  auto const seconds = [](timeval v) { return static_cast<double>(v.tv_sec) + static_cast<double>(v.tv_usec) * 1e-6; };
  out.own = seconds(mine.ru_utime) + seconds(mine.ru_stime);
  std::ifstream in{"/proc/stat"};
  std::string cpu;
  double user = 0, nice = 0, system = 0;
  in >> cpu >> user >> nice >> system;
  out.all = (user + nice + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return out;
}

}  // namespace llama
