/// @file
/// r rows of an m x r matrix from which the others follow with small coefficients: a strong rank-revealing factorization.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

struct pivot_options {
  double bound{2};  ///< on the magnitude of every coefficient; at least 1.01

  void check() const {
    require(bound >= 1.01 && bound <= 1e6, "pivot_options", "bound must be in [1.01, 1e6], got ", bound);
  }
};

/// A = [A_P; C A_P] up to the order of rows.
struct row_pivots {
  std::vector<std::int32_t> order;  ///< rows P of A, ascending, then the others, ascending
  matrix<double> coefficients;      ///< (m - r) x r
  index_t swaps{};                  ///< exchanges that the greedy choice needed
};

namespace detail {

/// A turned by reflections from the right into a lower triangle of pivot rows, and what becomes of the other rows.
class pivot_search {
 public:
  template <class E>
  pivot_search(E& exec, matrix_view<double const> a, pivot_options const& options)
      : a_{a},
        bound_{options.bound},
        order_(static_cast<std::size_t>(a.rows)),
        turned_{a.shape()},
        c_{a.rows - a.cols, a.cols} {
    std::iota(order_.begin(), order_.end(), 0);
    triangularize(exec, a.rows);
    solve(exec);
    // Each exchange multiplies |det A_P| by more than the bound, so there are few.
    double const most =
        64 + 4 * static_cast<double>(a.cols) * std::log(static_cast<double>(a.rows) + 1) / std::log(bound_);
    for (auto worst = largest(exec); worst.magnitude > bound_;) {
      ++swaps_;
      require<state_error>(static_cast<double>(swaps_) <= most, "choose_row_pivots", "did not converge in ", swaps_,
                           " exchanges");
      worst = exchange(exec, worst);
      if (worst.magnitude > bound_) continue;
      triangularize(exec, a.cols);  // afresh, because every exchange adds rounding
      solve(exec);
      worst = largest(exec);
    }
  }

  [[nodiscard]] row_pivots result() const {
    index_t const m = a_.rows, r = a_.cols;
    row_pivots out{.order = order_, .coefficients = matrix<double>{m - r, r}, .swaps = swaps_};
    std::vector<index_t> from(order_.size());
    std::iota(from.begin(), from.end(), 0);
    auto const by_row = [&](index_t x, index_t y) { return order_[at(x)] < order_[at(y)]; };
    std::sort(from.begin(), from.begin() + r, by_row);
    std::sort(from.begin() + r, from.end(), by_row);
    for (index_t i = 0; i < m; ++i) out.order[at(i)] = order_[at(from[at(i)])];
    for (index_t i = r; i < m; ++i)
      for (index_t k = 0; k < r; ++k) out.coefficients(i - r, k) = c_(from[at(i)] - r, from[at(k)]);
    return out;
  }

 private:
  struct place {
    double magnitude{};
    index_t row{}, column{};
  };
  static std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }
  /// In eight interleaved sums: a fixed order that vectorises.
  [[nodiscard]] static double dot(double const* x, double const* y, index_t count) noexcept {
    std::array<double, 8> sum{};
    index_t k = 0;
    for (; k + 8 <= count; k += 8)
      for (std::size_t lane = 0; lane < 8; ++lane) sum[lane] += x[at(k) + lane] * y[at(k) + lane];
    for (; k < count; ++k) sum[0] += x[k] * y[k];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
  }

  /// Row k of the triangle is the longest remainder among rows k ... candidates - 1.
  template <class E>
  void triangularize(E& exec, index_t candidates) {
    index_t const m = a_.rows, r = a_.cols;
    std::vector<double> left(at(m)), whole(at(m)), v(at(r));
    for (index_t i = 0; i < m; ++i) {
      double* const row = &turned_(i, 0);
      for (index_t j = 0; j < r; ++j) row[j] = a_(order_[at(i)], j);
      left[at(i)] = whole[at(i)] = dot(row, row, r);
    }
    double const scale =
        std::accumulate(whole.begin(), whole.end(), 0.0, [](double x, double y) { return std::max(x, y); });
    double const rounding = static_cast<double>(r) * std::numeric_limits<double>::epsilon();
    live_ = r;
    for (index_t k = 0; k < r; ++k) {
      auto const best = std::max_element(left.begin() + k, left.begin() + candidates) - left.begin();
      if (best != k) {
        std::swap_ranges(&turned_(k, 0), &turned_(k, 0) + r, &turned_(best, 0));
        std::swap(order_[at(k)], order_[at(best)]);
        std::swap(left[at(k)], left[at(best)]);
        std::swap(whole[at(k)], whole[at(best)]);
      }
      index_t const length = r - k;
      double* const pivot = &turned_(k, k);
      double const norm = std::sqrt(dot(pivot, pivot, length));
      if (!(norm > rounding * std::sqrt(scale))) {
        live_ = k;
        return;
      }
      double const diagonal = pivot[0] > 0 ? -norm : norm;
      std::copy_n(pivot, length, v.data());
      v[0] -= diagonal;
      double const tau = 1 / (norm * (norm + std::abs(pivot[0])));
      pivot[0] = diagonal;
      std::fill_n(pivot + 1, length - 1, 0.0);
      constexpr index_t group = 32;
      exec.parallel((m - k - 1 + group - 1) / group, [&](index_t number) {
        index_t const begin = k + 1 + number * group;
        for (index_t i = begin; i < std::min(m, begin + group); ++i) {
          double* const row = &turned_(i, k);
          double const share = tau * dot(row, v.data(), length);
          for (index_t j = 0; j < length; ++j) row[j] -= share * v[at(j)];
          left[at(i)] -= row[0] * row[0];
          // What a difference has lost to rounding is summed up again.
          if (left[at(i)] < 1e-6 * whole[at(i)]) left[at(i)] = whole[at(i)] = dot(row + 1, row + 1, length - 1);
        }
      });
    }
  }

