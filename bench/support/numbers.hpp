/// @file
/// Matrices with something in them.
#pragma once

#include <cmath>

#include "lowrank/core/buffer.hpp"
#include "lowrank/linalg/elementwise.hpp"

namespace lowrank::bench {

/// Standard normal elements times `scale`; `stream` tells matrices apart.
[[nodiscard]] inline matrix<float> gaussian_matrix(host_executor& exec, extents shape, std::uint32_t stream,
                                                   float scale = 1.0F) {
  matrix<float> out{shape};
  fill_gaussian(exec, {1, 0, stream, rng_purpose::data}, out.view());
  if (scale != 1.0F) lowrank::scale(exec, scale, out.view());
  return out;
}

/// What a const view of `a` is called when `a` is not const.
[[nodiscard]] inline matrix_view<float const> read(matrix<float> const& a) noexcept { return a.view(); }

}  // namespace lowrank::bench
