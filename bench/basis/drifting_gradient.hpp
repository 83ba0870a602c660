/// @file
/// A gradient with a known spectrum, and what remained of the basis of an older one.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

#include "basis/engine.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/orthonormalize.hpp"
#include "support/numbers.hpp"

namespace lowrank::bench {

/// G = U diag(i^-0.7) Vᵀ with random orthonormal U and V, the decay of gradients early in training. `old` holds the
/// leading directions of G with 30 % (by norm) of white noise on it: a basis that is a few steps old. `old_right` is its
/// right factor, the noisy gradient's transpose times `old`.
struct drifting_gradient {
  matrix<float> g, old, old_right;
  double best{};  ///< energy of the r leading values

  drifting_gradient(engine& exec, extents shape, index_t r) : g{shape}, old{shape.rows, r}, old_right{shape.cols, r} {
    index_t const k = std::min(shape.rows, shape.cols);
    exec.reserve(orthonormalize_bytes({std::max(shape.rows, shape.cols), k}));
    auto u = gaussian_matrix(exec, {shape.rows, k}, 1), v = gaussian_matrix(exec, {shape.cols, k}, 2);
    orthonormalize(exec, u.view(), {1, 0, 1, rng_purpose::completion});
    orthonormalize(exec, v.view(), {1, 0, 2, rng_purpose::completion});
    double all = 0;
    for (index_t j = 0; j < k; ++j) {
      double const value = std::pow(static_cast<double>(j + 1), -0.7);
      if (j < r) best += value * value;
      all += value * value;
      for (index_t i = 0; i < shape.rows; ++i) u(i, j) *= static_cast<float>(value);
    }
    multiply(exec, 1.0F, u.view(), v.view().t(), 0.0F, g.view());
    auto noisy =
        gaussian_matrix(exec, shape, 3, static_cast<float>(0.3 * std::sqrt(all / static_cast<double>(shape.size()))));
    axpy(exec, 1.0F, read(g), noisy.view());
    gram_range_options const exact{.solver = gram_solver::eigen};
    exec.reserve(gram_range_bytes(shape, r, exact));
    find_range_by_gram(exec, noisy.view(), old.view(), exact, {1, 0, 4, rng_purpose::sketch});
    multiply(exec, 1.0F, read(noisy).t(), read(old), 0.0F, old_right.view());
  }
  /// ‖PᵀG‖² by the best that any basis of that rank captures.
  [[nodiscard]] double captured(engine& exec, matrix_view<float const> p) const {
    matrix<float> inner{p.cols, g.shape().cols};
    multiply(exec, 1.0F, p.t(), g.view(), 0.0F, inner.view());
    double energy = 0;
    squared_norm(exec, read(inner), &energy);
    return energy / best;
  }
  /// ‖PᵀP - I‖_F in units of sqrt(r) eps.
  [[nodiscard]] static double departure(engine& exec, matrix_view<float const> p) {
    matrix<double> c{p.cols, p.cols};
    gram(exec, p, c.view());
    double sum = 0;
    for (index_t i = 0; i < p.cols; ++i)
      for (index_t j = 0; j < p.cols; ++j) {
        double const beyond = c(i, j) - (i == j ? 1 : 0);
        sum += beyond * beyond;
      }
    return std::sqrt(sum / static_cast<double>(p.cols)) / 0x1p-23;
  }
  /// Row-major fp32, nothing else: for programs in other languages.
  void write(std::string const& path) const {
    std::FILE* const file = std::fopen(path.c_str(), "wb");
    require<io_error>(file != nullptr, "bench::drifting_gradient", "cannot write ", path);
    auto const count = static_cast<std::size_t>(g.shape().size());
    bool const whole = std::fwrite(g.data(), sizeof(float), count, file) == count;
    require<io_error>(std::fclose(file) == 0 && whole, "bench::drifting_gradient", "cannot write ", path);
  }
};

}  // namespace lowrank::bench
