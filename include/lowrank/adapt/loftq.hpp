/// @file
/// A LoRA that begins with what rounding has taken from the matrix beside it.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/rounding_error.hpp"
#include "lowrank/factor/fisher.hpp"
#include "lowrank/linalg/randomized_svd.hpp"

namespace lowrank::adapt {

namespace detail {

/// Components of their own, whichever the settings' start is: some of them stay.
template <class E>
[[nodiscard]] lora_adapter<float> kaiming_start(E& exec, lora settings, extents shape, rng_key const& key) {
  settings.start = lora_start::kaiming;
  lora_adapter<float> out{settings, shape, key};
  out.draw(exec);
  return out;
}

/// Of the largest component: below, directions are those of fp32's own rounding.
inline constexpr double least_loss = 1e-6;

}  // namespace detail

/// A LoRA with s B A of the settings' rank closest to W - W' where it matters: the least tr(D E C Eᵀ) of E = W - W' - s B A,
/// C and D the second moments of inputs and output gradients, so that the model starts nearest to the one that was rounded.
/// Where less than the rank is lost, the other components start as Kaiming does, whatever the settings say: A uniform, B = 0.
/// What is trained is a change of W' from there, not of W: see `change_since`.
/// Shapes: W m x n and W' alike; inputs of n features, output_gradients of m.
/// Cost: of `factor::fisher`; allocates, and reserves scratch of the executor.
/// Throws: shape_error, also for a rank beyond the sides; state_error where statistics have seen no rows; argument_error for
/// settings that cannot be meant, weights that are not finite, and output gradients that are all zero.
/// Reference: Zhang et al., "QERA", arXiv 2410.06040, theorem 1, which has D = I.
template <std::derived_from<host_executor> E>
[[nodiscard]] lora_adapter<float> loftq(E& exec, lora const& settings, matrix_view<float const> w,
                                        frozen_matrix const& kept, activation_statistics const& inputs,
                                        activation_statistics const& output_gradients, rng_key const& key = {},
                                        factor::fisher const& method = {}) {
  require<shape_error>(kept.shape() == w.shape(), "loftq", "needs a frozen matrix of ", w.shape(), ", got ",
                       kept.shape());
  auto out = detail::kaiming_start(exec, settings, w.shape(), key);
  auto const lost = rounding_error(exec, w, kept);
  index_t const r = settings.rank;
  auto const basis = method.decompose(exec, lost.view(), inputs, output_gradients, r);
  auto const pair = factors(exec, method, basis, lost.view(), inputs, r);
  float const part = 1 / std::sqrt(settings.scale_value());
  auto const [a, b] = out.tensors();
  auto const energy = [&](index_t k) { return basis.energies[static_cast<std::size_t>(k)]; };
  for (index_t k = 0; k < r && energy(k) > detail::least_loss * detail::least_loss * energy(0); ++k) {
    for (index_t j = 0; j < w.cols; ++j) a.values(k, j) = part * pair.v(k, j);
    for (index_t i = 0; i < w.rows; ++i) b.values(i, k) = part * pair.u(i, k);
  }
  return out;
}

/// The same where nothing has been seen: the least ‖W - W' - s B A‖_F.
/// Shapes: W m x n and W' alike.
/// Cost: a randomized SVD of the rank; allocates, and reserves scratch of the executor.
/// Throws: shape_error, also for a rank beyond the sides; argument_error for settings that cannot be meant and weights that are
/// not finite.
/// Reference: Li et al., "LoftQ", arXiv 2310.08659, (8), one step of it.
template <std::derived_from<host_executor> E>
[[nodiscard]] lora_adapter<float> loftq(E& exec, lora const& settings, matrix_view<float const> w,
                                        frozen_matrix const& kept, rng_key const& key = {},
                                        range_options const& search = {.oversampling = 10, .power_iterations = 4}) {
  auto out = detail::kaiming_start(exec, settings, w.shape(), key);
  auto const lost = rounding_error(exec, w, kept);
  index_t const r = settings.rank;
  matrix<float> u{w.rows, r}, v{w.cols, r};
  std::vector<double> values(static_cast<std::size_t>(r));
  exec.reserve(randomized_svd_bytes(w.shape(), r, search));
  range_report report{};
  randomized_svd(exec, lost.view(), r, {.u = u.view(), .values = values.data(), .v = v.view()}, search, key, &report);
  require(report.failed == 0, "loftq", "needs finite weights, got NaN or infinity in a matrix of ", w.shape());
  std::erase_if(values, [least = detail::least_loss * values.front()](double s) { return s <= least; });
  out.set_components(values, std::as_const(u).view(), std::as_const(v).view());
  return out;
}

/// By how much a model's loss rises, for each token, where W' and the `loftq` of rank r beside it take the place of W:
/// tr(D E C Eᵀ) / 2 of what is left of W - W'. The unit is that of `loss_increase`, which leaves out all of D but its diagonal.
/// D has the damping of `method`.
/// Shapes: as for `loftq`, 0 <= r <= min(m, n).
/// Cost: of `factor::fisher` with every direction; allocates, and reserves scratch of the executor.
/// Throws: as `loftq`.
template <std::derived_from<host_executor> E>
[[nodiscard]] double loss_increase_beside_loftq(E& exec, matrix_view<float const> w, frozen_matrix const& kept,
                                                activation_statistics const& inputs,
                                                activation_statistics const& output_gradients, index_t rank,
                                                factor::fisher const& method = {}) {
  require<shape_error>(rank >= 0 && rank <= std::min(w.rows, w.cols), "loss_increase_beside_loftq",
                       "needs a rank between 0 and the sides of ", w.shape(), ", got ", rank);
  auto const lost = rounding_error(exec, w, kept);
  return method.decompose(exec, lost.view(), inputs, output_gradients).loss(rank) / 2;
}

}  // namespace lowrank::adapt
