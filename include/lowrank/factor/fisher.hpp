/// @file
/// Factorization that knows inputs and output gradients: the least increase of the loss, not of the error of the outputs.
#pragma once

#include "lowrank/factor/factorizer.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

namespace detail {

/// C += share of the mean of its diagonal, on the diagonal.
inline void damp(double share, matrix_view<double> c) noexcept {
  double trace = 0;
  for (index_t i = 0; i < c.rows; ++i) trace += c(i, i);
  double const added = share * trace / static_cast<double>(std::max<index_t>(c.rows, 1));
  for (index_t i = 0; i < c.rows; ++i) c(i, i) += added;
}

}  // namespace detail

namespace factor {

/// The least tr(D (W - W') C (W - W')ᵀ) at a rank, C = E[x xᵀ] of the inputs and D = E[g gᵀ] of the loss gradients g of the
/// outputs: the second-order increase of the loss in Kronecker-factored Fisher geometry. With D = L Lᵀ and U the leading
/// eigenvectors of (LᵀW) C (LᵀW)ᵀ, W' = L⁻ᵀ U Uᵀ Lᵀ W. The losses are in one unit for all matrices of a model, so that
/// allocators may compare them.
/// Reference: Martens, Grosse, "K-FAC" (arXiv 1503.05671), (2.1); Hsu et al., "FWSVD" (arXiv 2207.00112) is the case of a diagonal D
/// that weights rows.
struct fisher {
  static constexpr bool needs_statistics = true;

  double input_damping{1e-6};   ///< of the mean of C's diagonal, added to it
  double output_damping{1e-2};  ///< the same of D, which is estimated from as few tokens and has smaller directions
  factor_balance balance{factor_balance::components};
  output_bias bias{output_bias::kept};

  void check() const {
    require(is_finite(input_damping) && input_damping >= 0, "fisher", "input_damping must be finite and >= 0, got ",
            input_damping);
    require(is_finite(output_damping) && output_damping > 0, "fisher", "output_damping must be finite and > 0, got ",
            output_damping);
  }
  /// Shapes: W m x n, inputs of n features, output_gradients of m.
  /// Cost: m³ + 2 m² n flops more than `whitened`, in fp64.
  /// Throws: shape_error, state_error where statistics have seen no rows; argument_error for output gradients that are all zero.
  template <class E>
  [[nodiscard]] output_basis decompose(E& exec, const_view_of<E> w, activation_statistics const& inputs,
                                       activation_statistics const& output_gradients,
                                       index_t most = every_direction) const {
    check();
    require<shape_error>(inputs.features() == w.cols && output_gradients.features() == w.rows, "fisher",
                         "needs statistics of ", w.cols, " inputs and ", w.rows, " outputs for ", w.shape(), ", got ",
                         inputs.features(), " and ", output_gradients.features());
    require<state_error>(inputs.count() > 0 && output_gradients.count() > 0, "fisher",
                         "needs statistics, which have seen no rows");
    matrix<double> metric{w.cols, w.cols}, root{w.rows, w.rows};
    inputs.second_moment(metric.view());
    output_gradients.second_moment(root.view());
    detail::damp(input_damping, metric.view());
    detail::damp(output_damping, root.view());
    std::int32_t failed = 0;
    factor_cholesky(exec, root.view(), &failed);
    require(failed == 0, "fisher", "needs output gradients that are not all zero, and finite");
    for (index_t i = 0; i < w.rows; ++i)
      for (index_t j = i + 1; j < w.rows; ++j) root(i, j) = 0;
    auto const weighted = detail::product(exec, detail::read(root).t(), detail::read(detail::widened(exec, w)));
    matrix<float> narrow{w.shape()};
    convert(exec, detail::read(weighted), narrow.view());
    auto out = find_output_basis(exec, const_view_of<E>(narrow.view()), detail::read(metric), most);
    out.duals = detail::product(exec, detail::read(root), detail::read(out.directions));
    invert_lower(exec, root.view());
    out.directions = detail::product(exec, detail::read(root).t(), detail::read(out.directions));
    return out;
  }
};
static_assert(output_weighted_factorizer<fisher>);

}  // namespace factor
}  // namespace lowrank
