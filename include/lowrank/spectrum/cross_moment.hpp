/// @file
/// How the inputs of a layer before and after a change of the layers below it go together.
#pragma once

#include "lowrank/spectrum/statistics.hpp"

namespace lowrank {

namespace detail {

/// Rows that are summed in fp32 before they are added to fp64 sums, and columns of a tile of products.
inline constexpr index_t cross_rows = 256, cross_tile = 512;

/// Rows divided by a power of two, so that no product of two elements overflows or vanishes.
struct scaled_rows {
  matrix_view<float> rows;
  double scale{1};
};

/// out = x / scale.
template <std::derived_from<host_executor> E>
[[nodiscard]] scaled_rows scale_rows(E& exec, matrix_view<float const> x, matrix_view<float> out) {
  std::uint32_t largest = 0;
  for (index_t t = 0; t < x.rows; ++t)
    for (index_t j = 0; j < x.cols; ++j) largest = std::max(largest, magnitude_bits(x(t, j)));
  int const exponent = largest > 0 ? binary_exponent(largest) : 0;
  double const down = std::ldexp(1.0, -exponent);
  map_elements(exec, "cross_moment", x, out,
               [=](float value) { return static_cast<float>(static_cast<double>(value) * down); });
  return {out, std::ldexp(1.0, exponent)};
}

}  // namespace detail

/// E[x x'ᵀ] over pairs of rows, all sums in fp64: products in fp32 over 256 rows at a time. Those of several workers add up.
/// Cost: 8 n² bytes.
class cross_moment {
 public:
  cross_moment() = default;
  explicit cross_moment(index_t features) : sum_{features, features} {}

  [[nodiscard]] index_t features() const noexcept { return sum_.shape().rows; }
  [[nodiscard]] index_t count() const noexcept { return count_; }
  [[nodiscard]] index_t bytes() const noexcept { return sum_.bytes(); }
  /// Scratch of `add`.
  [[nodiscard]] static constexpr index_t workspace_bytes(index_t features) noexcept {
    index_t const tile = std::min(features, detail::cross_tile);
    return 2 * scratch_bytes<float>(detail::cross_rows * features) + scratch_bytes<float>(tile * tile);
  }

  /// Takes in the rows of X and what has become of them.
  /// Shapes: X and changed T x n, T >= 0.  Cost: 2 T n² flops in fp32; workspace workspace_bytes(n).
  /// Throws: shape_error; argument_error where a row is not finite. Nothing has changed then.
  template <std::derived_from<host_executor> E>
  void add(E& exec, matrix_view<float const> x, matrix_view<float const> changed) {
    constexpr auto* caller = "cross_moment::add";
    require<shape_error>(x.shape() == changed.shape(), caller, "needs as many rows of both, got ", x.shape(), " and ",
                         changed.shape());
    detail::check_rows(exec, caller, x, features());
    detail::check_rows(exec, caller, changed, features());
    scratch_scope const scope{exec};
    index_t const n = features(), side = std::min(n, detail::cross_tile), step = detail::cross_rows;
    auto const left = take_matrix(exec, {step, n}), right = take_matrix(exec, {step, n});
    auto const tile = take_matrix(exec, {side, side});
    for (index_t t = 0; t < x.rows; t += step) {
      index_t const end = std::min(x.rows, t + step);
      auto const a = detail::scale_rows(exec, x.row_range(t, end), left.row_range(0, end - t));
      auto const b = detail::scale_rows(exec, changed.row_range(t, end), right.row_range(0, end - t));
      for (index_t i = 0; i < n; i += side)
        for (index_t j = 0; j < n; j += side) {
          auto const out = sum_.view().sub({i, std::min(n, i + side), j, std::min(n, j + side)});
          auto const part = tile.sub({0, out.rows, 0, out.cols});
          multiply(exec, 1.0F, matrix_view<float const>(a.rows).col_range(i, i + out.rows).t(),
                   matrix_view<float const>(b.rows).col_range(j, j + out.cols), 0.0F, part);
          detail::for_row_groups(exec, out.shape(), [&](index_t begin, index_t last) {
            for (index_t k = begin; k < last; ++k)
              for (index_t l = 0; l < out.cols; ++l) out(k, l) += a.scale * b.scale * static_cast<double>(part(k, l));
          });
        }
    }
    count_ += x.rows;
  }

  /// Takes in what another one has seen.
  /// Throws: shape_error where the features differ.
  void merge(cross_moment const& other) {
    require<shape_error>(other.features() == features(), "cross_moment::merge", "needs ", features(), " features, got ",
                         other.features());
    for (index_t i = 0; i < sum_.shape().size(); ++i) sum_.data()[i] += other.sum_.data()[i];
    count_ += other.count_;
  }

  /// out = E[x x'ᵀ].  Shapes: n x n.  Throws: shape_error; state_error before the first row.
  void moment(matrix_view<double> out) const {
    require<shape_error>(out.shape() == sum_.shape(), "cross_moment", "needs a matrix of ", sum_.shape(), ", got ",
                         out.shape());
    require<state_error>(count_ > 0, "cross_moment", "has seen no rows");
    for (index_t i = 0; i < out.rows; ++i)
      for (index_t j = 0; j < out.cols; ++j) out(i, j) = sum_(i, j) / static_cast<double>(count_);
  }

  template <class F>
  friend void visit_state(cross_moment& s, F&& f) {
    f("count", s.count_);
    f("sum", s.sum_);
  }

 private:
  index_t count_{};
  matrix<double> sum_;
};

}  // namespace lowrank
