/// @file
/// NF4 for a frozen weight whose inputs have been looked at, and what a format does to the loss of a model.
#pragma once

#include <utility>

#include "lowrank/adapt/rounding_error.hpp"
#include "lowrank/quant/gptq.hpp"
#include "lowrank/spectrum/statistics.hpp"

namespace lowrank::adapt {

/// W in NF4 with double quantization, its scales and codes chosen for the least E‖(W - W') x‖²: as many bytes as without, and any
/// reader of bitsandbytes' keys opens it.
/// Shapes: W m x n, any strides; inputs of n features.
/// Cost: m n² + n³ flops; allocates, and reserves scratch of the executor.
/// Throws: shape_error; state_error where `inputs` have seen no rows; argument_error as `quantize` with `gptq` does.
/// Reference: Dettmers et al., "QLoRA", arXiv 2305.14314; Frantar et al., "GPTQ", arXiv 2210.17323.
template <std::derived_from<host_executor> E>
[[nodiscard]] frozen_matrix calibrated_nf4(E& exec, matrix_view<float const> w, activation_statistics const& inputs,
                                           gptq const& how = {}) {
  require<shape_error>(inputs.features() == w.cols, "calibrated_nf4", "needs statistics of ", w.cols, " inputs for ",
                       w.shape(), ", got ", inputs.features());
  matrix<double> moment{w.cols, w.cols};
  inputs.second_moment(moment.view());
  matrix<float> packed;
  if (!w.is_row_major()) {
    copy(exec, w, (packed = matrix<float>{w.shape()}).view());
    w = packed.view();
  }
  frozen_matrix::nf4_codes codes{w.size()};
  exec.reserve(frozen_matrix::nf4_codes::workspace_bytes(w.size()));
  quantize(exec, how, w, matrix_view<double const>(moment.view()), codes);
  return {std::move(codes), w.shape()};
}

/// By how much a model's loss rises, for each token, where W' takes the place of W: sum over i of D_ii ((W - W') C (W - W')ᵀ)_ii / 2,
/// C = E[x xᵀ] of the inputs, D = E[g gᵀ] of the gradients g of a token's loss by the outputs. One unit for all matrices of a
/// model, so that formats of different ones may be compared.
/// Shapes: W m x n, W' as W, inputs of n features, output_gradients of m.
/// Cost: 2 m n² flops in fp32; allocates.
/// Requires: finite weights.  Throws: shape_error; state_error where statistics have seen no rows.
/// Reference: Martens, Grosse, "K-FAC" (arXiv 1503.05671), (2.1), with the diagonal of D.
template <std::derived_from<host_executor> E>
[[nodiscard]] double loss_increase(E& exec, matrix_view<float const> w, frozen_matrix const& kept,
                                   activation_statistics const& inputs, activation_statistics const& output_gradients) {
  constexpr auto* caller = "loss_increase";
  require<shape_error>(kept.shape() == w.shape(), caller, "needs a frozen matrix of ", w.shape(), ", got ",
                       kept.shape());
  require<shape_error>(inputs.features() == w.cols && output_gradients.features() == w.rows, caller,
                       "needs statistics of ", w.cols, " inputs and ", w.rows, " outputs for ", w.shape(), ", got ",
                       inputs.features(), " and ", output_gradients.features());
  require<state_error>(output_gradients.count() > 0, caller, "needs statistics of output gradients");
  matrix<double> moment{w.cols, w.cols};
  inputs.second_moment(moment.view());
  auto const difference = rounding_error(exec, w, kept);
  matrix<float> metric{moment.shape()}, turned{w.shape()};
  convert(exec, matrix_view<double const>(moment.view()), metric.view());
  multiply(exec, 1.0F, difference.view(), matrix_view<float const>(metric.view()), 0.0F, turned.view());
  double sum = 0;
  for (index_t i = 0; i < w.rows; ++i) {
    double row = 0;
    for (index_t j = 0; j < w.cols; ++j)
      row += static_cast<double>(difference(i, j)) * static_cast<double>(turned(i, j));
    sum += output_gradients.mean_square(i) * row;
  }
  return sum / 2;
}

}  // namespace lowrank::adapt
