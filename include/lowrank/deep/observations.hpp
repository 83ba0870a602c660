/// @file
/// Some elements of a matrix, indexed by row and by column.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/scalar.hpp"

namespace lowrank::deep {

/// One known element; its squared residual counts `weight` times.
template <class T>
struct observation {
  index_t row{}, col{};
  T value{};
  T weight{1};
};

/// A coordinate list, checked, sorted, and indexed both ways; entry k is the k-th in row order.
template <class T>
class observations {
 public:
  using value_type = T;

  /// Requires: every place inside of `shape` and named once, every value finite, every weight finite and not
  /// negative.
  /// Cost: sorts the list; allocates `bytes()`, and the list once more meanwhile.
  /// Throws: shape_error; argument_error, which names the first bad observation.
  observations(extents shape, std::span<observation<T> const> list) : shape_{checked(shape, list)} {
    std::vector<observation<T>> sorted(list.begin(), list.end());
    auto const before = [](auto const& a, auto const& b) { return a.row != b.row ? a.row < b.row : a.col < b.col; };
    std::sort(sorted.begin(), sorted.end(), before);
    for (std::size_t k = 1; k < sorted.size(); ++k)
      require(before(sorted[k - 1], sorted[k]), caller, "each place may be observed once, got (", sorted[k].row, ", ",
              sorted[k].col, ") twice");
    auto const count = static_cast<index_t>(sorted.size());
    values_ = buffer<T>{count};
    col_of_ = buffer<std::int32_t>{count};
    row_of_ = buffer<std::int32_t>{count};
    entry_of_ = buffer<std::int32_t>{count};
    bool const equal = std::all_of(sorted.begin(), sorted.end(), [](auto const& o) { return o.weight == T{1}; });
    weights_ = buffer<T>{equal ? 0 : count};
    row_begin_ = buffer<std::int32_t>{shape.rows + 1};
    col_begin_ = buffer<std::int32_t>{shape.cols + 1};
    for (auto const& o : sorted) ++row_begin_.data()[o.row + 1], ++col_begin_.data()[o.col + 1];
    for (index_t i = 0; i < shape.rows; ++i) row_begin_.data()[i + 1] += row_begin_.data()[i];
    for (index_t j = 0; j < shape.cols; ++j) col_begin_.data()[j + 1] += col_begin_.data()[j];
    std::vector<std::int32_t> next(col_begin_.data(), col_begin_.data() + shape.cols);
    for (index_t k = 0; k < count; ++k) {
      auto const& o = sorted[static_cast<std::size_t>(k)];
      values_.data()[k] = o.value;
      if (!equal) weights_.data()[k] = o.weight;
      col_of_.data()[k] = static_cast<std::int32_t>(o.col);
      index_t const place = next[static_cast<std::size_t>(o.col)]++;
      row_of_.data()[place] = static_cast<std::int32_t>(o.row);
      entry_of_.data()[place] = static_cast<std::int32_t>(k);
    }
  }

  [[nodiscard]] extents shape() const noexcept { return shape_; }
  [[nodiscard]] index_t count() const noexcept { return values_.size(); }
  [[nodiscard]] index_t bytes() const noexcept {
    return values_.bytes() + weights_.bytes() + col_of_.bytes() + row_of_.bytes() + entry_of_.bytes() +
           row_begin_.bytes() + col_begin_.bytes();
  }
  [[nodiscard]] std::span<T const> values() const noexcept { return values_.span(); }
  /// That of entry k; 1 for all where none was given.
  [[nodiscard]] T weight(index_t k) const noexcept { return weights_.size() > 0 ? weights_.data()[k] : T{1}; }

  /// Entries [row_begin(i), row_begin(i + 1)) lie in row i, in columns `col(k)`, ascending.
  [[nodiscard]] index_t row_begin(index_t i) const noexcept { return row_begin_.data()[i]; }
  [[nodiscard]] index_t col(index_t k) const noexcept { return col_of_.data()[k]; }
  /// Places [col_begin(j), col_begin(j + 1)) belong to column j: entry `entry(p)` in row `row(p)`, ascending.
  [[nodiscard]] index_t col_begin(index_t j) const noexcept { return col_begin_.data()[j]; }
  [[nodiscard]] index_t row(index_t p) const noexcept { return row_of_.data()[p]; }
  [[nodiscard]] index_t entry(index_t p) const noexcept { return entry_of_.data()[p]; }

  /// Their mean; 0 where there are none.
  [[nodiscard]] double mean() const noexcept {
    double sum = 0;
    for (T const v : values()) sum += static_cast<double>(v);
    return count() > 0 ? sum / static_cast<double>(count()) : 0;
  }

 private:
  static constexpr auto* caller = "deep::observations";

  static extents checked(extents shape, std::span<observation<T> const> list) {
    constexpr index_t most = std::numeric_limits<std::int32_t>::max();
    require<shape_error>(shape.rows > 0 && shape.cols > 0 && shape.rows < most && shape.cols < most, caller,
                         "sides must be in [1, 2^31 - 1), got ", shape);
    require<shape_error>(static_cast<index_t>(list.size()) < most, caller, "takes fewer than 2^31 - 1 of them, got ",
                         list.size());
    for (auto const& o : list) {
      require(o.row >= 0 && o.row < shape.rows && o.col >= 0 && o.col < shape.cols, caller, "places must lie in ",
              shape, ", got (", o.row, ", ", o.col, ")");
      require(is_finite(o.value), caller, "values must be finite, got ", o.value, " at (", o.row, ", ", o.col, ")");
      require(is_finite(o.weight) && o.weight >= T{}, caller, "weights must be finite and not negative, got ", o.weight,
              " at (", o.row, ", ", o.col, ")");
    }
    return shape;
  }

  extents shape_;
  buffer<T> values_, weights_;              // row order; no weights where all are 1
  buffer<std::int32_t> col_of_;             // row order
  buffer<std::int32_t> row_of_, entry_of_;  // column order
  buffer<std::int32_t> row_begin_, col_begin_;
};

}  // namespace lowrank::deep
