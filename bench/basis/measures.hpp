/// @file
/// How good a basis is, and what many of them come to.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "basis/engine.hpp"
#include "lowrank/linalg/reductions.hpp"

namespace lowrank::bench {

/// ‖PᵀG‖_F².
[[nodiscard]] inline double captured_energy(engine& exec, matrix_view<float const> g, matrix_view<float const> p) {
  matrix<float> inner{p.cols, g.cols};
  multiply(exec, 1.0F, p.t(), g, 0.0F, inner.view());
  double energy = 0;
  squared_norm(exec, inner.view(), &energy);
  return energy;
}

/// ‖PᵀP - I‖_F in units of sqrt(r) eps.
[[nodiscard]] inline double departure(engine& exec, matrix_view<float const> p) {
  matrix<double> c{p.cols, p.cols};
  gram(exec, p, c.view());
  double sum = 0;
  for (index_t i = 0; i < p.cols; ++i)
    for (index_t j = 0; j < p.cols; ++j) sum += std::pow(c(i, j) - (i == j ? 1 : 0), 2);
  return std::sqrt(sum / static_cast<double>(p.cols)) / static_cast<double>(std::numeric_limits<float>::epsilon());
}

/// Values of one quantity, one for each matrix of each stage.
struct distribution {
  std::vector<double> each;

  void add(double value) { each.push_back(value); }
  [[nodiscard]] double least() const { return each.empty() ? 0 : *std::min_element(each.begin(), each.end()); }
  [[nodiscard]] double most() const { return each.empty() ? 0 : *std::max_element(each.begin(), each.end()); }
  [[nodiscard]] double median() const {
    if (each.empty()) return 0;
    auto sorted = each;
    std::sort(sorted.begin(), sorted.end());
    std::size_t const half = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }
};

[[nodiscard]] inline double mean(std::vector<double> const& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// How a gradient's energy is spread over its directions.
struct spectrum_shape {
  index_t rank_90{}, rank_99{};  ///< directions that hold 90 and 99 % of the energy
  index_t numerical_rank{};      ///< singular values above 1e-6 of the largest
  double top_16{}, top_128{};    ///< shares of the energy

  explicit spectrum_shape(exact_basis const& basis) {
    auto const count = static_cast<index_t>(basis.values.size());
    double const all = basis.energy(count);
    if (all == 0) return;
    auto const holding = [&](double share) {
      index_t r = 1;
      while (r < count && basis.energy(r) < share * all) ++r;
      return r;
    };
    rank_90 = holding(0.9);
    rank_99 = holding(0.99);
    numerical_rank = std::count_if(basis.values.begin(), basis.values.end(),
                                   [&](double value) { return value > 1e-6 * basis.values.front(); });
    top_16 = basis.energy(16) / all;
    top_128 = basis.energy(128) / all;
  }
};

}  // namespace lowrank::bench
