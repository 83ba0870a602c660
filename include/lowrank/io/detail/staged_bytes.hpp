/// @file
/// Memory that the host does not reach, on its way to and from a file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/visit.hpp"

namespace lowrank::detail {

/// Packed memory of an executor, which `copy_to_host(exec, from, to)` and `copy_to_device(exec, from, to)` reach, with spans
/// of bytes on the host. A piece at a time is on the host, because a state may be larger than its memory.
template <executor E>
struct staged_bytes {
  E& exec;
  void const* data;
  index_t bytes;

  /// f(bytes) with all of them, in order.
  template <class F>
  void for_each_piece(F const& f) const {
    walk([&](std::byte* at, index_t, std::span<std::byte> piece) {
      copy_to_host(exec, at, piece);
      f(std::span<std::byte const>{piece});
    });
  }
  /// f(offset, bytes) fills all of them, in order. Requires: made of memory that may change.
  template <class F>
  void fill_pieces(F const& f) const {
    walk([&](std::byte* at, index_t begin, std::span<std::byte> piece) {
      f(begin, piece);
      copy_to_device(exec, std::span<std::byte const>{piece}, at);
    });
  }

 private:
  static constexpr index_t most = index_t{1} << 16;

  template <class F>
  void walk(F const& f) const {
    std::vector<std::byte> memory(static_cast<std::size_t>(std::min(bytes, most)));
    auto* const first = static_cast<std::byte*>(const_cast<void*>(data));
    for (index_t begin = 0; begin < bytes; begin += most)
      f(first + begin, begin, std::span{memory}.first(static_cast<std::size_t>(std::min(most, bytes - begin))));
  }
};

/// Of a buffer its size, of a matrix its rows and columns.
template <state_memory V>
[[nodiscard]] std::vector<index_t> shape_of_memory(V const& value) {
  if constexpr (requires { value.shape(); }) return {value.shape().rows, value.shape().cols};
  else return {value.size()};
}

}  // namespace lowrank::detail