  /// C L = B for the triangle L and the other rows B, with one step of refinement. Columns of pivots that carry nothing are
  /// zero.
  template <class E>
  void solve(E& exec) {
    index_t const m = a_.rows, r = a_.cols;
    fill(exec, c_.view(), 0.0);
    if (m == r || live_ == 0) return;
    auto const triangle = matrix_view<double const>(turned_.view()).sub({0, live_, 0, live_});
    auto const others = matrix_view<double const>(turned_.view()).sub({r, m, 0, live_});
    matrix<double> inverse{live_, live_}, rest{m - r, live_};
    copy(exec, triangle, inverse.view());
    invert_lower(exec, inverse.view());
    auto const c = c_.view().col_range(0, live_);
    auto const by = matrix_view<double const>(inverse.view());
    multiply(exec, 1.0, others, by, 0.0, c);
    copy(exec, others, rest.view());
    multiply(exec, -1.0, matrix_view<double const>(c), triangle, 1.0, rest.view());
    multiply(exec, 1.0, matrix_view<double const>(rest.view()), by, 1.0, c);
  }

  [[nodiscard]] static place largest_of(double const* row, index_t i, index_t count, place so_far) noexcept {
    double most = 0;
    for (index_t k = 0; k < count; ++k) most = std::abs(row[k]) > most ? std::abs(row[k]) : most;
    if (!(most > so_far.magnitude)) return so_far;
    index_t k = 0;
    while (std::abs(row[k]) != most) ++k;
    return {most, i, k};
  }
  template <class E, class Update>
  [[nodiscard]] place pass(E& exec, Update const& update) {
    constexpr index_t group = 16;
    std::vector<place> found(at((c_.shape().rows + group - 1) / group));
    exec.parallel(static_cast<index_t>(found.size()), [&](index_t number) {
      place mine{};
      for (index_t i = number * group; i < std::min(c_.shape().rows, (number + 1) * group); ++i) {
        update(i);
        mine = largest_of(&c_(i, 0), i, live_, mine);
      }
      found[at(number)] = mine;
    });
    place all{};
    for (auto const& one : found) all = one.magnitude > all.magnitude ? one : all;
    return all;
  }
  template <class E>
  [[nodiscard]] place largest(E& exec) {
    return pass(exec, [](index_t) {});
  }
  /// Row `p.row` of the others and pivot `p.column` change places: C changes by a matrix of rank one.
  template <class E>
  [[nodiscard]] place exchange(E& exec, place p) {
    std::swap(order_[at(p.column)], order_[at(a_.cols + p.row)]);
    std::vector<double> const old(&c_(p.row, 0), &c_(p.row, 0) + a_.cols);
    double const inverse = 1 / old[at(p.column)];
    return pass(exec, [&](index_t i) {
      double* const row = &c_(i, 0);
      bool const leaving = i == p.row;
      double const share = leaving ? inverse : row[p.column] * inverse;
      for (index_t k = 0; k < live_; ++k) row[k] = (leaving ? 0.0 : row[k]) - share * old[at(k)];
      row[p.column] = share;
    });
  }

  matrix_view<double const> a_;
  double bound_;
  std::vector<std::int32_t> order_;
  matrix<double> turned_, c_;
  index_t live_{}, swaps_{};
};

}  // namespace detail

/// r rows of A such that every other row is a combination of them with coefficients of at most `bound`, even where A has a lower
/// rank. The longest remainder first, then exchanges until the bound holds.
/// Shapes: A m x r, r <= m.  Cost: 4 m r² - 4 r³ / 3 flops to choose, 6 (m - r) r² + r³ / 3 to solve, (m - r) r more an exchange,
/// all fp64; allocates two copies of A.
/// Throws: shape_error; argument_error for NaN or infinity.
/// Reference: Gu, Eisenstat, "Efficient algorithms for computing a strong rank-revealing QR factorization" (1996), algorithm 4
/// and lemma 3.1, with R22 = 0.
template <class E>
[[nodiscard]] row_pivots choose_row_pivots(E& exec, matrix_view<double const> a, pivot_options const& options = {}) {
  options.check();
  require<shape_error>(a.cols <= a.rows, "choose_row_pivots", "needs at most as many columns as rows, got ", a.shape());
  double sum = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) sum += a(i, j) * a(i, j);
  require(is_finite(sum), "choose_row_pivots", "needs finite squares of its elements, got NaN or infinity");
  return detail::pivot_search{exec, a, options}.result();
}

}  // namespace lowrank
