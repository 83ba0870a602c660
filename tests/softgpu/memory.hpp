// Device memory: an inaccessible address window that the program is given, a readable alias behind it, and a shadow for
// each allocation. A host dereference of a device pointer faults at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace softgpu {

/// Zeroed pages that cost nothing until they are touched: shadows are larger than what they shadow.
template <class T>
class lazy_array {
 public:
  void resize(std::size_t count);
  void clear() noexcept {
    data_.reset();
    size_ = 0;
  }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] T* data() const noexcept { return data_.get(); }
  T& operator[](std::size_t n) const noexcept { return data_.get()[n]; }

 private:
  struct release {
    void operator()(void* p) const noexcept;
  };
  std::unique_ptr<T, release> data_;
  std::size_t size_ = 0;
};

enum class life : std::uint8_t { reserved, live, freed };
enum class owner : std::uint8_t { program, module };
/// What a byte may be used for. Forbidden bytes lie between the parts of an arena.
enum class byte_state : std::uint8_t { unwritten, written, forbidden };

struct allocation {
  std::uint64_t base = 0, size = 0;
  life state = life::live;
  owner belongs_to = owner::program;
  bool has_forbidden = false;
  std::vector<byte_state> bytes;

  // Shadows of kernel accesses, made by the first of them; what the numbers mean is known to exec/race.hpp.
  unsigned granule_shift = 2;  ///< kept for words until somebody uses less than a word
  lazy_array<std::uint32_t> writer, reader, strong;
  lazy_array<std::uint32_t> sector_read, sector_written;  ///< launch that last touched each 32 bytes
};

class device_memory {
 public:
  static constexpr std::uint64_t window = std::uint64_t{1} << 37, gap = 512;

  device_memory();

  /// 0 when the window is full. Addresses are never reused: stale pointers stay stale. A `reserved` allocation must be
  /// made live in stream order before it is used.
  std::uint64_t allocate(std::uint64_t bytes, life state = life::live, owner belongs_to = owner::program);
  void set_live(std::uint64_t p);
  /// False, and a report, if nothing live starts at p.
  bool release(std::uint64_t p, char const* who);

  [[nodiscard]] bool contains(void const* p) const noexcept {
    return reinterpret_cast<std::uint64_t>(p) - base_ < window;
  }
  /// The allocation that starts at or before a.
  [[nodiscard]] allocation* find(std::uint64_t a);
  [[nodiscard]] char* real(std::uint64_t a) const noexcept { return alias_ + (a - base_); }

  /// Why [a, a + n) may not be used; `kind` is null if it may: it lies in one live allocation and no byte is forbidden.
  struct problem {
    char const* kind = nullptr;
    std::string what;
  };
  [[nodiscard]] problem problem_at(std::uint64_t a, std::uint64_t n);
  /// The bytes behind [a, a + n) if they lie in one live allocation and none is forbidden, else a report and null.
  char* check(std::uint64_t a, std::uint64_t n, char const* what, allocation** found = nullptr);
  /// False, and a report, if a byte of [a, a + n) was never written. The range has passed `check`.
  bool require_written(std::uint64_t a, std::uint64_t n, char const* what);
  /// Ranges that have passed `check`.
  void mark(std::uint64_t a, std::uint64_t n, byte_state state = byte_state::written);
  void copy(std::uint64_t to, std::uint64_t from, std::uint64_t n);  ///< bytes and what is known of them

  /// For arenas: an access to forbidden bytes is reported; allowed bytes are unwritten again.
  void forbid(std::uint64_t a, std::uint64_t n);
  void allow(std::uint64_t a, std::uint64_t n);

  [[nodiscard]] int leaks() const noexcept;
  [[nodiscard]] std::uint64_t live_bytes() const noexcept;

 private:
  std::uint64_t base_, next_;
  char* alias_;
  std::map<std::uint64_t, allocation> allocations_;
  allocation* hit_ = nullptr;
};

/// The one device. Never destroyed: kernels and reports outlive static objects.
device_memory& memory();

}  // namespace softgpu
