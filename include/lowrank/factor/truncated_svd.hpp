/// @file
/// The best approximation of a matrix at a rank, whatever its inputs.
#pragma once

#include "lowrank/factor/factorizer.hpp"

namespace lowrank {

namespace factor {

/// W ~ U S Vᵀ, the r leading singular triplets, by the eigenvectors of the smaller Gram in fp64: singular values are accurate
/// to 1e-8 of the largest, the factors to rounding. A baseline, and what fine-tuning without calibration starts from.
struct truncated_svd {
  static constexpr bool needs_statistics = false;

  factor_balance balance{factor_balance::components};
  output_bias bias{output_bias::kept};

  void check() const noexcept {}
  template <class E>
  [[nodiscard]] basic_output_basis<typename E::space> decompose(E& exec, const_view_of<E> w,
                                                                activation_statistics const& = {},
                                                                index_t most = every_direction) const {
    return find_output_basis(exec, w, {}, most);
  }
};
static_assert(factorizer<truncated_svd>);

}  // namespace factor

/// U √S and √S Vᵀ of the r leading singular triplets of W.
/// Cost: 2 m n (m + n) + 9 min(m, n)³ flops in fp64; allocates.
/// Throws: shape_error; argument_error for NaN or infinity.
/// Reference: Eckart, Young (1936); split as in Jaiswal et al., arXiv 2407.11239.
template <class E>
[[nodiscard]] basic_factor_pair<typename E::space> truncated_svd(E& exec, const_view_of<E> w, index_t r) {
  return factorize(exec, factor::truncated_svd{}, w, {}, r);
}

}  // namespace lowrank
