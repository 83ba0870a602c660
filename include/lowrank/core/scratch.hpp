/// @file
/// Temporary memory without allocation: one block, handed out like a stack.
#pragma once

#include <algorithm>
#include <limits>

#include "lowrank/core/buffer.hpp"

namespace lowrank {

/// Bytes a scratch block of `bytes` takes: blocks start on cache lines.
[[nodiscard]] constexpr index_t scratch_size(index_t bytes) noexcept { return (bytes + 63) / 64 * 64; }
/// Scratch bytes of `count` elements of T; what `scratch::take<T>(count)` uses.
template <class T>
[[nodiscard]] constexpr index_t scratch_bytes(index_t count) noexcept {
  return scratch_size(count * index_t{sizeof(T)});
}

/// The arena of an executor. `reserve` before the first use; `take` never allocates.
template <memory_space Space>
class scratch {
 public:
  /// Grows the block to at least `bytes`. Throws state_error while any of it is in use.
  void reserve(index_t bytes) {
    require<shape_error>(bytes >= 0, "scratch::reserve", "bytes must not be negative, got ", bytes);
    if (bytes <= size_) return;
    require<state_error>(used_ == 0, "scratch::reserve", "must not be called while scratch is in use, ", used_,
                         " bytes are");
    storage_ = buffer<std::byte, Space>{};  // first, so that old and new memory are never held at once
    base_ = nullptr, size_ = 0;
    storage_ = buffer<std::byte, Space>{bytes};
    base_ = storage_.data(), size_ = storage_.size();
  }
  /// Uses the caller's memory from now on, which outlives this; `reserve` goes back to memory of its own when that is too
  /// small.  Requires: aligned to 64 bytes.
  void adopt(std::byte* base, index_t bytes) {
    require(reinterpret_cast<std::uintptr_t>(base) % 64 == 0 && bytes >= 0, "scratch::adopt",
            "needs memory aligned to 64 bytes");
    require<state_error>(used_ == 0, "scratch::adopt", "must not be called while scratch is in use, ", used_,
                         " bytes are");
    storage_ = buffer<std::byte, Space>{};
    base_ = base, size_ = bytes;
  }
  /// Uninitialised memory for `count` elements, until the enclosing scope ends.
  /// Throws: state_error when more is asked for than was reserved.
  template <class T>
  [[nodiscard]] T* take(index_t count) {
    constexpr index_t most = std::numeric_limits<index_t>::max() / 2 / index_t{sizeof(T)};
    require<shape_error>(count >= 0 && count <= most, "scratch::take", "count must be in [0, ", most, "], got ", count);
    index_t const bytes = scratch_bytes<T>(count);
    require<state_error>(used_ + bytes <= size_, "scratch::take", "needs ", used_ + bytes,
                         " bytes of scratch, reserved were ", size_,
                         "; call executor.reserve(workspace_bytes(...)) first");
    auto* const block = base_ + used_;
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    return reinterpret_cast<T*>(block);
  }
  [[nodiscard]] index_t reserved() const noexcept { return size_; }
  [[nodiscard]] index_t available() const noexcept { return size_ - used_; }
  /// The most that was ever in use at once, in bytes.
  [[nodiscard]] index_t peak() const noexcept { return peak_; }
  void reset_peak() noexcept { peak_ = used_; }

 private:
  template <memory_space>
  friend class scratch_scope;

  buffer<std::byte, Space> storage_;  ///< empty where the memory is the caller's
  std::byte* base_{};
  index_t size_{}, used_{}, peak_{};
};

/// Gives back, when it ends, everything taken since it began.
template <memory_space Space>
class scratch_scope {
 public:
  explicit scratch_scope(scratch<Space>& arena) noexcept : arena_{arena}, mark_{arena.used_} {}
  template <class Executor>
    requires requires(Executor& exec) { exec.arena(); }
  explicit scratch_scope(Executor& exec) noexcept : scratch_scope{exec.arena()} {}
  scratch_scope(scratch_scope const&) = delete;
  scratch_scope& operator=(scratch_scope const&) = delete;
  ~scratch_scope() { arena_.used_ = mark_; }

 private:
  scratch<Space>& arena_;
  index_t mark_;
};
template <class Executor>
scratch_scope(Executor&) -> scratch_scope<typename Executor::space>;

/// An uninitialised facing matrix from the executor's scratch, laid out as `natural` lays it out.
template <class T = float, class Executor>
[[nodiscard]] auto take_matrix(Executor& exec, extents facing_shape, side s = side::left) {
  return natural<typename Executor::space>(s, exec.arena().template take<T>(facing_shape.size()), facing_shape);
}

}  // namespace lowrank
