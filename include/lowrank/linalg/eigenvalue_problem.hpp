/// @file
/// A symmetric matrix whose eigenvalues are asked for, and where they go.
#pragma once

#include <cstdint>

#include "lowrank/core/view.hpp"

namespace lowrank {

/// One of several that `symmetric_eigenvalues(exec, problems)` solves at once: a small one alone leaves threads idle.
struct eigenvalue_problem {
  matrix_view<double> c;  ///< n x n, used up
  double* values{};       ///< n
  std::int32_t failed{};  ///< 1: C had NaN or Inf, or could not be reduced
};

}  // namespace lowrank
