// Whole kernels written in PTX, on buffers of the software GPU's memory.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "exec/launch.hpp"
#include "memory.hpp"
#include "ptx/module.hpp"
#include "report.hpp"

namespace softgpu_test {

/// Device memory for the length of a scope.
template <class T>
class buffer {
 public:
  /// Written, with these values.
  explicit buffer(std::vector<T> const& values) : buffer(values.size()) {
    std::memcpy(softgpu::memory().real(address_), values.data(), sizeof(T) * values.size());
    softgpu::memory().mark(address_, sizeof(T) * values.size());
  }
  /// Not written.
  explicit buffer(std::size_t count) : count_(count), address_(softgpu::memory().allocate(sizeof(T) * count)) {}
  buffer(buffer const&) = delete;
  buffer& operator=(buffer const&) = delete;
  ~buffer() { softgpu::memory().release(address_, "buffer"); }

  [[nodiscard]] std::uint64_t address() const { return address_; }
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> v(count_);
    std::memcpy(v.data(), softgpu::memory().real(address_), sizeof(T) * count_);
    return v;
  }

 private:
  std::size_t count_;
  std::uint64_t address_;
};

struct shape {
  std::uint32_t blocks = 1, threads = 32, dynamic_shared = 0;
};

/// `.visible .entry k(.param .u64 p0, ..)` around a body, with registers %r<32>, %rd<32>, %f<16>, %p<16> (.pred), %h<8>
/// (.b16), %fd<8>; pointers are in %rd24 ... in the order of the buffers, %r30 is tid.x, %r31 ctaid.x.
[[nodiscard]] std::string kernel_text(std::string const& body, std::size_t pointers, std::string const& before = "");

softgpu::outcome run_text(std::string const& text, shape s, std::vector<std::uint64_t> const& pointers);
inline softgpu::outcome run_body(std::string const& body, shape s, std::vector<std::uint64_t> const& pointers) {
  return run_text(kernel_text(body, pointers.size()), s, pointers);
}

/// The body is run, and this is reported once or more, and nothing else; the empty text: nothing at all.
void check_report(std::string const& part, std::string const& body, shape s,
                  std::vector<std::uint64_t> const& pointers);

}  // namespace softgpu_test
