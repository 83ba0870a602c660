// A host executor that never says what its memory holds: algorithms take the path that they take on a device.
#pragma once

#include "support/executors.hpp"

namespace lowrank_test {

class blind_executor : public lowrank::host_executor {
 public:
  using lowrank::host_executor::host_executor;

  template <class T>
  [[nodiscard]] std::optional<T> peek(T const*) const {
    return std::nullopt;
  }
};

}  // namespace lowrank_test
