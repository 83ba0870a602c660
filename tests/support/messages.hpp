// What errors say.
#pragma once

#include <string>

// What an expression throws says: the message, or "" if nothing of type Error was thrown.
template <class Error, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (Error const& e) { return e.what(); }
  return "";
}
