/// @file
/// Ranks of many matrices under one memory budget, from the energies of their gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank {

/// One matrix that asks for a rank.
struct rank_request {
  std::span<double const> energies;  ///< squared singular values of its gradient, descending; also the most it can get
  double whole{};                    ///< ‖G‖²; 0: the sum of `energies`
  index_t bytes_per_column{};        ///< what one column more costs: 4 (m + 2 n) for fp32 Adam on R = PᵀG
};

enum class rank_objective : std::uint8_t {
  most_energy,  ///< the largest sum over matrices of the share captured
  equal_share,  ///< the largest share that every matrix captures
};

struct rank_limits {
  index_t least{1};     ///< columns that every matrix gets
  index_t multiple{1};  ///< ranks are multiples of it, or the most a matrix can get
};

struct rank_allocation {
  std::vector<index_t> ranks;
  index_t bytes{};          ///< of these ranks, within the budget
  double least_share{1};    ///< captured by the matrix that gets least of its own
  double average_share{1};  ///< mean over the matrices
};

namespace detail {

/// Ranks grow in steps, the cheapest gain first.
class rank_ladder {
 public:
  rank_ladder(rank_request const& request, rank_limits const& limits)
      : request_{request}, limits_{limits}, whole_{request.whole} {
    double sum = 0;
    for (double const e : request.energies) sum += e;
    whole_ = std::max(whole_, sum);
    while (rank_ < std::min(limits.least, most())) take_step();
  }
  [[nodiscard]] index_t rank() const noexcept { return rank_; }
  [[nodiscard]] bool complete() const noexcept { return rank_ >= most(); }
  /// A zero gradient has all of its energy in any subspace.
  [[nodiscard]] double share() const noexcept { return whole_ > 0 ? std::min(captured_ / whole_, 1.0) : 1.0; }
  [[nodiscard]] index_t step_bytes() const noexcept { return (next() - rank_) * request_.bytes_per_column; }
  /// Share that the next step adds for each byte.
  [[nodiscard]] double gain() const noexcept {
    double sum = 0;
    for (index_t k = rank_; k < next(); ++k) sum += request_.energies[static_cast<std::size_t>(k)];
    return whole_ > 0 ? sum / whole_ / static_cast<double>(std::max<index_t>(step_bytes(), 1)) : 0.0;
  }
  void take_step() noexcept {
    for (index_t const end = next(); rank_ < end; ++rank_)
      captured_ += request_.energies[static_cast<std::size_t>(rank_)];
  }
  [[nodiscard]] index_t bytes() const noexcept { return rank_ * request_.bytes_per_column; }

 private:
  [[nodiscard]] index_t most() const noexcept { return static_cast<index_t>(request_.energies.size()); }
  [[nodiscard]] index_t next() const noexcept {
    return std::min((rank_ / limits_.multiple + 1) * limits_.multiple, most());
  }

  rank_request request_;
  rank_limits limits_;
  double whole_, captured_{};
  index_t rank_{};
};

inline void check_rank_requests(std::span<rank_request const> requests, index_t budget, rank_limits const& limits) {
  require(budget >= 0, "allocate_ranks", "budget must not be negative, got ", budget);
  require(limits.least >= 0 && limits.multiple >= 1, "allocate_ranks", "needs least >= 0 and multiple >= 1, got ",
          limits.least, " and ", limits.multiple);
  for (auto const& one : requests) {
    require(one.bytes_per_column >= 1, "allocate_ranks", "bytes_per_column must be at least 1, got ",
            one.bytes_per_column);
    require(is_finite(one.whole) && one.whole >= 0, "allocate_ranks", "whole must be finite and >= 0, got ", one.whole);
    double before = std::numeric_limits<double>::max();
    for (double const e : one.energies) {
      require(is_finite(e) && e >= 0 && e <= before, "allocate_ranks",
              "energies must be finite, >= 0 and descending, got ", e, " after ", before);
      before = e;
    }
  }
}

}  // namespace detail

/// Ranks of matrices that share `budget` bytes. Every matrix gets `least` first; then the step of `multiple` columns with
/// the largest gain a byte (most_energy), or for the matrix with the smallest share (equal_share), as long as it fits.
/// A matrix whose next step does not fit is done; others go on. Ties go to the earlier matrix.
/// Ensures: most_energy is optimal up to the last step that did not fit, because gains of a matrix fall.
/// Cost: O(total steps x matrices). Throws: argument_error, also where the budget does not hold the least ranks.
[[nodiscard]] inline rank_allocation allocate_ranks(std::span<rank_request const> requests, index_t budget,
                                                    rank_objective objective = rank_objective::most_energy,
                                                    rank_limits const& limits = {}) {
  detail::check_rank_requests(requests, budget, limits);
  std::vector<detail::rank_ladder> ladders;
  rank_allocation out;
  for (auto const& one : requests) out.bytes += ladders.emplace_back(one, limits).bytes();
  require(out.bytes <= budget, "allocate_ranks", "the least ranks take ", out.bytes, " bytes, the budget is ", budget);
  std::vector<bool> done(ladders.size());
  for (;;) {
    std::size_t best = ladders.size();
    double most = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < ladders.size(); ++i) {
      if (done[i] || ladders[i].complete()) continue;
      double const wish = objective == rank_objective::most_energy ? ladders[i].gain() : -ladders[i].share();
      if (wish > most) most = wish, best = i;
    }
    if (best == ladders.size()) break;
    if (out.bytes + ladders[best].step_bytes() > budget) {
      done[best] = true;
      continue;
    }
    out.bytes += ladders[best].step_bytes();
    ladders[best].take_step();
  }
  double sum = 0;
  for (auto const& ladder : ladders) {
    out.ranks.push_back(ladder.rank());
    out.least_share = std::min(out.least_share, ladder.share());
    sum += ladder.share();
  }
  if (!ladders.empty()) out.average_share = sum / static_cast<double>(ladders.size());
  return out;
}

}  // namespace lowrank
