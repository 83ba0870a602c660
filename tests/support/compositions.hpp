// What tests of compositions look at: the bases in use, and what they capture, in fp64.
#pragma once

#include "lowrank/lowrank.hpp"
#include "support/optimizers.hpp"

namespace lowrank_test {

/// The bases of a composition as they are kept, as facing columns: one, or left and right.
template <class Optimizer, class State>
[[nodiscard]] std::vector<matrix<float>> bases_of(Optimizer const&, host_executor& exec, State& state) {
  lowrank::scratch_scope const scope{exec};
  auto const g = lowrank::facing(state.facing_side, state.weight);
  auto const map =
      Optimizer::template store<lowrank::host_space>::open(exec, state.store, state.facing_side, g, state.rank);
  std::vector<matrix<float>> out;
  if constexpr (Optimizer::two_sided) {
    out.push_back(copy_of(map.u));
    out.push_back(copy_of(map.v));
  } else {
    out.push_back(copy_of(map.p));
  }
  return out;
}

/// ‖PᵀG‖² / ‖G‖², or ‖UᵀGV‖² / ‖G‖².
template <class State>
[[nodiscard]] double captured_share(std::vector<matrix<float>> const& bases, State const& state,
                                    matrix<float> const& g) {
  auto const faced = lowrank::facing(state.facing_side, read(g));
  auto r = plain_product(bases[0].view().t(), faced);
  if (bases.size() == 2) r = plain_product(r.view(), bases[1].view());
  return squared_norm_of(r.view()) / squared_norm_of(faced);
}

/// What a linear layer's weight has in common over steps, and noise of each step's own.
[[nodiscard]] inline matrix<float> noisy_gradient(matrix<float> const& common, float noise, index_t step) {
  auto g = copy_of(common.view());
  auto const own = gradient_of_step(common.shape(), step);
  for (index_t e = 0; e < g.shape().size(); ++e) g.data()[e] += noise * own.data()[e];
  return g;
}

}  // namespace lowrank_test
