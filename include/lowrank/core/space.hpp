/// @file
/// Where memory lives, as a type: mixing spaces does not compile.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>

#include <concepts>

namespace lowrank {

struct host_space {
  static constexpr char const* name = "host";
};
struct device_space {
  static constexpr char const* name = "device";
};

template <class S>
concept memory_space = std::same_as<S, host_space> || std::same_as<S, device_space>;

/// How a space hands out memory. Specialised once per space; state and buffers ask nobody else.
template <memory_space Space>
struct memory;

/// Host memory: 64-byte aligned (one cache line, one AVX-512 register), from the aligned `operator new`.
template <>
struct memory<host_space> {
  static constexpr std::size_t alignment = 64;

  [[nodiscard]] static void* allocate(std::size_t bytes) { return ::operator new (bytes, std::align_val_t{alignment}); }
  static void release(void* data, std::size_t bytes) noexcept {
    ::operator delete (data, bytes, std::align_val_t{alignment});
  }
  static void zero(void* data, std::size_t bytes) noexcept {
    if (bytes > 0) std::memset(data, 0, bytes);
  }
};

}  // namespace lowrank
