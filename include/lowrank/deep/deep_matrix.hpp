/// @file
/// A matrix as a product of many, all of them trained.
#pragma once

#include <string>
#include <vector>

#include "lowrank/deep/orthonormal.hpp"

namespace lowrank::deep {

/// One trained matrix of a deep one. Its updates are multiplied by `rate`, 0 is frozen; the loss has ½ λ decay ‖X‖² of it,
/// where λ is the step's weight decay.
template <class T>
struct layer {
  std::string name;
  matrix<T> values;
  float rate{1.0F};
  float decay{1.0F};

  [[nodiscard]] bool trained() const noexcept { return rate != 0.0F; }
};

/// W = X_K ... X_1, and with offsets + mean + p 1ᵀ + 1 qᵀ.
template <class T>
class deep_matrix {
  static_assert(std::same_as<T, float> || std::same_as<T, double>, "lowrank: deep matrices are fp32 or fp64");

 public:
  using value_type = T;

  deep_matrix() = default;
  /// Requires: factors X_1 first, which fit together; at least two.
  explicit deep_matrix(std::vector<layer<T>> factors) : factors_{std::move(factors)} {
    require(factors_.size() >= 2, "deep::deep_matrix", "needs at least two factors, got ", factors_.size());
    for (std::size_t k = 1; k < factors_.size(); ++k)
      require<shape_error>(factors_[k].values.shape().cols == factors_[k - 1].values.shape().rows, "deep::deep_matrix",
                           "factors must fit together, got ", factors_[k].values.shape(), " times ",
                           factors_[k - 1].values.shape());
  }

  [[nodiscard]] extents shape() const noexcept {
    return factors_.empty() ? extents{}
                            : extents{factors_.back().values.shape().rows, factors_.front().values.shape().cols};
  }
  [[nodiscard]] std::size_t factor_count() const noexcept { return factors_.size(); }
  [[nodiscard]] layer<T>& factor(std::size_t k) noexcept { return factors_[k]; }
  [[nodiscard]] layer<T> const& factor(std::size_t k) const noexcept { return factors_[k]; }

  /// From now on W has a mean, which is not trained, and offsets of rows and columns, which are, from 0 on.
  void add_offsets(T mean, float rate = 1.0F, float decay = 1.0F) {
    require(is_finite(mean), "deep::deep_matrix", "the mean must be finite, got ", mean);
    mean_ = mean;
    offsets_.clear();
    offsets_.push_back({"row_offset", matrix<T>{shape().rows, 1}, rate, decay});
    offsets_.push_back({"col_offset", matrix<T>{1, shape().cols}, rate, decay});
  }
  [[nodiscard]] bool has_offsets() const noexcept { return !offsets_.empty(); }
  [[nodiscard]] T mean() const noexcept { return mean_; }

  /// Everything that is trained or frozen, in one order: factors X_1 ... X_K, then offsets of rows, of columns.
  [[nodiscard]] std::size_t layer_count() const noexcept { return factors_.size() + offsets_.size(); }
  [[nodiscard]] layer<T>& at(std::size_t k) noexcept {
    return k < factors_.size() ? factors_[k] : offsets_[k - factors_.size()];
  }
  [[nodiscard]] layer<T> const& at(std::size_t k) const noexcept {
    return k < factors_.size() ? factors_[k] : offsets_[k - factors_.size()];
  }

  [[nodiscard]] index_t parameter_count() const noexcept {
    index_t sum = 0;
    for (std::size_t k = 0; k < layer_count(); ++k) sum += at(k).values.shape().size();
    return sum;
  }
  [[nodiscard]] index_t bytes() const noexcept { return parameter_count() * index_t{sizeof(T)}; }

 private:
  std::vector<layer<T>> factors_, offsets_;
  T mean_{};
};

/// How a deep factorization begins.
struct deep_settings {
  index_t depth{3};
  double scale{1e-3};  ///< of every factor; the product begins at scale^depth

  void check() const {
    constexpr auto* caller = "deep::deep_settings";
    require(depth >= 2 && depth <= 64, caller, "depth must be in [2, 64], got ", depth);
    require(is_finite(scale) && scale > 0 && scale <= 1, caller, "scale must be in (0, 1], got ", scale);
  }
};

/// `depth` factors of full width, each `scale` times an orthogonal matrix. All are min(m, n) square but that of the longer
/// side, whose rows or columns are orthonormal.
/// Cost: depth min(m, n)² numbers and as many orthonormalisations; workspace orthonormal_columns_bytes of m x n or its transpose.
/// Throws: argument_error, shape_error.
/// Reference: Yaras et al., "Compressible dynamics in deep overparameterized low-rank learning" (ICML 2024), 2.1.
template <class T, class E>
[[nodiscard]] deep_matrix<T> full_width(E& exec, extents shape, deep_settings const& settings, rng_key key) {
  settings.check();
  require<shape_error>(shape.rows > 0 && shape.cols > 0, "deep::full_width", "needs positive sides, got ", shape);
  index_t const w = std::min(shape.rows, shape.cols);
  std::vector<layer<T>> factors;
  for (index_t l = 0; l < settings.depth; ++l) {
    extents const own{l + 1 == settings.depth ? shape.rows : w, l == 0 ? shape.cols : w};
    factors.push_back({"W" + std::to_string(l + 1), matrix<T>{own}});
    key.step = static_cast<std::uint32_t>(64 * l);
    fill_orthogonal(exec, key, static_cast<T>(settings.scale), factors.back().values.view());
  }
  return deep_matrix<T>{std::move(factors)};
}
[[nodiscard]] constexpr extents tall(extents shape) noexcept { return shape.rows >= shape.cols ? shape : shape.t(); }
/// Scratch of `full_width`.
template <class T>
[[nodiscard]] constexpr index_t full_width_bytes(extents shape) noexcept {
  return orthonormal_columns_bytes<T>(tall(shape));
}

}  // namespace lowrank::deep
