/// @file
/// Mean and covariance of the inputs of a layer, from as many batches as come along.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>

#include "lowrank/core/visit.hpp"
#include "lowrank/linalg/orthonormalize.hpp"  // gram_kind
#include "lowrank/linalg/primitives.hpp"
#include "lowrank/linalg/reductions.hpp"

namespace lowrank {

namespace detail {

/// The mean of each column of `x`, and the sum of the magnitudes of each added to `magnitudes`.
template <std::derived_from<host_executor> E>
void column_means(E& exec, matrix_view<float const> x, double* mean, double* magnitudes) {
  constexpr index_t columns = 64;
  exec.parallel((x.cols + columns - 1) / columns, [&](index_t task) {
    index_t const begin = task * columns, end = std::min(x.cols, begin + columns);
    std::fill(mean + begin, mean + end, 0.0);
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t j = begin; j < end; ++j) mean[j] += static_cast<double>(x(t, j));
    for (index_t j = begin; j < end; ++j) mean[j] /= static_cast<double>(x.rows);
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t j = begin; j < end; ++j) magnitudes[j] += std::abs(static_cast<double>(x(t, j)));
  });
}

/// Refuses NaN and infinities, before anything has changed.
template <std::derived_from<host_executor> E>
void check_rows(E& exec, char const* caller, matrix_view<float const> x, index_t features) {
  require<shape_error>(x.cols == features, caller, "needs rows of ", features, " features, got ", x.shape());
  double energy = 0;
  squared_norm(exec, x, &energy);
  require(is_finite(energy), caller, "needs finite rows, got NaN or infinity");
}

}  // namespace detail

/// Count, mean and covariance of rows, in fp64. No row is ever left out, whatever the sizes of the batches; statistics of
/// several workers add up to those of all rows.
/// Cost: 4 n (n + 1) + 16 n bytes: the lower triangle of the covariance, the mean, the mean magnitude.
/// Reference: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
class activation_statistics {
 public:
  activation_statistics() = default;
  explicit activation_statistics(index_t features)
      : features_{checked(features)}, mean_{features}, magnitude_{features}, moment_{features * (features + 1) / 2} {}

  [[nodiscard]] index_t features() const noexcept { return features_; }
  [[nodiscard]] index_t count() const noexcept { return count_; }
  [[nodiscard]] index_t bytes() const noexcept { return mean_.bytes() + magnitude_.bytes() + moment_.bytes(); }
  /// What all of it takes for `features`.
  [[nodiscard]] static constexpr index_t bytes(index_t features) noexcept {
    return 8 * (features * (features + 1) / 2 + 2 * features);
  }
  /// Scratch of `add`.
  [[nodiscard]] static constexpr index_t workspace_bytes(index_t features) noexcept {
    return scratch_bytes<double>(features * features) + scratch_bytes<double>(features);
  }

  /// Takes in the rows of X. Products are exact in fp64, so that the loss of a factorization, which may be 1e-6 of all energy or
  /// less, is that of these very rows; `gram_kind::mixed` is a third cheaper and off by 4e-7 ‖x_i‖ ‖x_j‖.
  /// Shapes: X T x n, T >= 0.  Requires: for mixed, ‖x_i‖ ‖x_j‖ is an fp32 number.
  /// Cost: T n² flops, and 28 n² bytes moved however few rows there are; workspace workspace_bytes(n).
  /// Throws: shape_error; argument_error where a row is not finite. Nothing has changed then.
  template <std::derived_from<host_executor> E>
  void add(E& exec, matrix_view<float const> x, gram_kind kind = gram_kind::wide) {
    detail::check_rows(exec, "activation_statistics::add", x, features_);
    if (x.rows == 0) return;
    scratch_scope const scope{exec};
    auto const products = row_major(exec.arena().template take<double>(features_ * features_), {features_, features_});
    auto* const mean = exec.arena().template take<double>(features_);
    if (kind == gram_kind::wide) gram(exec, x, products);
    else gram_mixed(exec, x, products);
    detail::column_means(exec, x, mean, magnitude_.data());
    auto const rows = static_cast<double>(x.rows), weight = weight_of(x.rows);
    exec.parallel((features_ + 15) / 16, [&](index_t task) {
      for (index_t i = task * 16; i < std::min(features_, task * 16 + 16); ++i) {
        double* const row = moment_row(i);
        double const inside = rows * mean[i], apart = weight * (mean[i] - mean_.data()[i]);
        for (index_t j = 0; j <= i; ++j)
          row[j] += (products(i, j) - inside * mean[j]) + apart * (mean[j] - mean_.data()[j]);
      }
    });
    move_mean(mean, x.rows);
  }

