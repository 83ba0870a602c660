// Runs a kernel, block by block, and counts what it did.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "ptx/kernel.hpp"

namespace softgpu {

struct launch {
  std::array<std::uint32_t, 3> grid{1, 1, 1}, block{1, 1, 1};
  std::uint32_t dynamic_shared = 0;
  std::vector<char> parameters;  ///< kernel::parameter_bytes
};

enum class outcome : std::uint8_t { completed, faulted };

/// Reports what it finds. After a fault (access outside memory, unknown instruction, ..) the rest of the kernel does
/// not run; what is merely wrong (a race, a divergent barrier) is reported and goes on.
outcome execute(kernel const& k, launch const& l);

struct statistics {
  std::uint64_t launches = 0, warp_instructions = 0, thread_instructions = 0;
  std::uint64_t requests = 0;                           ///< warp accesses to global memory
  std::uint64_t sectors_read = 0, sectors_written = 0;  ///< distinct 32-byte sectors, each once per launch

  statistics& operator+=(statistics const& other) noexcept;
};

/// Of all launches since `clear_statistics`, of those of one kernel (mangled name), and of the last launch.
[[nodiscard]] statistics total_statistics();
[[nodiscard]] statistics kernel_statistics(std::string const& name);
[[nodiscard]] statistics const& last_launch() noexcept;
[[nodiscard]] std::vector<std::string> launched_kernels();
void clear_statistics();

}  // namespace softgpu
