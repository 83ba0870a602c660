#pragma once

#include <algorithm>
#include <queue>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "lowrank/rank/allocation.hpp"

namespace lowrank::detail {

/// What a rank costs and what it loses.
struct curve_point {
  index_t rank{}, cost{};
  double loss{};
};

/// Ranks a matrix can have, cost rising and loss falling, and the corners of their lower convex hull: between corners no
/// mixture of steps is worth more than the straight line, so that greedy steps from corner to corner lose nothing.
class loss_curve {
 public:
  explicit loss_curve(std::vector<curve_point> points) : points_{std::move(points)} {
    for (std::size_t i = 0; i < points_.size(); ++i) {
      while (corners_.size() >= 2 && !turns_up(corners_[corners_.size() - 2], corners_.back(), i)) corners_.pop_back();
      corners_.push_back(i);
    }
  }
  [[nodiscard]] curve_point const& now() const noexcept { return points_[at_]; }
  [[nodiscard]] bool complete() const noexcept { return next_ >= corners_.size(); }
  /// Loss that the step to the next corner saves for each unit of cost.
  [[nodiscard]] double gain() const noexcept {
    auto const& to = points_[corners_[next_]];
    return (now().loss - to.loss) / static_cast<double>(to.cost - now().cost);
  }
  /// Goes as far towards the next corner as `left` allows; whether it got there.
  [[nodiscard]] bool advance(index_t left) noexcept {
    std::size_t const corner = corners_[next_];
    index_t const limit = now().cost + left;
    while (at_ < corner && points_[at_ + 1].cost <= limit) ++at_;
    if (at_ != corner) return false;
    ++next_;
    return true;
  }

 private:
  /// Whether b lies below the line from a to c.
  [[nodiscard]] bool turns_up(std::size_t a, std::size_t b, std::size_t c) const noexcept {
    auto const slope = [&](std::size_t from, std::size_t to) {
      return (points_[to].loss - points_[from].loss) / static_cast<double>(points_[to].cost - points_[from].cost);
    };
    return slope(a, b) < slope(b, c);
  }

  std::vector<curve_point> points_;
  std::vector<std::size_t> corners_{};
  std::size_t at_{}, next_{1};
};

/// Points of one matrix: ranks in steps of options.multiple from options.least on, as long as they cost less than the whole,
/// and the whole. `tails[r]` is what rank r loses.
[[nodiscard]] inline std::vector<curve_point> curve_points(extents w, std::span<double const> tails, budget_unit unit,
                                                           rank_options const& options) {
  index_t const length = std::min(w.rows, w.cols), step = options.multiple;
  index_t const whole = unit == budget_unit::rank ? length : w.size();
  std::vector<curve_point> out;
  for (index_t r = (options.least + step - 1) / step * step; r < length; r += step) {
    index_t const cost = unit == budget_unit::rank ? r : factored_parameters(w, r, options.storage);
    if (cost >= whole) break;
    out.push_back({r, cost, tails[static_cast<std::size_t>(r)]});
  }
  out.push_back({length, whole, 0.0});
  return out;
}

/// Steps in the order of their gain while they fit into `budget`; a matrix whose next step does not fit goes as far as it can
/// and is done. Ties go to the earlier matrix.
inline void fill_curves(std::vector<loss_curve>& curves, index_t budget) {
  for (auto const& one : curves) budget -= one.now().cost;
  using entry = std::pair<double, std::size_t>;
  auto const later = [](entry const& a, entry const& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  };
  std::priority_queue<entry, std::vector<entry>, decltype(later)> steps{later};
  for (std::size_t i = 0; i < curves.size(); ++i)
    if (!curves[i].complete()) steps.emplace(curves[i].gain(), i);
  while (!steps.empty()) {
    std::size_t const i = steps.top().second;
    steps.pop();
    index_t const before = curves[i].now().cost;
    bool const arrived = curves[i].advance(budget);
    budget -= curves[i].now().cost - before;
    if (arrived && !curves[i].complete()) steps.emplace(curves[i].gain(), i);
  }
}

/// What a budget leaves, in its unit; a thousandth of a number is rounding.
[[nodiscard]] inline index_t units_kept(rank_budget const& budget, index_t all) noexcept {
  return static_cast<index_t>(std::floor((1 - budget.removal) * static_cast<double>(all) + 1e-3));
}

}  // namespace lowrank::detail
