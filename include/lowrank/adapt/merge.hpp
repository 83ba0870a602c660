/// @file
/// A frozen matrix and a trained change become one matrix, and what that cost is told.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/adapt/frozen_matrix.hpp"

namespace lowrank::adapt {

/// What merging did. In coded formats all of a block moves when one of its numbers does: the error can be larger than the change,
/// and then the merged matrix is worth no more than the one without it.
struct merge_report {
  double change{};   ///< ‖ΔW‖_F, as it should have been added
  double error{};    ///< ‖stored - (W + ΔW)‖_F
  double largest{};  ///< largest magnitude of an element of that

  /// Error over change; 0 where there was nothing to merge.
  [[nodiscard]] double relative() const noexcept { return change > 0 ? error / change : 0.0; }
};

/// A matrix with its change, and how well it holds it.
struct merged_matrix {
  frozen_matrix matrix;
  merge_report report;
};

namespace detail {

/// Sum of squares and largest magnitude of the errors of rows, in fp64 and in one order.
struct error_sum {
  double squares{}, largest{};

  void add(double e) noexcept {
    squares += e * e;
    largest = std::max(largest, std::abs(e));
  }
  void add(error_sum const& other) noexcept {
    squares += other.squares;
    largest = std::max(largest, other.largest);
  }
};

/// error(i, sum) for every row i, summed up in the order of the rows.
template <class E, class Error>
[[nodiscard]] error_sum sum_errors(E& exec, index_t rows, Error const& error) {
  std::vector<error_sum> each(static_cast<std::size_t>(rows));
  exec.parallel(rows, [&](index_t i) { error(i, each[static_cast<std::size_t>(i)]); });
  error_sum total;
  for (auto const& e : each) total.add(e);
  return total;
}

}  // namespace detail

/// W + ΔW, added in fp32 and rounded once to the format. `base` is not touched: whoever keeps it can take the merge back exactly, and
/// nothing else can.
/// Cost: that of `add_to` and three passes over the matrix; allocates the result and one fp32 matrix of its shape.
/// Throws: shape_error; argument_error where W + ΔW is not finite.
template <std::derived_from<host_executor> E, weight_change A>
  requires std::same_as<typename A::value_type, float>
[[nodiscard]] merged_matrix merge(E& exec, frozen_matrix const& base, A const& change, frozen_format format) {
  require<shape_error>(change.shape() == base.shape(), "merge", "needs a change of ", base.shape(), ", got ",
                       change.shape());
  matrix<float> sum{base.shape()};
  auto const w = sum.view();
  exec.reserve(std::max(base.workspace_bytes(), change.workspace_bytes(1)));
  change.add_to(exec, 1.0F, w);
  merged_matrix out;
  double energy = 0;
  squared_norm(exec, w, &energy);
  require(is_finite(energy), "merge", "needs a finite change, got NaN or infinity");
  out.report.change = std::sqrt(energy);
  detail::error_sum errors;
  base.for_each_panel(exec, [&](matrix_view<float const> panel, index_t begin, index_t) {
    errors.add(detail::sum_errors(exec, panel.rows, [&](index_t i, detail::error_sum& sums) {
      for (index_t j = 0; j < panel.cols; ++j) {
        float& at = w(begin + i, j);
        double const wanted = static_cast<double>(at) + static_cast<double>(panel(i, j));
        at = static_cast<float>(wanted);
        // Where this is a rounding to fp32 before another one, it is nothing beside that.
        if (format == frozen_format::fp32) sums.add(static_cast<double>(at) - wanted);
      }
    }));
  });
  if (format == frozen_format::fp32) {
    squared_norm(exec, w, &energy);
    require(is_finite(energy), "merge", "needs a finite sum, got NaN or infinity");
    out.matrix = frozen_matrix{std::move(sum)};
  } else {
    out.matrix = frozen_matrix{exec, w, format};
    exec.reserve(out.matrix.workspace_bytes());
    out.matrix.for_each_panel(exec, [&](matrix_view<float const> panel, index_t begin, index_t) {
      errors.add(detail::sum_errors(exec, panel.rows, [&](index_t i, detail::error_sum& sums) {
        for (index_t j = 0; j < panel.cols; ++j)
          sums.add(static_cast<double>(panel(i, j)) - static_cast<double>(w(begin + i, j)));
      }));
    });
  }
  out.report.error = std::sqrt(errors.squares);
  out.report.largest = errors.largest;
  return out;
}
/// The same in the format of the base.
template <std::derived_from<host_executor> E, weight_change A>
[[nodiscard]] merged_matrix merge(E& exec, frozen_matrix const& base, A const& change) {
  return merge(exec, base, change, base.format());
}

}  // namespace lowrank::adapt