  /// Takes in what another one has seen.
  /// Throws: shape_error where the features differ.
  void merge(activation_statistics const& other) {
    require<shape_error>(other.features_ == features_, "activation_statistics::merge", "needs ", features_,
                         " features, got ", other.features_);
    if (other.count_ == 0) return;
    double const weight = weight_of(other.count_);
    auto const distance = [&](index_t i) { return other.mean_.data()[i] - mean_.data()[i]; };
    for (index_t i = 0; i < features_; ++i) {
      double* const row = moment_row(i);
      double const* const added = other.moment_.data() + i * (i + 1) / 2;
      double const scaled = distance(i) * weight;
      for (index_t j = 0; j <= i; ++j) row[j] += added[j] + scaled * distance(j);
    }
    for (index_t i = 0; i < features_; ++i) magnitude_.data()[i] += other.magnitude_.data()[i];
    move_mean(other.mean_.data(), other.count_);
  }

  /// E[x], of `features` numbers.
  [[nodiscard]] std::span<double const> mean() const noexcept { return mean_.span(); }
  /// E|x_j|.
  [[nodiscard]] double mean_magnitude(index_t j) const noexcept {
    return count_ > 0 ? magnitude_.data()[j] / static_cast<double>(count_) : 0.0;
  }
  /// E[x_j²].
  [[nodiscard]] double mean_square(index_t j) const noexcept {
    return count_ > 0
               ? moment_.data()[j * (j + 1) / 2 + j] / static_cast<double>(count_) + mean()[at(j)] * mean()[at(j)]
               : 0.0;
  }
  /// out = E[x xᵀ].  Shapes: n x n.  Throws: shape_error; state_error before the first row.
  void second_moment(matrix_view<double> out) const {
    write(out, [&](index_t i, index_t j) { return mean()[at(i)] * mean()[at(j)]; });
  }
  /// out = E[(x - E x)(x - E x)ᵀ], divided by the count.  Shapes: n x n.  Throws: shape_error; state_error before the first row.
  void covariance(matrix_view<double> out) const {
    write(out, [](index_t, index_t) { return 0.0; });
  }

  template <class F>
  friend void visit_state(activation_statistics& s, F&& f) {
    f("features", identity(s.features_));
    f("count", s.count_);
    f("mean", s.mean_);
    f("magnitude", s.magnitude_);
    f("moment", s.moment_);
  }

 private:
  static index_t checked(index_t features) {
    require(features >= 0 && features < index_t{1} << 24, "activation_statistics",
            "features must be in [0, 2^24), got ", features);
    return features;
  }
  static std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }
  [[nodiscard]] double* moment_row(index_t i) noexcept { return moment_.data() + i * (i + 1) / 2; }
  /// Of the squared distance of two means, for `added` rows more.
  [[nodiscard]] double weight_of(index_t added) const noexcept {
    auto const a = static_cast<double>(count_), b = static_cast<double>(added);
    return a * b / (a + b);
  }
  void move_mean(double const* mean, index_t added) noexcept {
    double const share = static_cast<double>(added) / static_cast<double>(count_ + added);
    for (index_t i = 0; i < features_; ++i) mean_.data()[i] += (mean[i] - mean_.data()[i]) * share;
    count_ += added;
  }

  template <class Add>
  void write(matrix_view<double> out, Add const& more) const {
    require<shape_error>(out.shape() == extents{features_, features_}, "activation_statistics", "needs a matrix of ",
                         extents{features_, features_}, ", got ", out.shape());
    require<state_error>(count_ > 0, "activation_statistics", "has seen no rows");
    double const share = 1.0 / static_cast<double>(count_);
    for (index_t i = 0; i < features_; ++i) {
      double const* const row = moment_.data() + i * (i + 1) / 2;
      for (index_t j = 0; j <= i; ++j) out(j, i) = out(i, j) = row[j] * share + more(i, j);
    }
  }

  index_t features_{}, count_{};
  buffer<double> mean_, magnitude_, moment_;
};

}  // namespace lowrank
