#pragma once

#include <utility>

#include "lowrank/core/scratch.hpp"

namespace lowrank {
namespace detail {

/// Columns of eigenvector components that are worked on together: two AVX-512 registers, and a panel of 500 rows fits L2.
inline constexpr index_t eigen_panel = 16;

/// A tridiagonal matrix and what making it takes.
struct tridiagonal_workspace {
  index_t n{};
  double *diagonal{}, *coupling{}, *tau{}, *product{}, *spare{};  ///< n each
};

/// Where `symmetric_eigen` keeps things, in one block of scratch.
struct eigen_workspace : tridiagonal_workspace {
  double* panels;     ///< transposed eigenvectors, n x 16 each
  double* rotations;  ///< (cosine, sine) pairs of several sweeps
  index_t* order;

  [[nodiscard]] static constexpr index_t rotation_capacity(index_t n) noexcept { return n * n + 8 * n; }
  [[nodiscard]] static constexpr index_t panel_count(index_t n) noexcept { return (n + eigen_panel - 1) / eigen_panel; }
  /// Also as much as LAPACK's divide and conquer asks for, so that scratch does not depend on who computes.
  [[nodiscard]] static constexpr index_t doubles(index_t n) noexcept {
    return panel_count(n) * eigen_panel * n + rotation_capacity(n) + 6 * n + 16;
  }
  eigen_workspace(double* memory, index_t size) noexcept : tridiagonal_workspace{size} {
    auto const next = [&memory](index_t count) { return std::exchange(memory, memory + count); };
    panels = next(panel_count(n) * eigen_panel * n);
    rotations = next(rotation_capacity(n));
    for (auto** vector : {&diagonal, &coupling, &tau, &product, &spare}) *vector = next(n);
    order = reinterpret_cast<index_t*>(next(n));
  }
  [[nodiscard]] double* panel(index_t number) const noexcept { return panels + number * eigen_panel * n; }
};

}  // namespace detail

/// Scratch that `symmetric_eigen` of an n x n matrix takes.
[[nodiscard]] constexpr index_t symmetric_eigen_bytes(index_t n) noexcept {
  return n == 0 ? 0 : scratch_bytes<double>(detail::eigen_workspace::doubles(n));
}

}  // namespace lowrank
