/// @file
/// Products with a triangle, for executors without a faster way.
#pragma once

#include <algorithm>

#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

/// C = A W for upper triangular W, its zeros stored, most of which are skipped. An executor whose library knows triangles
/// brings its own overload.
/// Shapes: A m x l, W l x l, C m x l.  Requires: no overlap.  Cost: 1.25 m l² flops; workspace 0.
/// Throws: shape_error.
template <executor E>
void multiply_upper(E& exec, const_view_of<E> a, const_view_of<E> w, view_of<E> c) {
  require<shape_error>(w.rows == w.cols && a.cols == w.rows && c.shape() == a.shape(), "multiply_upper",
                       "needs m x l times l x l into m x l, got ", a.shape(), " times ", w.shape(), " into ",
                       c.shape());
  index_t const width = std::max<index_t>(128, (w.cols / 4 + 63) / 64 * 64);
  for (index_t begin = 0; begin < w.cols; begin += width) {
    index_t const end = std::min(w.cols, begin + width);
    multiply(exec, 1.0F, a.col_range(0, end), w.sub({0, end, begin, end}), 0.0F, c.col_range(begin, end));
  }
}

}  // namespace lowrank
