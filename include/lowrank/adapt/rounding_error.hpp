/// @file
/// What a frozen matrix has lost.
#pragma once

#include "lowrank/adapt/frozen_matrix.hpp"

namespace lowrank::adapt {

/// W - W'.
/// Shapes: W m x n, any strides, W' as W.
/// Cost: one pass over both; allocates 4 m n bytes, and reserves the scratch that W' is opened in.
/// Throws: shape_error.
template <std::derived_from<host_executor> E>
[[nodiscard]] matrix<float> rounding_error(E& exec, matrix_view<float const> w, frozen_matrix const& kept) {
  require<shape_error>(kept.shape() == w.shape(), "rounding_error", "needs a frozen matrix of ", w.shape(), ", got ",
                       kept.shape());
  matrix<float> out{w.shape()};
  exec.reserve(kept.workspace_bytes());
  kept.dense(exec, out.view());
  exec.parallel(w.rows, [&](index_t i) {
    for (index_t j = 0; j < w.cols; ++j) out(i, j) = w(i, j) - out(i, j);
  });
  return out;
}

}  // namespace lowrank::adapt
