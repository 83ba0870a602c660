/// @file
/// What the product of two adapter factors is multiplied by.
#pragma once

#include <algorithm>
#include <cmath>

#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank::adapt {

/// How alpha becomes the scale of ΔW = s B A.
enum class scaling : std::uint8_t {
  rank,       ///< s = alpha / r
  rank_root,  ///< s = alpha / √r: the size of the update does not shrink with the rank (rsLoRA)
};

/// s.
/// Reference: Hu et al., "LoRA", arXiv 2106.09685, section 4.1; Kalajdzievski, "Rank-stabilized LoRA", arXiv 2312.03732, theorem 3.2.
[[nodiscard]] inline float adapter_scale(float alpha, index_t rank, scaling rule) noexcept {
  auto const r = static_cast<double>(rank);
  return static_cast<float>(static_cast<double>(alpha) / (rule == scaling::rank ? r : std::sqrt(r)));
}

namespace detail {

/// What all methods with a rank and an alpha refuse.
inline void check_rank(char const* caller, index_t rank, extents shape) {
  require<shape_error>(rank >= 1 && rank <= std::min(shape.rows, shape.cols), caller,
                       "rank must be in [1, min(m, n)], got ", rank, " for a matrix of ", shape);
}
inline void check_alpha(char const* caller, float alpha) {
  require(is_finite(alpha) && alpha > 0, caller, "alpha must be positive and finite, got ", alpha);
}

}  // namespace detail
}  // namespace lowrank::adapt
