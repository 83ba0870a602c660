/// @file
/// Factorizations that know the inputs: the best approximations of the outputs, not of the matrix.
#pragma once

#include "lowrank/factor/factorizer.hpp"

namespace lowrank {

namespace detail {

/// C = (1 - share) C + share diag(C).
inline void shrink_towards_diagonal(double share, matrix_view<double> c) noexcept {
  if (share == 0) return;
  for (index_t i = 0; i < c.rows; ++i)
    for (index_t j = 0; j < c.cols; ++j) c(i, j) *= i == j ? 1.0 : 1 - share;
}

inline void check_statistics(char const* caller, extents w, activation_statistics const& inputs) {
  require<shape_error>(inputs.features() == w.cols, caller, "needs statistics of ", w.cols, " features for ", w,
                       ", got ", inputs.features());
  require<state_error>(inputs.count() > 0, caller, "needs statistics of the inputs, which have seen no rows");
}
inline void check_share(char const* caller, double share) {
  require(share >= 0 && share <= 1, caller, "shrinkage must be in [0, 1], got ", share);
}

}  // namespace detail

namespace factor {

/// The least E‖W x - U V x‖² at a rank: U the leading eigenvectors of W E[x xᵀ] Wᵀ, V = UᵀW. No Cholesky factor and no inverse,
/// so fewer samples than features are no special case.
/// Reference: the same minimum as Wang et al., "SVD-LLM" (arXiv 2403.07378), where its Cholesky factor exists.
struct whitened {
  static constexpr bool needs_statistics = true;

  /// Share of the correlations between channels that is not believed, 0 to 1: of use with few samples.
  double shrinkage{0};
  factor_balance balance{factor_balance::components};
  output_bias bias{output_bias::kept};

  void check() const { detail::check_share("whitened", shrinkage); }
  template <class E>
  [[nodiscard]] output_basis decompose(E& exec, const_view_of<E> w, activation_statistics const& inputs,
                                       index_t most = every_direction) const {
    check();
    detail::check_statistics("whitened", w.shape(), inputs);
    matrix<double> metric{w.cols, w.cols};
    inputs.second_moment(metric.view());
    detail::shrink_towards_diagonal(shrinkage, metric.view());
    return find_output_basis(exec, w, detail::read(metric), most);
  }
};
static_assert(factorizer<whitened>);

/// The least E‖W x - U V x - b‖² over factors and bias: U the leading eigenvectors of the covariance of the outputs, b = (W - U V)
/// E[x]. Without its bias it is far worse than `whitened`.
/// Reference: Ji et al., "Feature-based low-rank compression" (arXiv 2405.10616); Yu, Wu, "Compressing
/// transformers: features are low-rank, but weights are not" (2023).
struct centred {
  static constexpr bool needs_statistics = true;

  double shrinkage{0};  ///< as for `whitened`
  factor_balance balance{factor_balance::components};
  output_bias bias{output_bias::matched};

  void check() const { detail::check_share("centred", shrinkage); }
  template <class E>
  [[nodiscard]] output_basis decompose(E& exec, const_view_of<E> w, activation_statistics const& inputs,
                                       index_t most = every_direction) const {
    check();
    detail::check_statistics("centred", w.shape(), inputs);
    matrix<double> metric{w.cols, w.cols};
    inputs.covariance(metric.view());
    detail::shrink_towards_diagonal(shrinkage, metric.view());
    return find_output_basis(exec, w, detail::read(metric), most);
  }
};
static_assert(factorizer<centred>);

/// The SVD of W S with S = diag(E|x_j|^α + floor), S taken out of V again: U the leading eigenvectors of W S² Wᵀ, V = UᵀW.
/// Reference: Yuan et al., "ASVD" (arXiv 2312.05821).
struct channel_scaled {
  static constexpr bool needs_statistics = true;

  double alpha{0.5};
  double floor{1e-6};
  factor_balance balance{factor_balance::components};
  output_bias bias{output_bias::kept};

  void check() const {
    require(is_finite(alpha) && alpha >= 0, "channel_scaled", "alpha must be finite and >= 0, got ", alpha);
    require(is_finite(floor) && floor >= 0, "channel_scaled", "floor must be finite and >= 0, got ", floor);
  }
  template <class E>
  [[nodiscard]] output_basis decompose(E& exec, const_view_of<E> w, activation_statistics const& inputs,
                                       index_t most = every_direction) const {
    check();
    detail::check_statistics("channel_scaled", w.shape(), inputs);
    matrix<double> metric{w.cols, w.cols};
    for (index_t j = 0; j < w.cols; ++j) {
      double const scale = std::pow(inputs.mean_magnitude(j), alpha) + floor;
      metric(j, j) = scale * scale;
    }
    return find_output_basis(exec, w, detail::read(metric), most);
  }
};
static_assert(factorizer<channel_scaled>);

}  // namespace factor
}  // namespace lowrank
