/// @file
/// Errors name the caller, the requirement and the value that broke it.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lowrank/core/config.hpp"

namespace lowrank {

/// Base of everything the library throws.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Shapes, strides or ranks that do not fit together.
struct shape_error : error {
  using error::error;
};
/// A value outside its domain: a NaN learning rate, an unknown option, aliasing operands.
struct argument_error : error {
  using error::error;
};
/// A call made at the wrong time: a step while micro-batches are pending, too little scratch reserved.
struct state_error : error {
  using error::error;
};
/// A file that is truncated, corrupt, hostile, newer than this library, or that cannot be read or written.
struct io_error : error {
  using error::error;
};

namespace detail {

/// One part of a message, its type forgotten, so that a call of `require` costs the compiler next to nothing.
struct message_part {
  void const* value;
  void (*print)(std::ostream&, void const*);
};
template <class T>
[[nodiscard]] message_part part_of(T const& value) noexcept {
  return {&value, [](std::ostream& out, void const* x) { out << *static_cast<T const*>(x); }};
}
template <std::size_t Size>
[[nodiscard]] message_part part_of(char const (&text)[Size]) noexcept {
  return {text, [](std::ostream& out, void const* x) { out << static_cast<char const*>(x); }};
}
LOWRANK_COLD inline std::string join_parts(std::initializer_list<message_part> parts) {
  std::ostringstream out;
  for (auto const& part : parts) part.print(out, part.value);
  return out.str();
}
template <class... Parts>
[[nodiscard]] std::string join(Parts const&... parts) {
  return join_parts({part_of(parts)...});
}
template <class Error>
[[noreturn]] LOWRANK_COLD void refuse(std::initializer_list<message_part> parts) {
  throw Error{join_parts(parts)};
}

}  // namespace detail

/// Throws `Error` with "caller: part part ..." unless `holds`. Parts are only formatted when it throws.
template <class Error = argument_error, class... Parts>
void require(bool holds, std::string_view caller, Parts const&... parts) {
  if (!holds)
    detail::refuse<Error>(
        {detail::part_of("lowrank::"), detail::part_of(caller), detail::part_of(": "), detail::part_of(parts)...});
}

}  // namespace lowrank
