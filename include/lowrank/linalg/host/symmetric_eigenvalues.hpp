/// @file
/// Eigenvalues of symmetric fp64 matrices on the host, without their vectors: a ninth of the work.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <tuple>

#include "lowrank/core/buffer.hpp"
#include "lowrank/linalg/eigenvalue_problem.hpp"
#include "lowrank/linalg/host/detail/tridiagonal_eigenvalues.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"

namespace lowrank {

namespace detail {

/// Doubles that one problem is worked on with; LAPACK's blocked reduction takes 16 vectors.
[[nodiscard]] constexpr index_t eigenvalue_doubles(index_t n) noexcept { return (5 + 16) * n; }
[[nodiscard]] constexpr tridiagonal_workspace eigenvalue_workspace(double* memory, index_t n) noexcept {
  return {n, memory, memory + n, memory + 2 * n, memory + 3 * n, memory + 4 * n};
}

/// Eigenvalues of one matrix; `reduce(c, work)` makes it tridiagonal and returns whether it could.
template <class Reduce>
void solve(host_executor& exec, eigenvalue_problem& one, double* memory, Reduce const& reduce) {
  index_t const n = one.c.rows;
  auto const work = eigenvalue_workspace(memory, n);
  std::uint64_t largest = 0;  // bits of positive numbers are ordered as they are, NaN above all
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      largest = std::max(largest, std::bit_cast<std::uint64_t>(one.c(i, j)) & 0x7FFF'FFFF'FFFF'FFFFU);
  one.failed = is_finite(std::bit_cast<double>(largest)) ? 0 : 1;
  if (one.failed != 0) return;
  if (largest == 0) return static_cast<void>(std::fill_n(one.values, n, 0.0));
  int exponent = 0;
  std::ignore = std::frexp(std::bit_cast<double>(largest), &exponent);
  exponent = std::abs(exponent) <= 30 ? 0 : std::clamp(exponent, -1000, 1000);  // only what squares could not take
  double const down = std::ldexp(1.0, -exponent), up = std::ldexp(1.0, exponent);
  if (exponent != 0)
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) one.c(i, j) *= down;
  if (!reduce(one.c, work)) {
    one.failed = 1;
    return;
  }
  tridiagonal_eigenvalues(exec, work, one.values);
  for (index_t k = 0; k < n; ++k) one.values[k] *= up;
}

/// All problems, the largest first; several at a time, or all threads on one.
template <class Reduce>
void solve_all(host_executor& exec, std::span<eigenvalue_problem> problems, Reduce const& reduce) {
  std::vector<index_t> begin(problems.size() + 1), order(problems.size());
  for (std::size_t i = 0; i < problems.size(); ++i) {
    auto const c = problems[i].c;
    require<shape_error>(c.rows == c.cols, "symmetric_eigenvalues", "needs square matrices, got ", c.shape());
    require<shape_error>(c.col_stride == 1 || c.cols <= 1, "symmetric_eigenvalues",
                         "needs neighbouring columns, got stride ", c.col_stride);
    order[i] = static_cast<index_t>(i);
    begin[i + 1] = begin[i] + eigenvalue_doubles(c.rows);
  }
  std::ranges::stable_sort(order, std::greater<>{},
                           [&](index_t i) { return problems[static_cast<std::size_t>(i)].c.rows; });
  buffer<double> memory{begin.back()};
  exec.parallel(static_cast<index_t>(order.size()), [&](index_t number) {
    auto const i = static_cast<std::size_t>(order[static_cast<std::size_t>(number)]);
    solve(exec, problems[i], memory.data() + begin[i], reduce);
  });
}

}  // namespace detail

/// Eigenvalues of several symmetric matrices, descending, each to a few n eps of the largest in magnitude (eps of fp64). The
/// matrices are used up. A problem with NaN or Inf is marked as failed, its values hold nothing useful; the others are solved.
/// Shapes: C n x n, neighbouring columns; values n.  Requires: both triangles of C.
/// Cost: 4 n³ / 3 + 120 n² flops each; allocates 21 n doubles each. Bits do not depend on the number of threads.
/// Throws: shape_error.
/// Reference: Golub, Van Loan, "Matrix Computations" (4th ed.), 8.3.1 and 8.4.1.
inline void symmetric_eigenvalues(host_executor& exec, std::span<eigenvalue_problem> problems) {
  detail::solve_all(exec, problems, [&](matrix_view<double> c, detail::tridiagonal_workspace const& work) {
    detail::tridiagonalize(exec, c, work);
    return true;
  });
}

}  // namespace lowrank
