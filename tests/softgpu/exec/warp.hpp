// A warp of a running block, and the block it belongs to, as the handlers of instructions see them.
#pragma once

#include <array>
#include <climits>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "exec/launch.hpp"
#include "exec/race.hpp"
#include "ptx/kernel.hpp"

namespace softgpu {

/// Where the spaces other than global memory lie among generic addresses.
constexpr std::uint64_t shared_window = std::uint64_t{1} << 56, local_window = std::uint64_t{2} << 56,
                        param_window = std::uint64_t{3} << 56;

/// One of the 16 barriers of a block.
struct barrier {
  std::uint32_t arrived = 0;   ///< threads, warps counted as 32
  std::uint32_t expected = 0;  ///< 0: all warps that still run
  std::uint32_t voters = 0, votes = 0;
};

struct block {
  kernel const* k = nullptr;
  launch const* l = nullptr;
  launch_order* order = nullptr;
  statistics* counts = nullptr;
  std::uint32_t index = 0, live_warps = 0;
  std::vector<char> shared;
  std::vector<byte_state> shared_bytes;
  shared_order shared_uses;
  std::array<barrier, 16> barriers;
  std::set<instruction const*> blamed;  ///< reported once in a launch: a race in a loop is one mistake
  bool faulted = false;
};

/// cp.async: read when issued, written when waited for.
struct async_copy {
  std::uint32_t group, shared_byte, bytes;
  int lane;
  std::array<char, 16> data;
};

struct warp {
  char* file = nullptr;  ///< registers
  block* in = nullptr;
  std::uint32_t id = 0, sync_epoch = 0;
  lane_mask alive = 0, active = 0, waiting = 0, carry = 0;
  int pc = 0, next_pc = INT_MAX;
  std::array<int, 32> lane_pc{};
  instruction const* at_barrier = nullptr;  ///< of the waiting lanes
  bool arrived = false;                     ///< the whole warp has been counted at its barrier
  std::uint32_t async_group = 0;
  std::vector<async_copy> async_copies;
  std::vector<char> storage, local;
  std::vector<byte_state> local_bytes;

  template <class T>
  [[nodiscard]] T* slot(std::uint32_t offset) const noexcept {
    return reinterpret_cast<T*>(file + offset);
  }
  [[nodiscard]] lane_mask& predicate(std::uint32_t offset) const noexcept { return *slot<lane_mask>(offset); }
  /// A source predicate; `which` is its bit of instruction::flip.
  [[nodiscard]] lane_mask truth(instruction const& i, std::uint32_t offset, int which) const noexcept {
    return predicate(offset) ^ ((i.flip >> which & 1) != 0 ? ~lane_mask{} : 0);
  }
  void set_predicate(std::uint32_t offset, lane_mask value, lane_mask m) const noexcept {
    lane_mask& p = predicate(offset);
    p = (p & ~m) | (value & m);
  }
};

/// Ends the kernel: the rest could only follow from the first mistake.
void fault(warp& w, char const* kind, instruction const& i, std::string const& more);
/// The kernel goes on.
void complain(warp const& w, char const* kind, instruction const& i, std::string const& more);

/// The handler of what the decoder did not accept: a fault that says why.
void refused(warp& w, instruction const& i, lane_mask m);

/// Runs until every lane waits or has left, or the budget of instructions is used up.
void run(warp& w, std::uint64_t budget);
/// The runnable lanes with the smallest instruction go next.
void pick(warp& w) noexcept;

}  // namespace softgpu
