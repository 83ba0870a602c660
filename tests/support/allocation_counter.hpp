// Counts what is allocated on the heap while a scope lives, on any thread, by anyone in the process.
#pragma once

namespace lowrank_test {

class allocation_counter {
 public:
  allocation_counter() noexcept;
  allocation_counter(allocation_counter const&) = delete;
  allocation_counter& operator=(allocation_counter const&) = delete;
  ~allocation_counter();

  /// Allocations since this scope began.
  [[nodiscard]] long count() const noexcept;
  /// Bytes of the aligned ones among them, which buffers are: each rounded up to its alignment.
  [[nodiscard]] long aligned_bytes() const noexcept;
  /// False in sanitizer builds, where the allocator is not ours to watch: count() stays 0 there.
  [[nodiscard]] static bool watches() noexcept;

 private:
  long before_, bytes_before_;
};

}  // namespace lowrank_test
