// Who touched which byte, and was it ordered: global memory between the blocks of a launch, shared memory between the
// threads of a block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "memory.hpp"
#include "ptx/kernel.hpp"

namespace softgpu {

enum class access : std::uint8_t { read, write, atomic };

/// Order between the blocks of a launch. A block's life is cut into eras by its fences; eras are numbered through the
/// whole program. What a block wrote up to a fence is released by its next strong write and acquired by whoever reads
/// that word strongly. Blocks run one after another, so the first reader and the last writer of a granule say enough.
/// Which thread of a block fenced is not looked at, and neither is what threads of one block do to each other here.
class launch_order {
 public:
  void begin_launch(std::size_t blocks);
  void begin_block();
  void fence() noexcept;
  void release(std::uint64_t address);  ///< a strong write
  void acquire(std::uint64_t address);  ///< a strong read, or an atomic operation

  /// Takes note of an access; the first byte offset that another block used in conflict with it, or -1.
  [[nodiscard]] std::ptrdiff_t touch(allocation& a, std::uint64_t offset, std::uint64_t bytes, access how, bool strong);
  /// Distinct 32-byte sectors.
  void count_sectors(allocation& a, std::uint64_t offset, std::uint64_t bytes, access how);
  [[nodiscard]] std::uint64_t sectors_read() const noexcept { return sectors_read_; }
  [[nodiscard]] std::uint64_t sectors_written() const noexcept { return sectors_written_; }

 private:
  using block_set = std::vector<std::uint64_t>;
  [[nodiscard]] bool is_ordered(std::uint32_t era) const noexcept;
  [[nodiscard]] bool earlier_block(std::uint32_t era) const noexcept {
    return era - launch_first_ < block_first_ - launch_first_;
  }
  void shadow(allocation& a, std::uint64_t offset, std::uint64_t bytes) const;

  std::uint32_t era_ = 0, launch_first_ = 1, block_first_ = 1, launch_number_ = 0;
  std::size_t blocks_ = 0;
  std::vector<std::uint32_t> first_era_;  ///< of each block so far
  std::vector<std::uint32_t> released_;   ///< last era before a fence, of each block so far; 0 if it never fenced
  block_set acquired_;
  bool any_fence_ = false;
  std::unordered_map<std::uint64_t, block_set> released_at_;  ///< by address
  std::uint64_t sectors_read_ = 0, sectors_written_ = 0;
};

/// Order between the threads of a block: epochs end with barriers, and with bar.warp.sync within one warp.
class shared_order {
 public:
  void resize(std::size_t bytes);
  void next_epoch() noexcept { ++epoch_; }

  struct conflict {
    int thread = -1;  ///< the other one; -1: none
    std::uint32_t byte = 0;
  };
  conflict touch(std::uint32_t byte, std::uint32_t bytes, int thread, std::uint32_t warp_epoch, access how);

 private:
  struct use {
    std::uint32_t epoch = 0, warp_epoch = 0;
    std::int32_t thread = -1;
  };
  struct granule {
    use writer, first_reader, last_reader, atomic;
  };
  void use_bytes();

  std::uint32_t epoch_ = 1;
  unsigned shift_ = 2;
  std::size_t bytes_ = 0;
  std::vector<granule> granules_;
};

// Here, because it is called for each lane of each access.
inline shared_order::conflict shared_order::touch(std::uint32_t byte, std::uint32_t bytes, int thread,
                                                  std::uint32_t warp_epoch, access how) {
  if (shift_ != 0 && ((byte | bytes) & 3) != 0) use_bytes();
  auto const concurrent = [&](use const& u) {
    return u.epoch == epoch_ && u.thread != thread && !(u.thread / 32 == thread / 32 && u.warp_epoch != warp_epoch);
  };
  use const now{epoch_, warp_epoch, thread};
  for (std::uint32_t n = byte >> shift_; n <= (byte + bytes - 1) >> shift_; ++n) {
    granule& g = granules_[n];
    use const* other = nullptr;
    if (concurrent(g.writer)) other = &g.writer;
    if (how != access::atomic && concurrent(g.atomic)) other = &g.atomic;
    if (how != access::read) {
      if (concurrent(g.first_reader)) other = &g.first_reader;
      if (concurrent(g.last_reader)) other = &g.last_reader;
    }
    if (other) {
      conflict const found{other->thread, n << shift_};
      g = {};
      return found;
    }
    if (how == access::write) g.writer = now;
    else if (how == access::atomic) g.atomic = now;
    else if (g.first_reader.epoch != epoch_ || g.first_reader.thread == thread) g.first_reader = now;
    else g.last_reader = now;
  }
  return {};
}

}  // namespace softgpu
