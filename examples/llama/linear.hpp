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

/// Y = X Wᵀ + b.
/// Shapes: X T x n, Y T x m; inner T x r and others T x (m - r) hold what the form needs, else they may be empty.
/// Cost: 2 T m n flops whole, 2 T r (m + n) in factors, 2 T r (m + n - r) pivoted.
template <class Executor, class T>
void apply_linear(Executor& exec, linear_weight<T> const& w, view<T const> x, view<T> inner, view<T> others,
                  view<T> y) {
  if (w.form == linear_form::factors) return lowrank::forward(exec, w.factors(), x, inner, y);
  if (w.form == linear_form::pivoted) return lowrank::forward(exec, w.pivoted(), x, inner, others, y);
  multiply(exec, T{1}, x, w.left.t(), T{0}, y);
  if (!w.bias.empty()) detail::add_bias<Executor, T>(exec, w.bias, y);
}

}  // namespace llama
