/// @file
/// The residual of a moment, kept, as something to multiply with: what a compression looks for its directions in.
#pragma once

#include "lowrank/deep/residual.hpp"
#include "lowrank/linalg/elementwise.hpp"

namespace lowrank::deep {

/// R = ω ∘ (W - Φ) on Ω for one W: |Ω| numbers for observations, m n for a dense target. The target must outlive it.
template <class T, target_of<T> Target>
class residual_operator {
  static constexpr bool sparse = std::same_as<Target, observations<T>>;

 public:
  using value_type = T;

  /// Cost: 2 k flops an observation, or 2 m n k; allocates what it holds.
  template <class E>
  residual_operator(E& exec, Target const& target, low_rank_view<T> const& w)
      : target_{&target}, kept_{sparse ? extents{1, numbers(target)} : target.shape()} {
    detail::check_products(w, target.shape(), residual_products<T>{});
    if constexpr (sparse) {
      detail::each_row(exec, target.shape().rows, [&](index_t i) {
        for (index_t at = target.row_begin(i); at < target.row_begin(i + 1); ++at) {
          index_t const j = target.col(at);
          T const product = detail::dot(detail::row_of(w.a, i), detail::row_of(w.b, j), w.a.cols);
          kept_(0, at) = target.weight(at) * (product + w.offset(i, j) - target.values()[static_cast<std::size_t>(at)]);
        }
      });
    } else {
      multiply(exec, T{1}, w.a, w.b.t(), T{0}, kept_.view());
      detail::each_row(exec, target.shape().rows, [&](index_t i) {
        for (index_t j = 0; j < target.shape().cols; ++j) kept_(i, j) += w.offset(i, j) - target.values(i, j);
      });
    }
  }
  /// That of a W which is `mean` everywhere: -Φ where it is 0.
  template <class E>
  residual_operator(E& exec, Target const& target, T mean = {})
      : residual_operator{exec, target, zeros_of(target.shape(), mean)} {}

  [[nodiscard]] extents shape() const noexcept { return target_->shape(); }
  [[nodiscard]] index_t bytes() const noexcept { return kept_.bytes(); }

  /// Y = R X.  Shapes: X n x b, Y m x b, packed.  Cost: 2 b flops a number held; workspace 0.
  template <class E>
  void apply(E& exec, matrix_view<T const> x, matrix_view<T> y) const {
    if constexpr (!sparse) return multiply(exec, T{1}, kept_.view(), x, T{0}, y);
    else
      detail::each_row(exec, y.rows, [&](index_t i) {
        std::fill_n(&y(i, 0), y.cols, T{});
        for (index_t at = target_->row_begin(i); at < target_->row_begin(i + 1); ++at)
          detail::add_times(kept_(0, at), detail::row_of(x, target_->col(at)), &y(i, 0), y.cols);
      });
  }
  /// X = Rᵀ Y.
  template <class E>
  void apply_transposed(E& exec, matrix_view<T const> y, matrix_view<T> x) const {
    if constexpr (!sparse) return multiply(exec, T{1}, kept_.view().t(), y, T{0}, x);
    else
      detail::each_row(exec, x.rows, [&](index_t j) {
        std::fill_n(&x(j, 0), x.cols, T{});
        for (index_t at = target_->col_begin(j); at < target_->col_begin(j + 1); ++at)
          detail::add_times(kept_(0, target_->entry(at)), detail::row_of(y, target_->row(at)), &x(j, 0), x.cols);
      });
  }

 private:
  [[nodiscard]] static index_t numbers(Target const& target) noexcept {
    if constexpr (sparse) return target.count();
    else return target.shape().size();
  }
  /// Factors of no columns: nothing is multiplied.
  [[nodiscard]] static low_rank_view<T> zeros_of(extents shape, T mean) noexcept {
    return {.a = {nullptr, shape.rows, 0, 0, 1}, .b = {nullptr, shape.cols, 0, 0, 1}, .mean = mean};
  }

  Target const* target_;
  matrix<T> kept_;
};

}  // namespace lowrank::deep
