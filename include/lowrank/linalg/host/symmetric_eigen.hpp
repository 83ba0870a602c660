/// @file
/// Eigenvectors of a symmetric fp64 matrix on the host: Householder tridiagonalisation, then implicit QL.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/linalg/detail/eigen_workspace.hpp"
#include "lowrank/linalg/host/detail/dot.hpp"

namespace lowrank {

namespace detail {

/// T = Qᵀ C Q, Q = H_0 H_1 ..., H_k = I - tau_k v vᵀ with v left in row k of C, columns k+1 and up. The rank-2 update of one
/// step and the product of the next go over C together, because both only wait for memory.
inline void tridiagonalize(host_executor& exec, matrix_view<double> c, tridiagonal_workspace const& work) {
  index_t const n = c.rows, group = 32;
  double *now = work.product, *before = work.spare;
  double const* v_before = nullptr;
  auto const update_row = [&](index_t i, index_t begin) {
    if (v_before == nullptr) return;
    double* const row = &c(i, 0);
    double const vi = v_before[i], wi = before[i];
    for (index_t j = begin; j < n; ++j) row[j] -= vi * before[j] + wi * v_before[j];
  };
  for (index_t k = 0; k < n; ++k) {
    update_row(k, k);
    double* const v = &c(k, 0);
    work.diagonal[k] = v[k];
    work.tau[k] = 0;
    work.coupling[k] = 0;
    if (k + 1 == n) return;
    index_t const begin = k + 1, length = n - begin;
    double const first = v[begin], tail = dot(v + begin + 1, v + begin + 1, length - 1);
    bool const reflects = tail > 1e-290;  // anything smaller is nothing next to the largest element, which is about 1
    double tau = 0;
    if (reflects) {
      double const norm = std::sqrt(first * first + tail);
      work.coupling[k] = first > 0 ? -norm : norm;
      tau = 1.0 / (norm * (norm + std::abs(first)));
      v[begin] = first - work.coupling[k];
    } else {
      work.coupling[k] = first;
    }
    work.tau[k] = tau;
    exec.parallel((length + group - 1) / group, [&](index_t number) {
      for (index_t i = begin + number * group; i < std::min(n, begin + (number + 1) * group); ++i) {
        update_row(i, begin);
        if (reflects) now[i] = tau * dot(&c(i, begin), v + begin, length);
      }
    });
    v_before = nullptr;
    if (!reflects) continue;
    double const half = 0.5 * tau * dot(now + begin, v + begin, length);
    for (index_t j = begin; j < n; ++j) now[j] -= half * v[j];
    v_before = v;
    std::swap(now, before);
  }
}

/// One panel of Qᵀ: columns [16 number, 16 number + 16) of the identity through all reflectors.
inline void start_panel(matrix_view<double const> c, eigen_workspace const& work, index_t number) {
  index_t const n = work.n;
  double* const z = work.panel(number);
  std::fill_n(z, n * eigen_panel, 0.0);
  for (index_t lane = 0; lane < eigen_panel && number * eigen_panel + lane < n; ++lane)
    z[(number * eigen_panel + lane) * eigen_panel + lane] = 1;
  for (index_t k = 0; k + 1 < n; ++k) {
    if (work.tau[k] == 0) continue;
    double const* const v = &c(k, 0);
    std::array<double, eigen_panel> sum{};
    for (index_t i = k + 1; i < n; ++i)
      for (index_t lane = 0; lane < eigen_panel; ++lane)
        sum[static_cast<std::size_t>(lane)] += v[i] * z[i * eigen_panel + lane];
    for (auto& s : sum) s *= work.tau[k];
    for (index_t i = k + 1; i < n; ++i)
      for (index_t lane = 0; lane < eigen_panel; ++lane)
        z[i * eigen_panel + lane] -= v[i] * sum[static_cast<std::size_t>(lane)];
  }
}

/// A chase from row `high` up to row `low`; its pairs start at `pairs`.
struct ql_sweep {
  index_t low, high;
  double const* pairs;
};

/// The rotations of one sweep on one panel. A row is in registers from the rotation that makes it to the one that ends it.
inline void rotate_panel(double* z, ql_sweep const& sweep) {
  std::array<double, eigen_panel> carried{};
  std::copy_n(z + sweep.high * eigen_panel, eigen_panel, carried.begin());
  double const* pair = sweep.pairs;
  for (index_t i = sweep.high - 1; i >= sweep.low; --i, pair += 2) {
    double const cosine = pair[0], sine = pair[1];
    double* const row = z + i * eigen_panel;
    for (std::size_t lane = 0; lane < eigen_panel; ++lane) {
      double const upper = row[lane];
      row[lane + eigen_panel] = sine * upper + cosine * carried[lane];
      carried[lane] = cosine * upper - sine * carried[lane];
    }
  }
  std::copy_n(carried.begin(), eigen_panel, z + sweep.low * eigen_panel);
}

/// Eigenvalues of the tridiagonal matrix into `diagonal`; its eigenvectors are applied to the panels in batches of sweeps,
/// panel by panel, so that a panel stays in the cache. Returns whether it converged.
[[nodiscard]] inline bool diagonalize(host_executor& exec, eigen_workspace& work) {
  index_t const n = work.n;
  double *const d = work.diagonal, *const e = work.coupling;
  constexpr std::size_t batch = 64;
  std::array<ql_sweep, batch> sweeps{};
  std::size_t pending = 0;
  double* next = work.rotations;
  auto const apply = [&] {
    exec.parallel(eigen_workspace::panel_count(n), [&](index_t number) {
      for (std::size_t s = 0; s < pending; ++s) rotate_panel(work.panel(number), sweeps[s]);
    });
    pending = 0;
    next = work.rotations;
  };
  double norm = 0;
  for (index_t i = 0; i < n; ++i) norm = std::max(norm, std::abs(d[i]) + std::abs(e[i]));
  constexpr double eps = std::numeric_limits<double>::epsilon();
  // Against its neighbours, below which rounding makes couplings anew, and against all of T, so that the noise of a rank
  // deficient matrix is not diagonalised to the last bit.
  auto const couples = [&](index_t i) {
    return std::abs(e[i]) > eps * std::max(std::abs(d[i]) + std::abs(d[i + 1]), norm / 8);
  };

  for (index_t low = 0; low < n; ++low) {
    for (int attempt = 0;; ++attempt) {
      index_t high = low;
      while (high + 1 < n && couples(high)) ++high;
      if (high == low) break;
      if (attempt == 80) return false;
      if (pending == batch || (next - work.rotations) + 2 * n > eigen_workspace::rotation_capacity(n)) apply();
      // Wilkinson's shift from the upper corner, then the bulge is chased from the bottom up.
      double const half_gap = (d[low + 1] - d[low]) / (2 * e[low]);
      double const root = std::sqrt(half_gap * half_gap + 1);
      double const shift = d[low] - e[low] / (half_gap + (half_gap < 0 ? -root : root));
      double bulge = d[high] - shift, sine = 1, cosine = 1, carried = 0;
      sweeps[pending] = {low, high, next};
      index_t i = high - 1;
      for (; i >= low; --i) {
        double const far = sine * e[i], near = cosine * e[i];
        double const length = std::sqrt(far * far + bulge * bulge);
        e[i + 1] = length;
        if (length == 0) break;
        sine = far / length;
        cosine = bulge / length;
        double const moved = d[i + 1] - carried;
        double const turn = (d[i] - moved) * sine + 2 * cosine * near;
        carried = sine * turn;
        d[i + 1] = moved + carried;
        bulge = cosine * turn - near;
        *next++ = cosine;
        *next++ = sine;
      }
      if (i >= low) {  // the matrix fell apart under way: what was rotated stays, the rest is met again
        d[i + 1] -= carried;
        sweeps[pending].low = i + 1;
      } else {
        d[low] -= carried;
        e[low] = bulge;
      }
      e[high] = 0;
      pending += sweeps[pending].low < high ? 1 : 0;
    }
  }
  apply();
  return true;
}

}  // namespace detail

/// C becomes its eigenvectors, as columns; values[k] the eigenvalues, descending. Only the lower triangle is read.
/// *failed = 1 when C has NaN or Inf or the iteration did not converge: then C and values hold nothing useful. Else 0.
/// Shapes: C n x n, neighbouring columns; values n.  Ensures: orthonormal to n eps, residual of n eps ‖C‖ (eps of fp64).
/// Cost: about 9 n³ flops; workspace symmetric_eigen_bytes(n). Bits do not depend on the number of threads.
/// Throws: shape_error.
/// Reference: Golub, Van Loan, "Matrix Computations" (4th ed.), 8.3.1 and 8.3.3 (in its QL form).
inline void symmetric_eigen(host_executor& exec, matrix_view<double> c, double* values, std::int32_t* failed) {
  require<shape_error>(c.rows == c.cols, "symmetric_eigen", "needs a square matrix, got ", c.shape());
  require<shape_error>(c.col_stride == 1 || c.cols <= 1, "symmetric_eigen", "needs neighbouring columns, got stride ",
                       c.col_stride);
  *failed = 0;
  index_t const n = c.rows;
  if (n == 0) return;
  scratch_scope const scope{exec};
  detail::eigen_workspace work{exec.arena().take<double>(detail::eigen_workspace::doubles(n)), n};

  std::uint64_t largest = 0;
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j <= i; ++j)
      largest = std::max(largest, std::bit_cast<std::uint64_t>(c(i, j)) & 0x7FFF'FFFF'FFFF'FFFFU);
  if (!is_finite(std::bit_cast<double>(largest))) {
    *failed = 1;
    return;
  }
  int exponent = 0;
  std::ignore = std::frexp(std::bit_cast<double>(largest), &exponent);
  exponent = std::clamp(exponent, -1000, 1000);
  double const down = std::ldexp(1.0, -exponent), up = std::ldexp(1.0, exponent);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j <= i; ++j) c(j, i) = c(i, j) *= down;

  detail::tridiagonalize(exec, c, work);
  exec.parallel(detail::eigen_workspace::panel_count(n), [&](index_t number) { detail::start_panel(c, work, number); });
  if (!detail::diagonalize(exec, work)) {
    *failed = 1;
    return;
  }
  for (index_t k = 0; k < n; ++k) work.order[k] = k;
  std::sort(work.order, work.order + n, [&](index_t a, index_t b) {
    return work.diagonal[a] != work.diagonal[b] ? work.diagonal[a] > work.diagonal[b] : a < b;
  });
  for (index_t k = 0; k < n; ++k) values[k] = up * work.diagonal[work.order[k]];
  exec.parallel(detail::eigen_workspace::panel_count(n), [&](index_t number) {
    double const* const z = work.panel(number);
    for (index_t i = number * detail::eigen_panel; i < std::min(n, (number + 1) * detail::eigen_panel); ++i)
      for (index_t k = 0; k < n; ++k) c(i, k) = z[work.order[k] * detail::eigen_panel + i % detail::eigen_panel];
  });
}

}  // namespace lowrank
