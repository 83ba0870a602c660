#pragma once

#include <array>

#include "lowrank/core/config.hpp"

namespace lowrank::detail {

/// Sum of x[k] y[k] in eight interleaved sums: a fixed order that vectorises.
[[nodiscard]] inline double dot(double const* x, double const* y, index_t count) noexcept {
  constexpr index_t lanes = 8;
  std::array<double, lanes> sum{};
  index_t k = 0;
  for (; k + lanes <= count; k += lanes)
    for (index_t lane = 0; lane < lanes; ++lane) sum[static_cast<std::size_t>(lane)] += x[k + lane] * y[k + lane];
  double rest = 0;
  for (; k < count; ++k) rest += x[k] * y[k];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7])) + rest;
}

}  // namespace lowrank::detail
