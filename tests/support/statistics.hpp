// What a layer has seen, for tests of what follows from it.
#pragma once

#include "lowrank/spectrum/statistics.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

/// Of the rows of X.
inline lowrank::activation_statistics statistics_of(lowrank::host_executor& exec, lowrank::matrix_view<float const> x) {
  lowrank::activation_statistics out{x.cols};
  exec.reserve(lowrank::activation_statistics::workspace_bytes(x.cols));
  out.add(exec, x);
  return out;
}
/// Of features that have a mean, differ in scale, and are alike where they are neighbours.
inline lowrank::activation_statistics statistics_of(lowrank::host_executor& exec, lowrank::index_t features,
                                                    lowrank::index_t rows, std::uint64_t seed) {
  auto x = random_matrix({rows, features}, seed);
  for (lowrank::index_t t = 0; t < rows; ++t)
    for (lowrank::index_t j = 1; j < features; ++j)
      x(t, j) = (0.6F * x(t, j) + 0.5F * x(t, j - 1) + 0.2F) * (j % 4 == 0 ? 2.0F : 1.0F);
  return statistics_of(exec, x.view());
}

}  // namespace lowrank_test
