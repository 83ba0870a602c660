/// @file
/// How a row of features becomes coordinates of a square matrix, and how its coordinates become features again: the linear maps
/// of MoRA on both sides of its matrix, with their transposes.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowrank/core/view.hpp"

namespace lowrank::adapt::detail {

/// Which coordinate feature i belongs to. Strided: i mod side. Contiguous: side neighbourhoods, the first of them one
/// feature longer where they do not come out even.
enum class sharing : std::uint8_t { strided, contiguous };

/// Features that share coordinates. On the side of the inputs a strided row is filled up to whole periods with its own first
/// features, and these count twice.
struct feature_groups {
  index_t features{}, side{};
  sharing order{sharing::strided};

  [[nodiscard]] constexpr index_t group_of(index_t i) const noexcept {
    if (order == sharing::strided) return i % side;
    index_t const width = features / side, longer = features % side;
    return i < longer * (width + 1) ? i / (width + 1) : longer + (i - longer * (width + 1)) / width;
  }
  /// f(feature, group) for every feature.
  template <class F>
  void each(F const& f) const {
    if (order == sharing::strided) {
      for (index_t begin = 0; begin < features; begin += side) {
        index_t const count = std::min(side, features - begin);
        for (index_t j = 0; j < count; ++j) f(begin + j, j);
      }
      return;
    }
    index_t at = 0;
    for (index_t group = 0; group < side; ++group)
      for (index_t left = features / side + (group < features % side ? 1 : 0); left > 0; --left) f(at++, group);
  }
  /// And for those that fill up the last period.
  template <class F>
  void each_filled(F const& f) const {
    each(f);
    if (order == sharing::strided && features % side != 0)
      for (index_t j = features % side; j < side; ++j) f(j - features % side, j);
  }
};

/// Row t of a matrix, for loops that are worth compiling for neighbours in memory. f(row) with row(j) the element.
template <class T, class F>
void with_row(matrix_view<T> v, index_t t, F const& f) {
  T* const row = v.data + t * v.row_stride;
  if (v.col_stride == 1) f([row](index_t j) -> T& { return row[j]; });
  else f([row, stride = v.col_stride](index_t j) -> T& { return row[j * stride]; });
}

/// Types 1 to 4: sums of the features that share a coordinate; every output is the coordinate it belongs to.
template <class T>
struct shared_maps {
  feature_groups inputs, outputs;

  [[nodiscard]] index_t groups() const noexcept { return 1; }
  [[nodiscard]] index_t side() const noexcept { return inputs.side; }

  template <class Row>
  void load(Row const& x, T* u) const {
    std::fill(u, u + side(), T{});
    inputs.each_filled([&](index_t feature, index_t group) { u[group] += x(feature); });
  }
  template <class Row>
  void add_load_transposed(T const* u, Row const& dx) const {
    inputs.each_filled([&](index_t feature, index_t group) { dx(feature) += u[group]; });
  }
  template <class Row>
  void add_store(T const* z, Row const& y) const {
    outputs.each([&](index_t feature, index_t group) { y(feature) += z[group]; });
  }
  template <class Row>
  void store_transposed(Row const& dy, T* z) const {
    std::fill(z, z + side(), T{});
    outputs.each([&](index_t feature, index_t group) { z[group] += dy(feature); });
  }
  /// f(group, coordinate) for what output i is the sum of.
  template <class F>
  void each_source(index_t i, F const& f) const {
    f(index_t{0}, outputs.group_of(i));
  }
};

/// Type 6: the row is cut into pieces of `side`, the last one filled up with the first features; piece g is turned by g times the
/// angles of rotary embeddings, so that one matrix tells the pieces apart. Outputs are the pieces side by side, over and
/// over; where there are fewer outputs than inputs, pieces that meet in one place add up, so that no input is without effect.
template <class T>
class rotated_maps {
 public:
  rotated_maps() = default;
  rotated_maps(extents shape, index_t side)
      : outputs_{shape.rows}, inputs_{shape.cols}, side_{side}, groups_{pieces(shape.cols)}, half_{side / 2} {
    turn_.resize(static_cast<std::size_t>(2 * groups_ * half_));
    for (index_t g = 0; g < groups_; ++g)
      for (index_t j = 0; j < half_; ++j) {
        double const angle =
            static_cast<double>(g) * std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(side_));
        turn_[static_cast<std::size_t>(2 * g * half_ + j)] = static_cast<T>(std::cos(angle));
        turn_[static_cast<std::size_t>((2 * g + 1) * half_ + j)] = static_cast<T>(std::sin(angle));
      }
  }

