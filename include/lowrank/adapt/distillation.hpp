/// @file
/// A loss that keeps features of a student close to those of a frozen teacher, with its gradient.
#pragma once

#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/executor.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank::adapt {

/// L = share · L_task + (1 - share) · the mean over layers of the mean squared difference of features. What a feature is, the
/// output of a layer or the state behind a block, is the caller's choice; the teacher's are plain numbers.
/// Reference: Hwang et al., "PC-LoRA", arXiv 2406.09117, section 3; the share is that of a re-implementation.
struct distillation {
  float task_share{0.2F};

  void check() const {
    require(task_share >= 0 && task_share <= 1, "distillation", "task_share must be in [0, 1], got ", task_share);
  }
  /// What the gradient of the task is multiplied by.
  [[nodiscard]] double task_weight() const noexcept { return static_cast<double>(task_share); }
  /// What `add_feature_loss` of each of `layers` features gets.
  [[nodiscard]] double feature_weight(index_t layers) const noexcept {
    return (1 - static_cast<double>(task_share)) / static_cast<double>(layers);
  }
};

/// Returns ‖S - F‖² / count of S, in fp64 and in one order; dS += weight · its gradient, unless dS is empty.
/// Shapes: S, F, dS equal.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T>
double add_feature_loss(E& exec, matrix_view<T const> student, std::type_identity_t<matrix_view<T const>> teacher,
                        double weight, std::type_identity_t<matrix_view<T>> gradient) {
  constexpr auto* caller = "add_feature_loss";
  require<shape_error>(student.shape() == teacher.shape(), caller, "needs features of equal shapes, got ",
                       student.shape(), " and ", teacher.shape());
  require<shape_error>(gradient.empty() || gradient.shape() == student.shape(), caller, "needs a gradient of ",
                       student.shape(), " or none, got ", gradient.shape());
  if (student.empty()) return 0;
  double const count = static_cast<double>(student.size());
  auto const slope = static_cast<T>(2 * weight / count);
  std::vector<double> sums(static_cast<std::size_t>(student.rows));
  exec.parallel(student.rows, [&](index_t t) {
    double sum = 0;
    for (index_t j = 0; j < student.cols; ++j) {
      T const difference = student(t, j) - teacher(t, j);
      sum += static_cast<double>(difference) * static_cast<double>(difference);
      if (!gradient.empty()) gradient(t, j) += slope * difference;
    }
    sums[static_cast<std::size_t>(t)] = sum;
  });
  double total = 0;
  for (double const one : sums) total += one;
  return total / count;
}

}  // namespace lowrank::adapt
