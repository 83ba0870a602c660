/// @file
/// Linear layers for one token. Every weight is used once, so reading it is all the cost: a general product, which packs
/// what it reads, takes more than twice as long.
#pragma once

#include "lanes.hpp"
#include "linear.hpp"

namespace llama {

namespace detail {

/// store(j, x · row j of W) for every row.
template <class Executor, class T, class Store>
void each_row_product(Executor& exec, view<T const> w, T const* x, Store const& store) {
  constexpr index_t chunk = 64;
  exec.parallel((w.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t j = task * chunk; j < std::min(w.rows, (task + 1) * chunk); ++j)
      store(j, dot<T>(x, w.data + j * w.row_stride, w.cols));
  });
}

}  // namespace detail

/// y = W x + b.
/// Shapes: x n, y m, inner r: what a weight in factors keeps between its two products.
/// Cost: one reading of the weight.
template <class Executor, class T>
void apply_linear_to_row(Executor& exec, linear_weight<T> const& w, T const* x, T* inner, T* y) {
  auto const in_order = [](T* to) { return [to](index_t j, T value) { to[j] = value; }; };
  if (w.form == linear_form::whole) {
    detail::each_row_product<Executor, T>(exec, w.left, x, in_order(y));
  } else {
    detail::each_row_product<Executor, T>(exec, w.right, x, in_order(inner));
    if (w.form == linear_form::factors) {
      detail::each_row_product<Executor, T>(exec, w.left, inner, in_order(y));
    } else {
      auto const* const place = w.order.data();
      index_t const r = w.right.rows;
      for (index_t i = 0; i < r; ++i) y[place[i]] = inner[i];
      detail::each_row_product<Executor, T>(exec, w.left, inner, [=](index_t j, T value) { y[place[r + j]] = value; });
    }
  }
  for (index_t i = 0; i < w.bias.cols; ++i) y[i] += w.bias.data[i];
}

}  // namespace llama
