/// @file
/// Products with a weight that exists in a storage format only: panels of its rows are opened into scratch that a cache
/// holds and go to the executor's product from there.
#pragma once

#include "lowrank/linalg/primitives.hpp"
#include "lowrank/quant/weight.hpp"

namespace llama {

using lowrank::index_t;

/// Rows of a panel: whole quanta, about 4 MiB.
template <class W>
[[nodiscard]] index_t coded_panel_rows(W const& w) noexcept {
  constexpr index_t elements = 1 << 20;
  index_t const quantum = w.row_quantum(), rows = elements / std::max<index_t>(w.shape().cols, 1);
  return std::min(w.shape().rows, std::max(rows / quantum, index_t{1}) * quantum);
}
/// Scratch that both products take.
template <class W>
[[nodiscard]] index_t coded_product_bytes(W const& w) noexcept {
  return W::panels ? lowrank::scratch_bytes<float>(coded_panel_rows(w) * w.shape().cols) : 0;
}

namespace detail {

template <class E, class W, class Body>
void for_coded_panels(E& exec, W const& w, Body const& body) {
  index_t const height = coded_panel_rows(w);
  for (index_t begin = 0; begin < w.shape().rows; begin += height) {
    lowrank::scratch_scope const scope{exec};
    index_t const end = std::min(w.shape().rows, begin + height);
    body(lowrank::const_view_of<E>(w.open(exec, begin, end)), begin, end);
  }
}

}  // namespace detail

/// Y = X Wᵀ.
/// Shapes: X T x n, W m x n, Y T x m.  Cost: 2 T m n flops, and one pass over the weight.
template <class E, lowrank::weight_view<E> W>
void apply_coded(E& exec, lowrank::const_view_of<E> x, W const& w, lowrank::view_of<E> y) {
  detail::for_coded_panels(exec, w, [&](lowrank::const_view_of<E> panel, index_t begin, index_t end) {
    multiply(exec, 1.0F, x, panel.t(), 0.0F, y.col_range(begin, end));
  });
}

/// dX = dY W + keep dX: the gradient of the input.
/// Shapes: dY T x m, W m x n, dX T x n.  Cost: as `apply_coded`.
template <class E, lowrank::weight_view<E> W>
void apply_coded_transposed(E& exec, lowrank::const_view_of<E> dy, W const& w, float keep, lowrank::view_of<E> dx) {
  detail::for_coded_panels(exec, w, [&](lowrank::const_view_of<E> panel, index_t begin, index_t end) {
    multiply(exec, 1.0F, dy.col_range(begin, end), panel, begin == 0 ? keep : 1.0F, dx);
  });
}

}  // namespace llama
