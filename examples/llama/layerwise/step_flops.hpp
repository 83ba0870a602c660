/// @file
/// The flops that a step in codes cannot do without, part by part.
#pragma once

#include "memory_lines.hpp"

namespace llama {

/// 2 for each multiplication with its addition. What is elementwise (dequantising, rounding, moments) counts nothing.
struct step_flops {
  double forward{}, recompute{}, input_gradients{}, head{};
  double dense_gradients{}, projections{}, lifts{}, bases{};

  [[nodiscard]] double total() const noexcept {
    return forward + recompute + input_gradients + head + dense_gradients + projections + lifts + bases;
  }
};

/// `refreshed(layer)`: 0 no new basis, 1 a first one, 2 a warm one.
template <class Refreshed>
[[nodiscard]] step_flops count_flops(config const& c, optimizer_settings const& settings, index_t tokens,
                                     Refreshed const& refreshed) {
  step_flops out;
  auto const t = static_cast<double>(tokens);
  bool const factored = settings.gradient == matrix_gradient::factored;
  for (auto const& p : parameter_list(c)) {
    auto const elements = static_cast<double>(p.shape.size());
    if (p.what == role::head) out.head += 3 * 2 * t * elements;
    if (!is_coded(p)) continue;
    auto const sides = static_cast<double>(p.shape.rows + p.shape.cols);
    auto const r = static_cast<double>(std::min({settings.rank, p.shape.rows, p.shape.cols}));
    auto const shorter = static_cast<double>(std::min(p.shape.rows, p.shape.cols));
    double const product = factored ? 2 * t * r * sides : 2 * elements * r;
    out.forward += 2 * t * elements;
    if (p.what != role::down) out.recompute += 2 * t * elements;
    out.input_gradients += 2 * t * elements;
    if (!factored) out.dense_gradients += 2 * t * elements;
    out.projections += product;
    out.lifts += 2 * elements * r;
    // Two passes of Cholesky QR, the least for a basis that has to be orthonormal.
    if (int const how = refreshed(p.layer); how > 0) out.bases += how * product + 4 * shorter * r * r;
  }
  // Causal: half of the scores. Two products forward, four backward.
  double const attention = 2 * t * t * static_cast<double>(c.width * c.layers);
  out.forward += attention;
  out.recompute += attention;
  out.input_gradients += 2 * attention;
  return out;
}

}  // namespace llama
