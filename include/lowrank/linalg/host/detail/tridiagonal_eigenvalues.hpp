#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>

#include "lowrank/core/executor.hpp"
#include "lowrank/linalg/detail/eigen_workspace.hpp"

namespace lowrank::detail {

/// Shifts that are tried together: four AVX-512 registers hide the latency of one recurrence.
inline constexpr std::size_t sturm_lanes = 32;
template <class T>
using sturm_row = std::array<T, sturm_lanes>;

/// A shift for each lane, and what is found there.
struct sturm_points {
  sturm_row<double> x;            ///< the shifts
  sturm_row<std::int64_t> below;  ///< eigenvalues below x
  sturm_row<double> value;        ///< det(T - x) = value 2^exponent
  sturm_row<std::int64_t> exponent;
};

/// Fills in the rest for the shifts in `at`, by the signs of the leading minors of T - x. Products instead of quotients: seven
/// cheap instructions a step and no division. Minors are brought back to 1 by powers of two, which is exact, before 16 steps
/// can overflow or, with couplings of at least 1e-18, underflow.
/// Requires: |T| of at most about 1; squares[i] = coupling².
/// Reference: Givens (1954); Golub, Van Loan, "Matrix Computations" (4th ed.), 8.4.1.
inline void evaluate(tridiagonal_workspace const& t, double const* squares, sturm_points& at) noexcept {
  constexpr std::uint64_t exponent_bits = 0x7FF0'0000'0000'0000U, two_to_1023 = 0x7FE0'0000'0000'0000U;
  auto const bits = [](double v) { return std::bit_cast<std::uint64_t>(v); };
  sturm_row<double> before, now, x = at.x;  // copies, which the compiler may keep in registers
  sturm_row<std::int64_t> below, exponent{};
  for (std::size_t l = 0; l < sturm_lanes; ++l) {
    before[l] = 1;
    now[l] = t.diagonal[0] - x[l];
    below[l] = static_cast<std::int64_t>(bits(now[l]) >> 63);
  }
  for (index_t begin = 1; begin < t.n; begin += 16) {
    for (index_t i = begin; i < std::min(t.n, begin + 16); ++i) {
      double const d = t.diagonal[i], square = squares[i - 1];
      for (std::size_t l = 0; l < sturm_lanes; ++l) {
        double const next = (d - x[l]) * now[l] - square * before[l];
        below[l] += static_cast<std::int64_t>((bits(next) ^ bits(now[l])) >> 63);
        before[l] = now[l];
        now[l] = next;
      }
    }
    for (std::size_t l = 0; l < sturm_lanes; ++l) {
      auto const size = std::max(bits(before[l]) & exponent_bits, bits(now[l]) & exponent_bits);
      double const scale = std::bit_cast<double>(two_to_1023 - size);
      before[l] *= scale;
      now[l] *= scale;
      exponent[l] += static_cast<std::int64_t>(size >> 52) - 1023;
    }
  }
  at.below = below;
  at.value = now;
  at.exponent = exponent;
}

/// One eigenvalue and its bracket for each lane: number first + l from below, and last for lanes beyond.
struct sturm_brackets {
  sturm_points low, high;  ///< values at an end that was never evaluated are 0
  index_t first, last;
};

/// Where to look next: in the middle, or where the secant says once the bracket holds a single eigenvalue. An end that stays
/// has its value halved (Illinois), which is done by the caller.
[[nodiscard]] inline double next_shift(sturm_brackets const& b, std::size_t l, double resolution) noexcept {
  double const low = b.low.x[l], high = b.high.x[l], middle = 0.5 * (low + high);
  double const f = std::abs(b.low.value[l]), g = std::abs(b.high.value[l]);
  if (b.high.below[l] - b.low.below[l] != 1 || f == 0 || g == 0) return middle;
  auto const apart = std::clamp<std::int64_t>(b.low.exponent[l] - b.high.exponent[l], -60, 60);
  // f 2^apart against g: one of them may be next to nothing, which only means that the root is next to its end.
  double const weight = f * std::bit_cast<double>(static_cast<std::uint64_t>(1023 + apart) << 52);
  double const x = low + (high - low) * (weight / (weight + g));
  // Not at an end: a step of the resolution closes the bracket from the other side.
  return std::clamp(x, std::min(low + resolution, middle), std::max(high - resolution, middle));
}

/// Closes all brackets to twice the resolution.
inline void close_brackets(tridiagonal_workspace const& t, double const* squares, sturm_brackets& b) noexcept {
  constexpr double resolution = 0x1p-53;
  sturm_points at;
  sturm_row<std::int64_t> stayed{};  // which end did, and how often in a row
  for (int round = 0;; ++round) {
    bool open = false;
    for (std::size_t l = 0; l < sturm_lanes; ++l) {
      double const low = b.low.x[l], high = b.high.x[l];
      open = open || high - low > 2 * resolution;
      // Every fourth step halves, so that no function can make it slow.
      at.x[l] = round % 4 == 3 ? 0.5 * (low + high) : next_shift(b, l, resolution);
    }
    if (!open) return;
    evaluate(t, squares, at);
    for (std::size_t l = 0; l < sturm_lanes; ++l) {
      bool const above = at.below[l] > std::min(b.first + static_cast<index_t>(l), b.last);
      auto& end = above ? b.high : b.low;
      auto& other = above ? b.low : b.high;
      end.x[l] = at.x[l], end.below[l] = at.below[l], end.value[l] = at.value[l], end.exponent[l] = at.exponent[l];
      std::int64_t const side = above ? 1 : -1;
      if (stayed[l] == side) --other.exponent[l];
      stayed[l] = side;
    }
  }
}

/// Eigenvalues of the tridiagonal matrix in `t`, descending; `t` is used up. Each to a few eps of the largest.
/// The same bits for any number of threads. Cost: about 120 n² flops.
inline void tridiagonal_eigenvalues(host_executor& exec, tridiagonal_workspace const& t, double* values) {
  index_t const n = t.n, groups = (n + index_t{sturm_lanes} - 1) / index_t{sturm_lanes};
  if (n == 0) return;
  double norm = 0;
  for (index_t i = 0; i < n; ++i)
    norm =
        std::max(norm, std::abs(t.diagonal[i]) + std::abs(t.coupling[i]) + (i > 0 ? std::abs(t.coupling[i - 1]) : 0));
  if (norm == 0) return static_cast<void>(std::fill_n(values, n, 0.0));
  int exponent = 0;
  static_cast<void>(std::frexp(norm, &exponent));
  double* const squares = t.product;
  for (index_t i = 0; i < n; ++i) {
    t.diagonal[i] = std::ldexp(t.diagonal[i], -exponent);
    double const e = std::ldexp(t.coupling[i], -exponent);
    squares[i] = std::max(e * e, 0x1p-120);
  }
  double const bound = std::ldexp(norm, -exponent) * (1 + 0x1p-50) + 0x1p-50;
  // A grid first, shared by all: it makes ten halvings for the price of one.
  index_t const grid_groups = n / index_t{sturm_lanes}, points = grid_groups * index_t{sturm_lanes};
  double* const below_point = t.tau;
  auto const point = [=](index_t j) {
    return -bound + 2 * bound * static_cast<double>(j + 1) / static_cast<double>(points + 1);
  };
  exec.parallel(grid_groups, [&](index_t group) {
    sturm_points at;
    for (std::size_t l = 0; l < sturm_lanes; ++l)
      at.x[l] = point(group * index_t{sturm_lanes} + static_cast<index_t>(l));
    evaluate(t, squares, at);
    std::ranges::copy(at.below, below_point + group * index_t{sturm_lanes});
  });
  exec.parallel(groups, [&](index_t group) {
    sturm_brackets b{.low = {}, .high = {}, .first = group * index_t{sturm_lanes}, .last = n - 1};
    for (std::size_t l = 0; l < sturm_lanes; ++l) {
      auto const k = static_cast<double>(std::min(b.first + static_cast<index_t>(l), n - 1));
      index_t const j = std::upper_bound(below_point, below_point + points, k) - below_point;
      b.low.x[l] = j > 0 ? point(j - 1) : -bound;
      b.high.x[l] = j < points ? point(j) : bound;
      b.low.below[l] = j > 0 ? static_cast<std::int64_t>(below_point[j - 1]) : 0;
      b.high.below[l] = j < points ? static_cast<std::int64_t>(below_point[j]) : n;
    }
    close_brackets(t, squares, b);
    for (std::size_t l = 0; l < sturm_lanes && b.first + static_cast<index_t>(l) < n; ++l)
      values[n - 1 - b.first - static_cast<index_t>(l)] = std::ldexp(0.5 * (b.low.x[l] + b.high.x[l]), exponent);
  });
  std::sort(values, values + n, std::greater<>{});
}

}  // namespace lowrank::detail