  [[nodiscard]] index_t groups() const noexcept { return groups_; }
  [[nodiscard]] index_t side() const noexcept { return side_; }
  [[nodiscard]] index_t bytes() const noexcept { return static_cast<index_t>(turn_.size() * sizeof(T)); }

  template <class Row>
  void load(Row const& x, T* u) const {
    for (index_t g = 0; g < groups_; ++g) {
      T const *cosine = cosines(g), *sine = cosine + half_;
      T* const to = u + g * side_;
      fill_piece(x, g, to);
      for (index_t j = 0; j < half_; ++j) {
        T const p = to[j], q = to[j + half_];
        to[j] = p * cosine[j] - q * sine[j];
        to[j + half_] = q * cosine[j] + p * sine[j];
      }
    }
  }
  template <class Row>
  void add_load_transposed(T const* u, Row const& dx) const {
    for (index_t g = 0; g < groups_; ++g) {
      T const *cosine = cosines(g), *sine = cosine + half_;
      T const* const from = u + g * side_;
      index_t const begin = g * side_;
      auto const place = [&](index_t at) { return at < inputs_ ? at : at - inputs_; };
      for (index_t j = 0; j < half_; ++j) {
        T const p = from[j], q = from[j + half_];
        dx(place(begin + j)) += p * cosine[j] + q * sine[j];
        dx(place(begin + half_ + j)) += q * cosine[j] - p * sine[j];
      }
    }
  }
  template <class Row>
  void add_store(T const* z, Row const& y) const {
    each_pair([&](index_t piece, index_t group) {
      index_t const begin = piece * side_, count = std::min(side_, outputs_ - begin);
      for (index_t j = 0; j < count; ++j) y(begin + j) += z[group * side_ + j];
    });
  }
  template <class Row>
  void store_transposed(Row const& dy, T* z) const {
    std::fill(z, z + groups_ * side_, T{});
    each_pair([&](index_t piece, index_t group) {
      index_t const begin = piece * side_, count = std::min(side_, outputs_ - begin);
      for (index_t j = 0; j < count; ++j) z[group * side_ + j] += dy(begin + j);
    });
  }
  template <class F>
  void each_source(index_t i, F const& f) const {
    index_t const outputs = pieces(outputs_), meetings = std::max(groups_, outputs);
    for (index_t t = i / side_; t < meetings; t += outputs) f(t % groups_, i % side_);
  }

 private:
  [[nodiscard]] index_t pieces(index_t features) const noexcept { return (features + side_ - 1) / side_; }
  [[nodiscard]] T const* cosines(index_t g) const noexcept { return turn_.data() + 2 * g * half_; }
  template <class Row>
  void fill_piece(Row const& x, index_t g, T* to) const {
    index_t const begin = g * side_, count = std::min(side_, inputs_ - begin);
    for (index_t j = 0; j < count; ++j) to[j] = x(begin + j);
    for (index_t j = count; j < side_; ++j) to[j] = x(j - count);
  }
  /// f(piece of the outputs, group of the inputs): both go round until each has been met.
  template <class F>
  void each_pair(F const& f) const {
    index_t const outputs = pieces(outputs_), meetings = std::max(groups_, outputs);
    for (index_t t = 0; t < meetings; ++t) f(t % outputs, t % groups_);
  }

  index_t outputs_{}, inputs_{}, side_{1}, groups_{}, half_{};
  std::vector<T> turn_;  ///< of each group: half_ cosines, half_ sines
};

}  // namespace lowrank::adapt::detail
