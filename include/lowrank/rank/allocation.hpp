/// @file
/// Ranks of a whole model's matrices under one budget: what is asked, what comes out, what ranks cost.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <ostream>
#include <span>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/spectrum/spectrum.hpp"

namespace lowrank {

/// How an m x n matrix of rank r is stored, with that many numbers.
enum class factor_storage : std::uint8_t {
  factors,  ///< U V: r (m + n)
  pivoted,  ///< r rows of the matrix and what the others are made of: r (m + n) - r²
};

/// Numbers that an m x n matrix takes in factors of rank r.
/// Reference: Zhao et al., "Pivoting Factorization" (2025), for the pivoted form; its r indices are not counted.
[[nodiscard]] constexpr index_t factored_parameters(extents w, index_t r, factor_storage storage) noexcept {
  return storage == factor_storage::factors ? r * (w.rows + w.cols) : r * (w.rows + w.cols) - r * r;
}
/// The same where a matrix stays dense unless factors are smaller.
[[nodiscard]] constexpr index_t kept_parameters(extents w, index_t r, factor_storage storage) noexcept {
  return std::min(w.size(), factored_parameters(w, r, storage));
}
/// The least rank whose factors are no smaller than the matrix: from it on a matrix stays dense.
[[nodiscard]] constexpr index_t break_even_rank(extents w, factor_storage storage) noexcept {
  if (w.size() == 0) return 0;
  if (storage == factor_storage::pivoted) return std::min(w.rows, w.cols);
  return (w.size() + w.rows + w.cols - 1) / (w.rows + w.cols);
}
/// The largest rank whose factors take at most `parameters` numbers; min(m, n) where the dense matrix does.
[[nodiscard]] constexpr index_t largest_rank(extents w, index_t parameters, factor_storage storage) noexcept {
  if (parameters >= w.size()) return std::min(w.rows, w.cols);
  index_t low = 0, high = break_even_rank(w, storage);  // low fits, high does not
  while (high - low > 1) {
    index_t const middle = (low + high) / 2;
    (factored_parameters(w, middle, storage) <= parameters ? low : high) = middle;
  }
  return low;
}
/// Whether a matrix cut to rank r is a low-rank component in WeLore's sense: cut by more than the gate's share.
[[nodiscard]] constexpr bool is_low_rank_component(extents w, index_t r, double gate = 0.4999) noexcept {
  index_t const length = std::min(w.rows, w.cols);
  return length > 0 && static_cast<double>(length - r) / static_cast<double>(length) > gate;
}

/// What a budget counts.
enum class budget_unit : std::uint8_t {
  rank,        ///< ERR, effective rank reduction: singular values cut, of all Σ min(m, n)
  parameters,  ///< numbers no longer stored, of all Σ m n, with matrices dense where factors are not smaller
};
[[nodiscard]] constexpr char const* name(budget_unit unit) noexcept {
  return unit == budget_unit::rank ? "rank reduction" : "parameter removal";
}
inline std::ostream& operator<<(std::ostream& out, budget_unit unit) { return out << name(unit); }

/// The share that is to go.
struct rank_budget {
  double removal{};
  budget_unit unit{budget_unit::rank};

  void check(char const* caller = "rank_budget") const {
    require(removal >= 0 && removal < 1, caller, "removal must be in [0, 1), got ", removal);
  }
};

/// What ranks may be.
struct rank_options {
  factor_storage storage{factor_storage::factors};  ///< what parameters are counted for
  index_t multiple{1};                              ///< ranks that are cut are multiples of it
  index_t least{1};                                 ///< no matrix is cut below it

