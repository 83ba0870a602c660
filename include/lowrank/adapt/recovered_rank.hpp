/// @file
/// How many directions an adapter has learnt, whatever its rank: the singular values of its change, which is never formed.
#pragma once

#include <cmath>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/linalg/primitives.hpp"
#include "lowrank/linalg/rayleigh_ritz.hpp"  // symmetric_eigen_bytes
#include "lowrank/spectrum/spectrum.hpp"

namespace lowrank::adapt {

/// What is taken for a direction: a singular value above `relative` times the largest and above `absolute`. The second is for layers
/// that have learnt nothing, where all values are equally small; a share of the norm of the matrix is a good one.
struct rank_floor {
  double relative{1e-3};
  double absolute{0};
};

/// The r singular values of left · right that are not 0 by its shape, from two Grams in fp64: accurate to 1e-8 of the largest.
/// Cost: 2 r² (m + n) flops and two r x r eigenproblems; allocates, and the executor's scratch grows as they need it.
/// Throws: argument_error for NaN or infinity.
template <std::derived_from<host_executor> E, class T>
[[nodiscard]] spectrum change_spectrum(E& exec, low_rank_factors<T> const& factors) {
  index_t const r = factors.rank();
  auto const gram_of = [&](matrix_view<T const> a) {
    matrix<double> wide{a.shape()}, out{a.cols, a.cols};
    convert(exec, a, wide.view());
    multiply(exec, 1.0, wide.view().t(), wide.view(), 0.0, out.view());
    return out;
  };
  exec.reserve(symmetric_eigen_bytes(r));
  std::vector<double> values(static_cast<std::size_t>(r));
  auto const decompose = [&](matrix<double>& c) {
    std::int32_t failed = 0;
    symmetric_eigen(exec, c.view(), values.data(), &failed);
    require(failed == 0, "change_spectrum", "needs finite factors, got NaN or infinity in those of ", factors.shape());
  };
  // With leftᵀ left = V D Vᵀ, the squares are the eigenvalues of √D Vᵀ (right rightᵀ) V √D.
  auto turn = gram_of(factors.left.view());
  auto const right = gram_of(factors.right.view().t());
  decompose(turn);
  for (index_t k = 0; k < r; ++k) {
    double const root = std::sqrt(std::max(values[static_cast<std::size_t>(k)], 0.0));
    for (index_t i = 0; i < r; ++i) turn(i, k) *= root;
  }
  matrix<double> half{r, r}, inner{r, r};
  multiply(exec, 1.0, right.view(), turn.view(), 0.0, half.view());
  multiply(exec, 1.0, turn.view().t(), half.view(), 0.0, inner.view());
  for (index_t i = 0; i < r; ++i)
    for (index_t j = 0; j < i; ++j) inner(i, j) = inner(j, i) = 0.5 * (inner(i, j) + inner(j, i));
  decompose(inner);
  spectrum out{.shape = factors.shape(), .values = {}, .whole = 0};
  for (double const energy : values) {
    out.values.push_back(std::sqrt(std::max(energy, 0.0)));
    out.whole += std::max(energy, 0.0);
  }
  return out;
}

[[nodiscard]] inline index_t recovered_rank(spectrum const& change, rank_floor floor = {}) {
  double const least = std::max(floor.relative * change.largest(), floor.absolute);
  return std::count_if(change.values.begin(), change.values.end(), [=](double s) { return s > least; });
}
/// Of an adapter as it is now.
template <std::derived_from<host_executor> E, low_rank_adapter A>
[[nodiscard]] index_t recovered_rank(E& exec, A const& adapter, rank_floor floor = {}) {
  return recovered_rank(change_spectrum(exec, adapter.factors(exec)), floor);
}

}  // namespace lowrank::adapt
