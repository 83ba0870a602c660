/// @file
/// Linear layers forward and backward, whatever form their weight has.
#pragma once

#include "activations.hpp"

namespace llama {

namespace detail {

/// y += b for every row.
template <class Executor, class T>
void add_bias(Executor& exec, view<T const> bias, view<T> y) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  exec.parallel((y.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(y.rows, (task + 1) * chunk); ++t)
      for (index_t i = 0; i < y.cols; ++i) y.data[t * y.row_stride + i] += bias.data[i];
  });
}

/// db = keep db + sum over the rows of dY. Each column is summed by one thread, in the order of the tokens.
template <class Executor, class T>
void bias_gradient(Executor& exec, view<T const> dy, T keep, view<T> db) {
  constexpr index_t columns = 64;
  exec.parallel((dy.cols + columns - 1) / columns, [&](index_t task) {
    index_t const begin = task * columns, end = std::min(dy.cols, begin + columns);
    for (index_t i = begin; i < end; ++i) db.data[i] = keep == T{0} ? T{0} : keep * db.data[i];
    for (index_t t = 0; t < dy.rows; ++t)
      for (index_t i = begin; i < end; ++i) db.data[i] += dy.data[t * dy.row_stride + i];
  });
}

}  // namespace detail

namespace detail {

/// Y = X Wᵀ of a frozen weight.
template <class Executor, class T>
void apply_frozen(Executor& exec, lowrank::adapt::frozen_matrix const& w, view<T const> x, view<T> y) {
  if constexpr (std::same_as<T, float>) w.apply(exec, x, y);
  else throw lowrank::argument_error{"llama::apply_frozen: frozen weights are for models in fp32"};
}
/// dX = dY W + keep dX.
template <class Executor, class T>
void apply_frozen_transposed(Executor& exec, lowrank::adapt::frozen_matrix const& w, view<T const> dy, T keep,
                             view<T> dx) {
  if constexpr (std::same_as<T, float>) w.apply_transposed(exec, dy, keep, dx);
  else throw lowrank::argument_error{"llama::apply_frozen: frozen weights are for models in fp32"};
}

}  // namespace detail

/// Y = X Wᵀ + b.
/// Shapes: X T x n, Y T x m; inner T x r and others T x (m - r) hold what the form needs, else they may be empty.
/// Cost: 2 T m n flops whole or frozen, 2 T r (m + n) in factors, 2 T r (m + n - r) pivoted.
template <class Executor, class T>
void apply_linear(Executor& exec, linear_weight<T> const& w, view<T const> x, view<T> inner, view<T> others,
                  view<T> y) {
  if (w.form == linear_form::factors) return lowrank::forward(exec, w.factors(), x, inner, y);
  if (w.form == linear_form::pivoted) return lowrank::forward(exec, w.pivoted(), x, inner, others, y);
  if (w.form == linear_form::frozen) detail::apply_frozen<Executor, T>(exec, *w.frozen, x, y);
  else multiply(exec, T{1}, x, w.left.t(), T{0}, y);
  if (!w.bias.empty()) detail::add_bias<Executor, T>(exec, w.bias, y);
}

namespace detail {
template <class T>
void check_scalable(linear_weight<T> const& w) {
  lowrank::require(w.form == linear_form::whole && w.bias.empty(), "llama::apply_scaled",
                   "only whole weights without a bias can be scaled");
}
template <class T>
void set_zero(view<T> v) {
  for (index_t t = 0; t < v.rows; ++t) std::fill_n(&v(t, 0), v.cols, T{0});
}
}  // namespace detail

/// Y = scale X Wᵀ; a scale of 0 does not read the weight.  Requires: a whole weight without bias.
template <class Executor, class T>
void apply_scaled(Executor& exec, T scale, linear_weight<T> const& w, view<T const> x, view<T> y) {
  detail::check_scalable(w);
  if (scale != T{0}) multiply(exec, scale, x, w.left.t(), T{0}, y);
  else detail::set_zero(y);
}
/// dX = scale dY W + keep dX, on the same terms.
template <class Executor, class T>
void apply_scaled_transposed(Executor& exec, T scale, linear_weight<T> const& w, view<T const> dy, T keep, view<T> dx) {
  detail::check_scalable(w);
  if (scale != T{0}) multiply(exec, scale, dy, w.left, keep, dx);
  else if (keep == T{0}) detail::set_zero(dx);
}

}  // namespace llama
