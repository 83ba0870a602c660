/// @file
/// A format for each frozen matrix of a model, where all together may take so many bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "lowrank/adapt/frozen_matrix.hpp"

namespace lowrank::adapt {

/// A way to keep a matrix: what it takes, and by how much the model's loss rises.
struct format_option {
  frozen_format format{};
  index_t bytes{};
  double loss{};
};

/// For each matrix the number of one of its options: first the smallest of each, then, as long as bytes are left, the change
/// that takes most from the loss for each byte of those that still fit.
/// Cost: O(k² o) for k matrices of o options.
/// Throws: argument_error for a matrix without options, negative bytes, a loss that is NaN or infinite, and a budget that the
/// smallest options do not meet.
/// Reference: the greedy for multiple-choice knapsacks: Sinha, Zoltners, Operations Research 27 (1979).
[[nodiscard]] inline std::vector<std::size_t> choose_formats(std::span<std::vector<format_option> const> matrices,
                                                             index_t budget) {
  constexpr auto* caller = "choose_formats";
  std::vector<std::size_t> out;
  index_t left = budget;
  for (auto const& options : matrices) {
    require(!options.empty(), caller, "matrix ", out.size(), " has no options");
    for (auto const& o : options)
      require(o.bytes >= 0 && is_finite(o.loss), caller, "matrix ", out.size(), " in ", name(o.format), " has ",
              o.bytes, " bytes and a loss of ", o.loss);
    auto const smallest = std::ranges::min_element(options, [](format_option const& a, format_option const& b) {
      return a.bytes != b.bytes ? a.bytes < b.bytes : a.loss < b.loss;
    });
    out.push_back(static_cast<std::size_t>(smallest - options.begin()));
    left -= smallest->bytes;
  }
  require(left >= 0, caller, "needs at least ", budget - left, " bytes, got a budget of ", budget);
  while (true) {
    double best = 0;
    std::size_t matrix = 0, choice = 0;
    for (std::size_t m = 0; m < matrices.size(); ++m) {
      auto const& now = matrices[m][out[m]];
      for (std::size_t o = 0; o < matrices[m].size(); ++o) {
        index_t const more = matrices[m][o].bytes - now.bytes;
        if (more <= 0 || more > left) continue;
        double const gain = (now.loss - matrices[m][o].loss) / static_cast<double>(more);
        if (gain > best) best = gain, matrix = m, choice = o;
      }
    }
    if (best == 0) return out;
    left -= matrices[matrix][choice].bytes - matrices[matrix][out[matrix]].bytes;
    out[matrix] = choice;
  }
}

}  // namespace lowrank::adapt
