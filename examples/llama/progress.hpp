/// @file
/// A line that says how far a run is.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

#include "config.hpp"

namespace llama {

/// Seconds since some moment.
[[nodiscard]] inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Redraws itself on a terminal, ten lines in all elsewhere.
class progress {
 public:
  progress(std::string name, index_t total) : name_{std::move(name)}, total_{total} {}
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;
  ~progress() {
    if (terminal_ && drawn_) std::fputc('\n', stderr);
  }

  void show(index_t done, double loss, double tokens_per_second, double seconds_left) {
    bool const tenth = done == total_ || done * 10 / total_ != (done - 1) * 10 / total_;
    if (!terminal_ && !tenth) return;
    constexpr index_t width = 24;
    index_t const full = done * width / total_;
    std::string const bar =
        std::string(static_cast<std::size_t>(full), '#') + std::string(static_cast<std::size_t>(width - full), '.');
    std::fprintf(stderr, "%s%-13s [%s] %ld/%ld  loss %.3f  %.0f tokens/s  %.0f s left %s", terminal_ ? "\r" : "",
                 name_.c_str(), bar.c_str(), static_cast<long>(done), static_cast<long>(total_), loss,
                 tokens_per_second, seconds_left, terminal_ ? "" : "\n");
    drawn_ = true;
  }

 private:
  std::string name_;
  index_t total_;
  bool terminal_{isatty(STDERR_FILENO) == 1}, drawn_{};
};

}  // namespace llama
