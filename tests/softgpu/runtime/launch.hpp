// Kernels and device variables that object files have registered, and the launch of a kernel.
#pragma once

#include <cstdint>

namespace softgpu {

/// Device address of a `__device__` variable by the address of its host shadow; 0 when nothing is registered there.
std::uint64_t address_of_variable(void const* host_shadow);

}  // namespace softgpu
