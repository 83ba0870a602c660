/// @file
/// WeLore: ranks by one threshold on normalised singular values, and what is cut deeply goes on learning.
#pragma once

#include "lowrank/compress/compressor.hpp"
#include "lowrank/factor/truncated_svd.hpp"
#include "lowrank/factor/whitened.hpp"
#include "lowrank/rank/welore.hpp"

namespace lowrank {

/// As published: needs nothing but the weights.
/// Reference: Jaiswal et al., "From GaLore to WeLore" (arXiv 2407.11239), sections 3 and 4.
using welore = compressor<ranks::welore, factor::truncated_svd>;

/// The same ranks with factors that know the inputs: what to use wherever a few thousand tokens of text can be had.
using welore_whitened = compressor<ranks::welore, factor::whitened>;

/// The published settings: cut by `rank_reduction` of all singular values. For fine-tuning, matrices cut by half or less
/// are left alone and only the others count; else every cut does.
enum class welore_purpose : std::uint8_t { fine_tuning, compression_only };

template <class Welore = welore>
[[nodiscard]] Welore welore_for(double rank_reduction, welore_purpose purpose = welore_purpose::fine_tuning) {
  constexpr double half = 0.4999;
  Welore out{};
  out.allocator.gate = purpose == welore_purpose::fine_tuning ? half : 0.0;
  out.options.budget = {rank_reduction, budget_unit::rank};
  out.options.gate = half;
  return out;
}

}  // namespace lowrank