  void check(char const* caller = "rank_options") const {
    require(multiple >= 1 && least >= 1, caller, "needs multiple >= 1 and least >= 1, got ", multiple, " and ", least);
  }
};

/// The multiple nearest to r, ties up, at least `least`; a matrix that is not cut, or would not be after rounding, keeps its
/// min(m, n).
[[nodiscard]] constexpr index_t rounded_rank(extents w, index_t r, rank_options const& options) noexcept {
  index_t const length = std::min(w.rows, w.cols), step = options.multiple;
  if (r >= length) return length;
  index_t const nearest = (std::max(r, options.least) + step / 2) / step * step;
  index_t const floor = (options.least + step - 1) / step * step;
  return std::min(std::max(nearest, floor), length);
}

/// Ranks, and what they remove.
struct allocation {
  std::vector<index_t> ranks{};  ///< min(m, n) for a matrix that is left alone
  rank_budget requested{};
  double reached{};          ///< in the unit of the request; budgets and whole ranks cannot always meet
  double rank_reduction{};   ///< ERR
  index_t parameters{};      ///< kept, in the storage asked for, dense where that is not larger
  index_t all_parameters{};  ///< Σ m n
  double threshold{std::numeric_limits<double>::quiet_NaN()};  ///< where one number decides for all matrices

  [[nodiscard]] double parameters_removed() const noexcept {
    if (all_parameters == 0) return 0;
    return 1 - static_cast<double>(parameters) / static_cast<double>(all_parameters);
  }
};

/// What `ranks` remove from those matrices.
[[nodiscard]] inline allocation summarize(std::span<spectrum const> spectra, std::vector<index_t> ranks,
                                          rank_budget const& requested, rank_options const& options) {
  require<shape_error>(ranks.size() == spectra.size(), "summarize", "needs a rank for each of ", spectra.size(),
                       " matrices, got ", ranks.size());
  allocation out{.ranks = std::move(ranks), .requested = requested};
  index_t cut = 0;
  for (std::size_t i = 0; i < spectra.size(); ++i) {
    extents const shape = spectra[i].shape;
    index_t const r = out.ranks[i];
    require(r >= 0 && r <= spectra[i].length(), "summarize", "ranks must be in [0, min(m, n)], got ", r, " for ",
            shape);
    cut += spectra[i].length() - r;
    out.parameters += r == spectra[i].length() ? shape.size() : kept_parameters(shape, r, options.storage);
    out.all_parameters += shape.size();
  }
  if (index_t const all = total_length(spectra); all > 0)
    out.rank_reduction = static_cast<double>(cut) / static_cast<double>(all);
  out.reached = requested.unit == budget_unit::rank ? out.rank_reduction : out.parameters_removed();
  return out;
}

/// A rule that turns spectra and a budget into ranks. `allocate` throws argument_error, with the best that can be reached,
/// where the budget cannot be met.
template <class A>
concept rank_allocator = requires(A const& allocator, std::span<spectrum const> spectra, rank_budget const& budget,
                                  rank_options const& options) {
  allocator.check();
  { allocator.allocate(spectra, budget, options) } -> std::same_as<allocation>;
};

namespace detail {

/// The largest rank that is allowed and not above r, or the least one that is allowed at all: where a budget must hold.
[[nodiscard]] constexpr index_t rank_within(extents w, index_t r, rank_options const& options) noexcept {
  index_t const floor = (options.least + options.multiple - 1) / options.multiple * options.multiple;
  return std::min(std::max(r / options.multiple * options.multiple, floor), std::min(w.rows, w.cols));
}
/// What is removed where every matrix has its least rank.
[[nodiscard]] inline double most_removed(std::span<spectrum const> spectra, budget_unit unit,
                                         rank_options const& options) {
  std::vector<index_t> least;
  for (auto const& one : spectra) least.push_back(rank_within(one.shape, 0, options));
  return summarize(spectra, std::move(least), {.unit = unit}, options).reached;
}
/// What every allocator asks of its arguments.
inline void check_allocation(char const* caller, std::span<spectrum const> spectra, rank_budget const& budget,
                             rank_options const& options) {
  budget.check(caller);
  options.check(caller);
  for (auto const& one : spectra) {
    one.check(caller);
    require(one.complete(), caller, "needs complete spectra, got ", one.held(), " of ", one.length(), " values of a ",
            one.shape, " matrix");
  }
}
/// Refuses a budget beyond what was the best, rounding aside.
inline void require_reachable(char const* caller, rank_budget const& budget, double best) {
  require(budget.removal <= best + 1e-12, caller, "a ", budget.unit, " of ", budget.removal,
          " cannot be met, the most is ", best);
}

}  // namespace detail
}  // namespace lowrank
