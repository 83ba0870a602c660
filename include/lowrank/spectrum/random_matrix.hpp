/// @file
/// What the singular values of a random matrix of the same shape would be, and how much of a spectrum lies beyond them.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "lowrank/spectrum/spectrum.hpp"

namespace lowrank {

/// Singular values of an m x n matrix of independent entries with mean 0 and one variance, for large m and n. The letters are
/// the usual ones: beta = n / m <= 1, x = s² / (m sigma²), support [(1 - sqrt(beta))², (1 + sqrt(beta))²].
/// Reference: Marchenko & Pastur (1967); the median of the fit: Gavish & Donoho, "The optimal hard threshold for singular
/// values is 4/sqrt(3)" (2014), section II.
class marchenko_pastur {
 public:
  /// Throws: argument_error for an empty shape or a sigma that is negative or not finite.
  explicit marchenko_pastur(extents shape, double sigma = 1) : shape_{shape} {
    require(shape.rows > 0 && shape.cols > 0, "marchenko_pastur", "needs rows and columns, got ", shape);
    require(is_finite(sigma) && sigma >= 0, "marchenko_pastur", "sigma must be finite and >= 0, got ", sigma);
    auto const longer = static_cast<double>(std::max(shape.rows, shape.cols));
    beta_ = static_cast<double>(std::min(shape.rows, shape.cols)) / longer;
    scale_ = sigma * std::sqrt(longer);
  }
  /// The one whose median is the median of `s`: outliers, which are few, do not move it.
  /// Requires: s.complete().  Throws: argument_error.
  [[nodiscard]] static marchenko_pastur fitted(spectrum const& s) {
    require(s.complete(), "marchenko_pastur", "needs all ", s.length(), " singular values, got ", s.held());
    marchenko_pastur out{s.shape};
    auto const n = s.values.size();
    double const median = n % 2 != 0 ? s.values[n / 2] : 0.5 * (s.values[n / 2 - 1] + s.values[n / 2]);
    out.scale_ *= median / out.quantile(0.5);
    return out;
  }

  /// Standard deviation of an entry.
  [[nodiscard]] double sigma() const noexcept {
    return scale_ / std::sqrt(static_cast<double>(std::max(shape_.rows, shape_.cols)));
  }
  [[nodiscard]] double lower_edge() const noexcept { return scale_ * (1 - std::sqrt(beta_)); }
  [[nodiscard]] double upper_edge() const noexcept { return scale_ * (1 + std::sqrt(beta_)); }
  /// Share of the singular values up to s.
  [[nodiscard]] double cdf(double s) const noexcept {
    if (s <= lower_edge()) return s < lower_edge() || scale_ > 0 ? 0.0 : 1.0;
    return s >= upper_edge() ? 1.0 : unit_cdf(s / scale_ * (s / scale_));
  }
  /// The singular value that a share p of all does not exceed.  Requires: p in [0, 1].  Throws: argument_error.
  [[nodiscard]] double quantile(double p) const {
    require(p >= 0 && p <= 1, "marchenko_pastur::quantile", "p must be in [0, 1], got ", p);
    double low = 1 - std::sqrt(beta_), high = 1 + std::sqrt(beta_);
    if (p <= 0 || p >= 1) return scale_ * (p <= 0 ? low : high);
    for (int halving = 0; halving < 60; ++halving) {
      double const middle = 0.5 * (low + high);
      (unit_cdf(middle * middle) < p ? low : high) = middle;
    }
    return scale_ * 0.5 * (low + high);
  }
  /// min(m, n) singular values at evenly spaced shares, descending: to be drawn beside a spectrum.
  [[nodiscard]] spectrum typical() const {
    spectrum out{.shape = shape_};
    auto const n = static_cast<double>(out.length());
    for (index_t i = 0; i < out.length(); ++i) out.values.push_back(quantile((n - static_cast<double>(i) - 0.5) / n));
    return out;
  }
  /// How many values lie above the edge, which random ones do not.
  [[nodiscard]] index_t outliers(spectrum const& s) const noexcept {
    return std::count_if(s.values.begin(), s.values.end(), [edge = upper_edge()](double x) { return x > edge; });
  }
  /// Share of the energy in values above the edge: 0 for noise, 1 where the median is 0; 0 for a zero matrix.
  [[nodiscard]] double energy_above(spectrum const& s) const noexcept {
    double const all = s.energy();
    return all > 0 ? std::clamp(1 - s.tail(outliers(s)) / all, 0.0, 1.0) : 0.0;
  }

 private:
  /// Closed form of the integral of sqrt((b - x) (x - a)) / (2 pi beta x) from a to x.
  [[nodiscard]] double unit_cdf(double x) const noexcept {
    double const root = std::sqrt(beta_), a = (1 - root) * (1 - root), b = (1 + root) * (1 + root);
    if (x <= a || x >= b) return x <= a ? 0.0 : 1.0;
    double const r = std::sqrt((b - x) / (x - a));
    double sum =
        std::numbers::pi * beta_ + std::sqrt((b - x) * (x - a)) - (1 + beta_) * std::atan((r * r - 1) / (2 * r));
    if (beta_ < 1) sum += (1 - beta_) * std::atan((a * r * r - b) / (2 * (1 - beta_) * r));
    return std::clamp(sum / (2 * std::numbers::pi * beta_), 0.0, 1.0);
  }

  extents shape_;
  double beta_{}, scale_{};
};

}  // namespace lowrank
