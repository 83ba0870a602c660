/// @file
/// The order of the rows of query and key weights, which depends on the elements that rotate together.
#pragma once

#include <algorithm>

#include "parameters.hpp"

namespace llama {

/// Reorders the rows of a query or key weight, head by head, so that rotating pairs of `to` gives the scores that rotating
/// pairs of `from` gave: element j of pair i is row 2i + j interleaved, and row i + j half in halves.
/// Cost: memory of one head.
template <class T>
void move_rotary_rows(view<T> weight, index_t head_width, rotary_pairs from, rotary_pairs to) {
  if (from == to) return;
  index_t const half = head_width / 2, cols = weight.cols;
  std::vector<T> head(static_cast<std::size_t>(head_width * cols));
  for (index_t first = 0; first < weight.rows; first += head_width) {
    T* const rows = weight.data + first * cols;
    std::copy_n(rows, head.size(), head.data());
    for (index_t i = 0; i < half; ++i)
      for (index_t j = 0; j < 2; ++j) {
        index_t const interleaved = 2 * i + j, split = i + j * half;
        index_t const old_row = from == rotary_pairs::interleaved ? interleaved : split;
        index_t const new_row = from == rotary_pairs::interleaved ? split : interleaved;
        std::copy_n(head.data() + old_row * cols, cols, rows + new_row * cols);
      }
  }
}

}  // namespace llama
