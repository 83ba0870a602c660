/// @file
/// Errors name the caller, the requirement and the value that broke it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

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

template <class... Parts>
[[nodiscard]] std::string join(Parts const&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace detail

/// Throws `Error` with "caller: part part ..." unless `holds`. Parts are only formatted when it throws.
template <class Error = argument_error, class... Parts>
void require(bool holds, std::string_view caller, Parts const&... parts) {
  if (!holds) throw Error{detail::join("lowrank::", caller, ": ", parts...)};
}

}  // namespace lowrank
