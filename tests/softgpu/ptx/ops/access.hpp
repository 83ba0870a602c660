// From the address of a lane to checked memory.
#pragma once

#include "exec/warp.hpp"

namespace softgpu {

[[nodiscard]] std::uint64_t address_of(warp const& w, instruction const& i, int lane) noexcept;

/// One access of one lane, resolved: space, bounds, validity, races. Null after a fault. `last` saves searching.
char* resolve(warp& w, instruction const& i, std::uint64_t a, std::uint32_t bytes, int lane, access how, allocation*& last);

/// The same for 32 lanes side by side in global memory; null, with nothing reported, if they are not, or if somebody
/// would have to look closer.
char* resolve_row(warp& w, instruction const& i, std::uint64_t const* a, std::uint32_t bytes, lane_mask m, access how);

}  // namespace softgpu
