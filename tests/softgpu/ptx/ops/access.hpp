// From the address of a lane to checked memory.
#pragma once

#include "exec/warp.hpp"

namespace softgpu {

[[nodiscard]] inline std::uint64_t address_of(warp const& w, instruction const& i, int lane) noexcept {
  std::uint64_t const base = (i.wide & 2) != 0 ? w.slot<std::uint64_t>(i.a)[lane] : w.slot<std::uint32_t>(i.a)[lane];
  return base + static_cast<std::uint64_t>(i.offset);
}

/// One access of one lane, resolved: space, bounds, validity, races. Null after a fault. `last` saves searching.
char* resolve(warp& w, instruction const& i, std::uint64_t a, std::uint32_t bytes, int lane, access how,
              allocation*& last);

/// The same for 32 lanes side by side in global or shared memory; null, with nothing reported, if they are not, or if
/// somebody would have to look closer.
char* resolve_row(warp& w, instruction const& i, std::uint64_t const* a, std::uint32_t bytes, lane_mask m, access how);

/// The same for one place that all lanes of the mask read.
char* resolve_broadcast(warp& w, instruction const& i, std::uint64_t a, std::uint32_t bytes, lane_mask m,
                        allocation*& last);

}  // namespace softgpu
