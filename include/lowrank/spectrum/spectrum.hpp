/// @file
/// The singular values of a matrix as a value, and what is read off them.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank {

/// Singular values of an m x n matrix, descending: all min(m, n) of them, or the leading ones and the energy of all.
struct spectrum {
  extents shape{};
  std::vector<double> values{};  ///< s_1 >= s_2 >= ... >= 0
  double whole{};                ///< ‖W‖_F² where values are missing; 0: their sum of squares

  /// Refuses what no matrix has. Throws: argument_error, shape_error.
  void check(char const* caller = "spectrum") const;

  /// How many singular values the matrix has, held or not.
  [[nodiscard]] index_t length() const noexcept { return std::min(shape.rows, shape.cols); }
  [[nodiscard]] index_t held() const noexcept { return static_cast<index_t>(values.size()); }
  [[nodiscard]] bool complete() const noexcept { return held() == length(); }
  [[nodiscard]] double largest() const noexcept { return values.empty() ? 0.0 : values.front(); }

  /// Σ s² of the values from `r` on that are held, the small ones first: nothing cancels.
  [[nodiscard]] double held_energy(index_t r = 0) const noexcept {
    double sum = 0;
    for (index_t i = held(); i-- > std::max<index_t>(r, 0);) sum += square(i);
    return sum;
  }
  /// ‖W‖_F².
  [[nodiscard]] double energy() const noexcept { return complete() ? held_energy() : std::max(whole, held_energy()); }
  /// ‖W - W_r‖_F² of the best approximation of rank r. With missing values, accurate to rounding of `whole`.
  [[nodiscard]] double tail(index_t r) const noexcept { return missing_energy() + held_energy(r); }
  /// tail(0), tail(1), ..., tail(held()).
  [[nodiscard]] std::vector<double> tails() const {
    std::vector<double> out(values.size() + 1);
    out.back() = missing_energy();
    double sum = 0;
    for (std::size_t i = values.size(); i-- > 0;) {
      sum += square(static_cast<index_t>(i));
      out[i] = out.back() + sum;
    }
    return out;
  }
  /// Shares of the energy in the first 0, 1, ..., held() values; all 1 for a zero matrix.
  [[nodiscard]] std::vector<double> energy_curve() const {
    auto out = tails();
    double const all = out.front();
    for (double& x : out) x = all > 0 ? 1 - x / all : 1.0;
    return out;
  }
  /// The least rank whose values carry `share` of the energy; 0 for a zero matrix.
  /// Requires: share in [0, 1], reached by the values that are held.  Throws: argument_error.
  [[nodiscard]] index_t rank_for_energy(double share) const {
    require(share >= 0 && share <= 1, "spectrum::rank_for_energy", "share must be in [0, 1], got ", share);
    auto const left = tails();
    // 1 - share is rounded, unless it is 0.
    double const rounding = share < 1 ? std::numeric_limits<double>::epsilon() : 0.0;
    double const allowed = (1 - share + rounding) * left.front();
    for (std::size_t r = 0; r < left.size(); ++r)
      if (left[r] <= allowed) return static_cast<index_t>(r);
    require(false, "spectrum::rank_for_energy", "the ", held(), " values that are held carry ",
            1 - left.back() / left.front(), " of the energy, asked for ", share);
    return held();
  }
  /// How many values exceed `relative` times the largest.
  [[nodiscard]] index_t numerical_rank(double relative) const noexcept {
    double const least = relative * largest();
    return std::count_if(values.begin(), values.end(), [=](double s) { return s > least; });
  }
  /// ‖W‖_F² / s_1²: 1 for one direction, min(m, n) for a flat spectrum; 0 for a zero matrix.
  [[nodiscard]] double stable_rank() const noexcept { return largest() > 0 ? energy() / (largest() * largest()) : 0.0; }
  /// e^H of the entropy H of s_i / Σ s; 0 for a zero matrix.
  /// Requires: complete().  Throws: argument_error.
  /// Reference: Roy & Vetterli, "The effective rank" (2007), definition 1.
  [[nodiscard]] double entropy_rank() const {
    require_complete("spectrum::entropy_rank");
    double sum = 0, entropy = 0;
    for (std::size_t i = values.size(); i-- > 0;) sum += values[i];
    if (sum <= 0) return 0;
    for (double const s : values)
      if (double const p = s / sum; p > 0) entropy -= p * std::log(p);
    return std::exp(entropy);
  }
  /// (s_i - s_min) / (s_max - s_min), descending from 1 to 0. Of a constant spectrum, which has no spread to be measured by:
  /// zeros.
  /// Requires: complete().  Throws: argument_error.
  /// Reference: Jaiswal et al., "From GaLore to WeLore" (2024), the normalisation of its rank selection.
  [[nodiscard]] std::vector<double> normalised() const {
    require_complete("spectrum::normalised");
    std::vector<double> out(values.size());
    if (is_constant()) return out;
    double const least = values.back(), spread = values.front() - least;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = (values[i] - least) / spread;
    return out;
  }
  /// Whether all values are one number (or there are none): nothing about it is low-rank.
  [[nodiscard]] bool is_constant() const noexcept { return values.empty() || values.front() == values.back(); }

 private:
  [[nodiscard]] double square(index_t i) const noexcept {
    double const s = values[static_cast<std::size_t>(i)];
    return s * s;
  }
  [[nodiscard]] double missing_energy() const noexcept {
    return complete() ? 0.0 : std::max(whole - held_energy(), 0.0);
  }
  void require_complete(char const* caller) const {
    require(complete(), caller, "needs all ", length(), " singular values, got ", held());
  }
};

inline void spectrum::check(char const* caller) const {
  require<shape_error>(shape.rows >= 0 && shape.cols >= 0 && held() <= length(), caller, "a matrix of ", shape,
                       " cannot have ", held(), " singular values");
  require(is_finite(whole) && whole >= 0, caller, "whole must be finite and >= 0, got ", whole);
  double before = std::numeric_limits<double>::max();
  for (double const s : values) {
    require(is_finite(s) && s >= 0 && s <= before, caller, "values must be finite, >= 0 and descending, got ", s,
            " after ", before);
    before = s;
  }
}

/// Σ min(m, n) of several matrices.
[[nodiscard]] inline index_t total_length(std::span<spectrum const> spectra) noexcept {
  index_t sum = 0;
  for (auto const& one : spectra) sum += one.length();
  return sum;
}

}  // namespace lowrank
