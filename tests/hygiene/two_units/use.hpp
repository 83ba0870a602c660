// What each unit does with the library. Unnamed namespace: every unit has its own copy, compiled with its own options,
// while the library's inline functions and templates are merged by the linker.
#pragma once

#include <array>
#include <limits>
#include <stdexcept>

#include "lowrank/lowrank.hpp"

struct findings {
  float product;
  bool nan_is_finite, infinity_is_finite;
};

namespace {

findings use() {
  lowrank::host_executor exec{{.threads = 2}};
  std::array<float, 6> const a{1, 2, 3, 4, 5, 6};
  std::array<float, 4> c{};
  auto const left = lowrank::row_major(a.data(), {2, 3});
  lowrank::multiply(exec, 1.0F, left, left.t(), 0.0F, lowrank::row_major(c.data(), {2, 2}));
  try {
    lowrank::multiply(exec, 1.0F, left, left, 0.0F, lowrank::row_major(c.data(), {2, 2}));
    throw std::logic_error{"a product of 2x3 and 2x3 was accepted"};
  } catch (lowrank::shape_error const&) {}
  // volatile: the value must reach the library at run time, also where the compiler may assume that it cannot exist.
  float const volatile nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  return {c[0] + c[1] + c[2] + c[3], lowrank::is_finite(nan), lowrank::is_finite(infinity)};
}

}  // namespace
