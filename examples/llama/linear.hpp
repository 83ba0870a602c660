/// @file
/// Linear layers forward and backward, whatever form their weight has.
#pragma once

#include "activations.hpp"

namespace llama {

namespace detail {

/// Columns of `from` go to the places that `order` names, or come from there.
enum class moving : std::uint8_t { to_places, from_places };

template <class Executor, class T>
void move_columns(Executor& exec, moving way, view<T const> from, std::span<std::int32_t const> order, view<T> to) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  auto const count = static_cast<index_t>(order.size());
  exec.parallel((from.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(from.rows, (task + 1) * chunk); ++t) {
      T const* const in = from.data + t * from.row_stride;
      T* const out = to.data + t * to.row_stride;
      auto const* const place = order.data();
      if (way == moving::to_places)
        for (index_t i = 0; i < count; ++i) out[place[i]] = in[i];
      else
        for (index_t i = 0; i < count; ++i) out[i] = in[place[i]];
    }
  });
}

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
/// Shapes: X T x n, Y T x m; inner T x r and permuted T x m hold what the form needs, else they may be empty.
/// Cost: 2 T m n flops whole, 2 T r (m + n) in factors, 2 T r (m + n - r) pivoted.
template <class Executor, class T>
void apply_linear(Executor& exec, linear_weight<T> const& w, view<T const> x, view<T> inner, view<T> permuted,
                  view<T> y) {
  auto const readable = [](view<T> v) -> view<T const> { return v; };
  if (w.form == linear_form::whole) {
    multiply(exec, T{1}, x, w.left.t(), T{0}, y);
  } else {
    multiply(exec, T{1}, x, w.right.t(), T{0}, inner);
    if (w.form == linear_form::factors) {
      multiply(exec, T{1}, readable(inner), w.left.t(), T{0}, y);
    } else {
      index_t const r = inner.cols, rest = w.left.rows;
      detail::move_columns<Executor, T>(exec, detail::moving::to_places, inner,
                                        w.order.first(static_cast<std::size_t>(r)), y);
      if (rest > 0) {
        auto const others = lowrank::row_major(permuted.data, {x.rows, rest});
        multiply(exec, T{1}, readable(inner), w.left.t(), T{0}, others);
        detail::move_columns<Executor, T>(exec, detail::moving::to_places, others,
                                          w.order.subspan(static_cast<std::size_t>(r)), y);
      }
    }
  }
  if (!w.bias.empty()) detail::add_bias<Executor, T>(exec, w.bias, y);
}

/// dX = keep_input dX + dY W; of a weight in factors also the gradient of the left one, unless its view is empty, before
/// inner becomes the gradient of what it held.
/// Shapes: as in `apply_linear`; d_left has the shape of w.left.
template <class Executor, class T>
void linear_input_gradient(Executor& exec, linear_weight<T> const& w, view<T const> dy, view<T> inner, view<T> permuted,
                           T keep_left, view<T> d_left, T keep_input, view<T> dx) {
  auto const readable = [](view<T> v) -> view<T const> { return v; };
  if (w.form == linear_form::whole) {
    multiply(exec, T{1}, dy, w.left, keep_input, dx);
    return;
  }
  if (w.form == linear_form::factors) {
    if (!d_left.empty()) multiply(exec, T{1}, dy.t(), readable(inner), keep_left, d_left);
    multiply(exec, T{1}, dy, w.left, T{0}, inner);
  } else {
    index_t const r = inner.cols;
    view<T const> const others = permuted.col_range(r, dy.cols);
    detail::move_columns<Executor, T>(exec, detail::moving::from_places, dy, w.order, permuted);
    if (!d_left.empty()) multiply(exec, T{1}, others.t(), readable(inner), keep_left, d_left);
    for (index_t t = 0; t < inner.rows; ++t)
      std::copy(permuted.data + t * permuted.row_stride, permuted.data + t * permuted.row_stride + r,
                inner.data + t * inner.row_stride);
    if (!others.empty()) multiply(exec, T{1}, others, w.left, T{1}, inner);
  }
  multiply(exec, T{1}, readable(inner), w.right, keep_input, dx);
}

}  // namespace llama
