/// @file
/// State that can be walked: one function names every number a state holds, and saving, counting and comparing follow.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "lowrank/core/buffer.hpp"

namespace lowrank {

/// Wraps a value that says what a state *is* (a shape, a rank, a choice of method) and not what it has become: a saved
/// state whose identity differs is refused instead of loaded.
template <class T>
struct identity_ref {
  T& value;
};
template <class T>
[[nodiscard]] constexpr identity_ref<T> identity(T& value) noexcept {
  return {value};
}

namespace detail {

template <class V>
inline constexpr bool is_identity = false;
template <class T>
inline constexpr bool is_identity<identity_ref<T>> = true;

template <class V>
inline constexpr bool is_state_number =
    (std::is_arithmetic_v<V> && !std::is_same_v<V, long double>) || std::is_enum_v<V>;
template <class V>
inline constexpr bool is_state_array = false;
template <class T, std::size_t N>
inline constexpr bool is_state_array<std::array<T, N>> = is_state_number<T>;

template <class V>
inline constexpr bool is_state_memory = false;
template <class T, memory_space Space>
inline constexpr bool is_state_memory<buffer<T, Space>> = true;
template <class T, memory_space Space>
inline constexpr bool is_state_memory<matrix<T, Space>> = true;

struct any_visitor {
  template <class V>
  void operator()(std::string_view, V&&) const noexcept {}
};

template <class V>
[[nodiscard]] constexpr decltype(auto) without_identity(V&& value) noexcept {
  if constexpr (is_identity<std::remove_cvref_t<V>>) return (value.value);
  else return (value);
}

}  // namespace detail

/// A number, an enumeration or a `std::array` of them.
template <class V>
concept state_scalar = detail::is_state_number<std::remove_cv_t<V>> || detail::is_state_array<std::remove_cv_t<V>>;
/// Memory of a state: a buffer or a matrix, in any space.
template <class V>
concept state_memory = detail::is_state_memory<std::remove_cv_t<V>>;

/// A type with `visit_state(state, f)`, found by lookup, which calls `f(name, value)` once for everything the state
/// holds, always in the same order: `value` is a state_scalar or a state_memory by reference, or `identity(scalar)`.
/// Names are unique within a state; parts of it are walked with `visit_state(part, prefixed(f, "part."))`.
template <class State>
concept visitable = requires(State& state, detail::any_visitor f) {
  visit_state(state, f);
};

/// The visitor `f` with `prefix` before every name. Holds `f` by reference: use it inside one expression.
template <class F>
[[nodiscard]] auto prefixed(F&& f, std::string prefix) {
  return [&f, prefix = std::move(prefix)]<class V>(std::string_view name, V&& value) {
    f(std::string_view{prefix + std::string{name}}, std::forward<V>(value));
  };
}

/// Walks a state that must not change: `f(name, value)` with constant values; `f(name, value, is_identity)`, with a
/// std::bool_constant, for visitors that want to know.
template <visitable State, class F>
void read_state(State const& state, F&& f) {
  // visit_state is written once, for states that may change; reading through it keeps the promise of const.
  visit_state(const_cast<State&>(state), [&f]<class V>(std::string_view name, V&& value) {
    auto const& constant = detail::without_identity(value);
    using value_type = std::remove_cvref_t<decltype(constant)>;
    static_assert(state_scalar<value_type> || state_memory<value_type>,
                  "lowrank: visit_state names numbers, enumerations, std::arrays of them, buffers and matrices");
    using is_identity = std::bool_constant<detail::is_identity<std::remove_cvref_t<V>>>;
    if constexpr (std::is_invocable_v<F&, std::string_view, value_type const&, is_identity>)
      f(name, constant, is_identity{});
    else f(name, constant);
  });
}

/// The memory behind one visited value on the host.
template <class V>
  requires state_scalar<V> || state_memory<V>
[[nodiscard]] auto bytes_behind(V& value) noexcept {
  using byte = std::conditional_t<std::is_const_v<V>, std::byte const, std::byte>;
  if constexpr (state_memory<V>) {
    static_assert(std::is_same_v<typename std::remove_cv_t<V>::space, host_space>,
                  "lowrank: device memory cannot be read here; copy the state to the host first");
    return std::span<byte>{reinterpret_cast<byte*>(value.data()), static_cast<std::size_t>(value.bytes())};
  } else {
    return std::span<byte>{reinterpret_cast<byte*>(&value), sizeof(value)};
  }
}

/// Bytes of all buffers and matrices of a state, in whatever space they are.
template <visitable State>
[[nodiscard]] index_t state_bytes(State const& state) {
  index_t sum = 0;
  read_state(state, [&sum](std::string_view, auto const& value) {
    if constexpr (state_memory<std::remove_cvref_t<decltype(value)>>) sum += value.bytes();
  });
  return sum;
}

/// Whether two states on the host hold the same bits under the same names: NaN equals itself, -0 differs from 0.
template <visitable State>
[[nodiscard]] bool states_equal(State const& a, State const& b) {
  struct item {
    std::string name;
    std::span<std::byte const> bytes;
  };
  auto const items = [](State const& state) {
    std::vector<item> all;
    read_state(state, [&all](std::string_view name, auto const& value) {
      all.push_back({std::string{name}, bytes_behind(value)});
    });
    return all;
  };
  return std::ranges::equal(items(a), items(b), [](item const& x, item const& y) {
    return x.name == y.name && x.bytes.size() == y.bytes.size() &&
           (x.bytes.empty() || std::memcmp(x.bytes.data(), y.bytes.data(), x.bytes.size()) == 0);
  });
}

}  // namespace lowrank
