/// @file
/// Which side of the weight the basis takes. Chosen once, stored, never read off shapes later.
#pragma once

#include "lowrank/core/view.hpp"

namespace lowrank {

/// What survives in R, in the names GaLore's users know.
enum class side_choice : std::uint8_t {
  keep_large,  ///< std: R keeps the large dimension; a square matrix goes right
  keep_small,  ///< reverse_std: R keeps the small one; a square matrix goes left
  left,        ///< R = Pᵀ G
  right,       ///< R = G P, as (Pᵀ Gᵀ)ᵀ
};

[[nodiscard]] constexpr side choose_side(side_choice choice, extents weight) noexcept {
  switch (choice) {
    case side_choice::keep_large:
      return weight.rows >= weight.cols ? side::right : side::left;
    case side_choice::keep_small:
      return weight.rows >= weight.cols ? side::left : side::right;
    case side_choice::left:
      return side::left;
    case side_choice::right:
      return side::right;
  }
  return side::left;
}

}  // namespace lowrank
