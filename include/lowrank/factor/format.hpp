/// @file
/// In which form a matrix of some rank is kept, and what that takes.
#pragma once

#include <ostream>

#include "lowrank/core/scalar.hpp"
#include "lowrank/rank/allocation.hpp"

namespace lowrank {

/// What is kept of an m x n matrix of rank r.
enum class storage_form : std::uint8_t {
  dense,    ///< the matrix, its factors merged: m n numbers
  factors,  ///< `factor_pair`: r (m + n)
  pivoted,  ///< `pivoted_pair`: r (m + n) - r², and r row numbers
};
[[nodiscard]] constexpr char const* name(storage_form form) noexcept {
  switch (form) {
    case storage_form::dense:
      return "dense";
    case storage_form::factors:
      return "factors";
    case storage_form::pivoted:
      return "pivoted";
  }
  return "unknown";
}
inline std::ostream& operator<<(std::ostream& out, storage_form form) { return out << name(form); }

[[nodiscard]] constexpr storage_form form_of(factor_storage storage) noexcept {
  return storage == factor_storage::factors ? storage_form::factors : storage_form::pivoted;
}

/// Numbers that are trained and stored in that form, biases and row numbers aside.
[[nodiscard]] constexpr index_t stored_parameters(extents w, index_t r, storage_form form) noexcept {
  if (form == storage_form::dense) return w.size();
  return factored_parameters(w, r, form == storage_form::factors ? factor_storage::factors : factor_storage::pivoted);
}
/// Row numbers, 32 bits each, that are stored beside them.
[[nodiscard]] constexpr index_t stored_indices(index_t r, storage_form form) noexcept {
  return form == storage_form::pivoted ? r : 0;
}
/// All bytes in a file, with numbers of type Scalar (float, bf16, fp16) and `biases` numbers of a bias.
template <class Scalar = float>
[[nodiscard]] constexpr index_t stored_bytes(extents w, index_t r, storage_form form, index_t biases = 0) noexcept {
  return index_t{sizeof(Scalar)} * (stored_parameters(w, r, form) + biases) + 4 * stored_indices(r, form);
}

/// The form of fewest numbers: `storage`, or dense where that is not larger. In factors this is every rank from mn / (m + n) on;
/// a pivoted matrix is never larger than the dense one and equally large at full rank only.
/// Throws: shape_error unless r is in [0, min(m, n)].
[[nodiscard]] inline storage_form smallest_form(extents w, index_t r, factor_storage storage) {
  require<shape_error>(r >= 0 && r <= std::min(w.rows, w.cols), "smallest_form", "rank must be in [0, min(m, n)] of ",
                       w, ", got ", r);
  return r < break_even_rank(w, storage) ? form_of(storage) : storage_form::dense;
}

}  // namespace lowrank
