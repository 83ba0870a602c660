/// @file
/// From a matrix to its factors in two steps: a decomposition, which also tells the spectrum that ranks are chosen by, and
/// then factors of any rank.
#pragma once

#include "lowrank/factor/factor_pair.hpp"
#include "lowrank/factor/output_basis.hpp"
#include "lowrank/spectrum/statistics.hpp"

namespace lowrank {

/// How U Uᵀ W is split into two factors; the product is the same.
enum class factor_balance : std::uint8_t {
  components,  ///< column i of U and row i of V equally long: the square root split of an SVD, where they come from one
  spectral,  ///< singular vectors of the product itself, times the root of its singular values; one r x r eigenproblem more
  orthonormal,  ///< U orthonormal, V = UᵀW
};

/// What is added to the outputs.
enum class output_bias : std::uint8_t {
  kept,     ///< the layer's own bias, if it has one
  matched,  ///< also (W - U V) E[x], so that the mean output stays what it was
};

/// How factors are made of a basis, and what it takes to find one.
/// `balance`, `bias`: as their types say.  `needs_statistics`: whether statistics without rows are refused.
template <class F>
concept factor_method = std::copyable<F> && requires(F const f) {
  { F::needs_statistics } -> std::convertible_to<bool>;
  { f.balance } -> std::convertible_to<factor_balance>;
  { f.bias } -> std::convertible_to<output_bias>;
  f.check();
};
/// A way of choosing the basis of the outputs.
/// `decompose(exec, w, statistics)`: the basis, from what is known about the inputs; its spectrum tells what each rank loses.
template <class F>
concept factorizer = factor_method<F> &&
    requires(F const f, host_executor& exec, matrix_view<float const> w, activation_statistics const& inputs) {
  { f.decompose(exec, w, inputs) } -> std::same_as<output_basis>;
};
/// One that can leave directions out that no factor will need.
/// `decompose(exec, w, statistics, most)`: the `most` leading ones, and the whole spectrum.
template <class F>
concept partial_factorizer = factorizer<F> && requires(F const f, host_executor& exec, matrix_view<float const> w,
                                                       activation_statistics const& inputs, index_t most) {
  { f.decompose(exec, w, inputs, most) } -> std::same_as<output_basis>;
};
/// One that also wants to know the gradients of the outputs.
template <class F>
concept output_weighted_factorizer = factor_method<F> &&
    requires(F const f, host_executor& exec, matrix_view<float const> w, activation_statistics const& inputs,
             activation_statistics const& output_gradients) {
  { f.decompose(exec, w, inputs, output_gradients) } -> std::same_as<output_basis>;
};

namespace detail {

/// Columns of U and rows of V times d and 1 / d that make them equally long; where one is zero, as they are.
template <class E>
void balance_components(E& exec, wide_view_of<E> u, wide_view_of<E> v) {
  exec.team([=] LOWRANK_DEVICE(auto team) {
    for (index_t k = 0; k < v.rows; ++k) {
      double const left = team.sum(u.rows, [&](index_t i) { return u(i, k) * u(i, k); });
      double const right = team.sum(v.cols, [&](index_t j) { return v(k, j) * v(k, j); });
      if (!(left > 0 && right > 0)) continue;
      double const down = std::pow(left / right, 0.25), up = 1 / down;
      team.each(u.rows, [&](index_t i) { u(i, k) *= up; });
      team.each(v.cols, [&](index_t j) { v(k, j) *= down; });
    }
  });
}

/// U and V become U Q and Qᵀ V, for orthonormal columns of U: then the rows of V are orthogonal, the longest first.
template <class E>
void turn_to_singular_vectors(E& exec, wide_matrix_of<E>& u, wide_matrix_of<E>& v) {
  auto turn = product(exec, read(v), read(v).t());
  std::vector<double> values;
  decompose_symmetric(exec, "factors", turn, values);
  u = product(exec, read(u), read(turn));
  v = product(exec, read(turn).t(), read(v));
}

/// bias += (W - U V) mean.
inline void match_mean(matrix_view<float const> w, std::span<double const> mean, factor_pair& pair) {
  extents const shape = pair.shape();
  index_t const r = pair.rank();
  pair.bias.resize(static_cast<std::size_t>(shape.rows), 0.0F);
  std::vector<double> inner(static_cast<std::size_t>(r));
  for (index_t k = 0; k < r; ++k)
    for (index_t j = 0; j < shape.cols; ++j)
      inner[static_cast<std::size_t>(k)] += static_cast<double>(pair.v(k, j)) * mean[static_cast<std::size_t>(j)];
  for (index_t i = 0; i < shape.rows; ++i) {
    double difference = 0;
    for (index_t j = 0; j < shape.cols; ++j)
      difference += static_cast<double>(w(i, j)) * mean[static_cast<std::size_t>(j)];
    for (index_t k = 0; k < r; ++k)
      difference -= static_cast<double>(pair.u(i, k)) * inner[static_cast<std::size_t>(k)];
    auto& b = pair.bias[static_cast<std::size_t>(i)];
    b = static_cast<float>(static_cast<double>(b) + difference);
  }
}

}  // namespace detail

/// The factors of rank r in a basis: U Uᵀ W, split as `method` says, with its bias.
/// Shapes: W as decomposed; layer_bias m or empty; r in [1, min(m, n)].
/// Cost: 2 m n r flops in fp64; allocates.
/// Throws: shape_error, state_error where a bias is to be matched and `inputs` have seen no rows; argument_error where it is
/// to be matched on a device.
template <class E, factor_method F>
[[nodiscard]] basic_factor_pair<typename E::space> factors(
    E& exec, F const& method, basic_output_basis<typename E::space> const& basis, const_view_of<E> w,
    activation_statistics const& inputs, index_t r, std::type_identity_t<std::span<float const>> layer_bias = {}) {
  constexpr auto* caller = "factors";
  require<shape_error>(w.shape() == basis.shape, caller, "needs the matrix that was decomposed, ", basis.shape,
                       ", got ", w.shape());
  require<shape_error>(r >= 1 && r <= basis.most(), caller, "rank must be in [1, ", basis.most(), "], got ", r);
  detail::check_bias(caller, layer_bias, w.rows);
  bool const matched = method.bias == output_bias::matched;
  constexpr bool on_host = std::same_as<typename E::space, host_space>;
  require(on_host || !matched, caller, "matches biases of matrices on the host only");
  require<shape_error>(!matched || inputs.features() == w.cols, caller, "a matched bias needs statistics of ", w.cols,
                       " features, got ", inputs.features());
  require<state_error>(!matched || inputs.count() > 0, caller,
                       "a matched bias needs statistics, which have seen no rows");
  auto const wide = detail::widened(exec, w);
  auto u = detail::widened(exec, detail::read(basis.directions).col_range(0, r));
  bool const oblique = basis.duals.shape().size() > 0;
  require(!oblique || method.balance == factor_balance::components, caller,
          "needs balance components where the basis is not orthonormal");
  auto const duals = oblique ? detail::read(basis.duals).col_range(0, r) : detail::read(u);
  auto v = detail::product(exec, duals.t(), detail::read(wide));
  if (method.balance == factor_balance::spectral) detail::turn_to_singular_vectors(exec, u, v);
  if (method.balance != factor_balance::orthonormal) detail::balance_components(exec, u.view(), v.view());
  basic_factor_pair<typename E::space> out{w.shape(), r};
  convert(exec, detail::read(u), out.u.view());
  convert(exec, detail::read(v), out.v.view());
  out.bias.assign(layer_bias.begin(), layer_bias.end());
  if constexpr (on_host)
    if (matched) detail::match_mean(w, inputs.mean(), out);
  return out;
}

/// A basis from which factors of rank r can be cut.
template <class E, factorizer F>
[[nodiscard]] basic_output_basis<typename E::space> decompose_for_rank(E& exec, F const& method, const_view_of<E> w,
                                                                       activation_statistics const& inputs, index_t r) {
  if constexpr (partial_factorizer<F>) return method.decompose(exec, w, inputs, r);
  else return method.decompose(exec, w, inputs);
}

/// Both steps at once.
/// Cost: of `find_output_basis` and `factors`.
template <class E, factorizer F>
[[nodiscard]] basic_factor_pair<typename E::space> factorize(
    E& exec, F const& method, const_view_of<E> w, activation_statistics const& inputs, index_t r,
    std::type_identity_t<std::span<float const>> layer_bias = {}) {
  index_t const most = std::min(w.rows, w.cols);
  require<shape_error>(r >= 1 && r <= most, "factorize", "rank must be in [1, ", most, "], got ", r);
  return factors(exec, method, decompose_for_rank(exec, method, w, inputs, r), w, inputs, r, layer_bias);
}

}  // namespace lowrank
