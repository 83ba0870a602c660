/// @file
/// States between host and device.
#pragma once

#include <span>
#include <type_traits>
#include <vector>

#include "lowrank/core/cuda/executor.cuh"
#include "lowrank/core/visit.hpp"

namespace lowrank {

namespace detail {

/// What `visit_state` names, type and space forgotten.
struct visited_memory {
  std::string name;
  void* data;
  std::size_t bytes;
  bool buffered;  ///< a buffer or a matrix of the state's space, and not a number, which is on the host always
};

template <visitable State>
[[nodiscard]] std::vector<visited_memory> memory_of(State& state) {
  std::vector<visited_memory> out;
  visit_state(state, [&out]<class V>(std::string_view name, V&& visited) {
    auto& value = without_identity(visited);
    using value_type = std::remove_cvref_t<decltype(value)>;
    if constexpr (state_memory<value_type>)
      out.push_back({std::string{name}, value.data(), static_cast<std::size_t>(value.bytes()), true});
    else out.push_back({std::string{name}, &value, sizeof value, false});
  });
  return out;
}
inline void move_memory(cuda_executor const& exec, std::vector<visited_memory> const& from,
                        std::vector<visited_memory> const& to, cudaMemcpyKind kind) {
  require<state_error>(from.size() == to.size(), "copy_state", "needs states of one kind, got ", from.size(), " and ",
                       to.size(), " entries");
  for (std::size_t i = 0; i < from.size(); ++i)
    require<state_error>(from[i].name == to[i].name && from[i].bytes == to[i].bytes, "copy_state", "\"", from[i].name,
                         "\" has ", from[i].bytes, " bytes, \"", to[i].name, "\" has ", to[i].bytes);
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (from[i].bytes == 0) continue;
    auto const way = from[i].buffered ? kind : cudaMemcpyHostToHost;
    check_cuda(cudaMemcpyAsync(to[i].data, from[i].data, from[i].bytes, way, exec.stream()), "cudaMemcpyAsync");
  }
  exec.synchronize();
}

}  // namespace detail

/// Memory of the device to the host, and back.  Synchronises.  Throws: cuda_error.
inline void copy_to_host(cuda_executor const& exec, void const* from, std::span<std::byte> to) {
  detail::check_cuda(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, exec.stream()),
                     "cudaMemcpyAsync");
  exec.synchronize();
}
inline void copy_to_device(cuda_executor const& exec, std::span<std::byte const> from, void* to) {
  detail::check_cuda(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, exec.stream()),
                     "cudaMemcpyAsync");
  exec.synchronize();
}

/// Makes `to`, born with the same settings and shape, what `from` is: to continue on a device what a host began, or to
/// restore what was saved.  Synchronises.  Throws: state_error where the states are not alike; cuda_error.
template <visitable Host, visitable Device>
void copy_to_device(cuda_executor const& exec, Host const& from, Device& to) {
  detail::move_memory(exec, detail::memory_of(const_cast<Host&>(from)), detail::memory_of(to), cudaMemcpyHostToDevice);
}
/// The other way, to save a state or to look at it.
template <visitable Device, visitable Host>
void copy_to_host(cuda_executor const& exec, Device const& from, Host& to) {
  detail::move_memory(exec, detail::memory_of(const_cast<Device&>(from)), detail::memory_of(to),
                      cudaMemcpyDeviceToHost);
}

}  // namespace lowrank
