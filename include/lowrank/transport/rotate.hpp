/// @file
/// Moments that turn with the basis.
#pragma once

#include "lowrank/linalg/reductions.hpp"
#include "lowrank/transport/policy.hpp"

namespace lowrank::transport {

/// What the variance of a direction is that the old basis did not have.
enum class unknown_variance : std::uint8_t {
  zero,  ///< LDAdam's. With Adam's betas (0.9, 0.999) a first step there is (1 - b1) / sqrt(1 - b2) = 3.2 rates long
  column_mean,  ///< the mean over the old directions, in proportion to the part that is new; of the variance around the
                ///< mean, so where gradients hardly vary it helps little
};

/// With C = P_newᵀ P_old, weights w1 = 1 - b1^t and w2 = 1 - b2^t, and squares by element:
/// M' = C M,  V' = w2 |S (V / w2 - (M / w1)²) + (M' / w1)²|,  S = C² (zero), or C² + (1 - rows of C²) / r (column_mean).
/// For rules without second moments, M' = C M. Two-sided bases turn from both sides.
/// Reference: Robert et al. (LDAdam), arXiv 2410.16103, Algorithm 1, lines 6-7.
struct rotate {
  using fills = slots::transport;
  static constexpr transport_traits traits{.needs_change = true};
  template <class Rule>
  static constexpr bool fits = lists_moments<Rule>;

  unknown_variance unknown{unknown_variance::column_mean};

  [[nodiscard]] index_t workspace_bytes(extents inner, index_t sides) const {
    index_t const matrix = scratch_bytes<float>(inner.size());
    index_t const squares = sides * scratch_bytes<float>(inner.rows * inner.rows);
    return 3 * matrix + squares + (sides > 1 ? matrix : 0) + scratch_bytes<double>(2);
  }
  template <executor E, class Rule, class State>
  void apply(E& exec, Rule const& rule, State& state, transport_inputs<E> const& in) const {
    using format = typename Rule::moment_format;
    constexpr auto const& orders = Rule::moment_orders;
    constexpr std::size_t count = orders.size();
    static_assert(count <= 2 && (count == 0 || orders[0] == moment_order::first || count == 1),
                  "lowrank: rotate knows rules with a first moment, a second one, or a first and then a second");
    if constexpr (count > 0) {
      scratch_scope const scope{exec};
      auto* const weight = exec.arena().template take<double>(2);
      exec.single([=, t = state.steps.data()] LOWRANK_DEVICE {
        for (std::size_t k = 0; k < count; ++k)
          weight[k] = *t > 0 ? 1 - std::pow(rule.moment_beta(k), static_cast<double>(*t)) : 1.0;
      });
      auto const first = format::read(exec, state.moment[0], in.facing_side, in.from);
      auto const moved = take_matrix(exec, in.to, in.facing_side);
      if constexpr (orders[0] == moment_order::second) {
        turn_squares(exec, in, const_view_of<E>(first), moved);
      } else {
        turn(exec, in.change.left, in.change.right, const_view_of<E>(first), moved);
      }
      if constexpr (count == 2) {
        auto const second = format::read(exec, state.moment[1], in.facing_side, in.from);
        auto const centred = take_matrix(exec, in.from, in.facing_side);
        auto const spread = take_matrix(exec, in.to, in.facing_side);
        auto const own = [&](auto view) { return facing(in.facing_side, view); };
        launch_elements(exec, in.from.size(),
                        [=, m = own(first).data, v = own(second).data, to = own(centred).data] LOWRANK_DEVICE(
                            auto tile, index_t at, index_t valid) {
                          using real = typename decltype(tile)::real;
                          auto mean = tile.load(m + at, valid), square = tile.load(v + at, valid);
                          real const w1{static_cast<float>(1 / weight[0])}, w2{static_cast<float>(1 / weight[1])};
                          tile.each([&](auto k) {
                            auto const centre = w1 * mean[k];
                            square[k] = w2 * square[k] - centre * centre;
                          });
                          tile.store(to + at, square, valid);
                        });
        turn_squares(exec, in, const_view_of<E>(centred), spread);
        launch_elements(
            exec, in.to.size(),
            [=, m = own(moved).data, v = own(spread).data] LOWRANK_DEVICE(auto tile, index_t at, index_t valid) {
              using real = typename decltype(tile)::real;
              auto mean = tile.load(m + at, valid), square = tile.load(v + at, valid);
              real const w1{static_cast<float>(1 / weight[0])}, w2{static_cast<float>(weight[1])};
              tile.each([&](auto k) {
                auto const centre = w1 * mean[k];
                auto const sum = square[k] + centre * centre;
                square[k] = w2 * (sign(sum) * sum);
              });
              tile.store(v + at, square, valid);
            });
        format::write(exec, state.moment[1], in.facing_side, const_view_of<E>(spread));
      }
      format::write(exec, state.moment[0], in.facing_side, const_view_of<E>(moved));
    }
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  /// out = left m rightᵀ, or left m.
  template <executor E>
  static void turn(E& exec, const_view_of<E> left, const_view_of<E> right, const_view_of<E> m, view_of<E> out) {
    if (right.empty()) return multiply(exec, 1.0F, left, m, 0.0F, out);
    scratch_scope const scope{exec};
    auto const half = take_matrix(exec, {left.rows, m.cols});
    multiply(exec, 1.0F, left, m, 0.0F, half);
    multiply(exec, 1.0F, const_view_of<E>(half), right.t(), 0.0F, out);
  }
  /// The same with the squares of the change.
  template <executor E>
  void turn_squares(E& exec, transport_inputs<E> const& in, const_view_of<E> m, view_of<E> out) const {
    scratch_scope const scope{exec};
    auto const squares = [&](const_view_of<E> c) {
      auto const s = take_matrix(exec, c.shape());
      row_mean_squares(exec, c,
                       [=, fill = unknown == unknown_variance::column_mean] LOWRANK_DEVICE(index_t i, double mean) {
                         auto const old = static_cast<double>(c.cols);
                         auto const rest = fill ? static_cast<float>(std::max(0.0, 1 - mean * old) / old) : 0.0F;
                         for (index_t j = 0; j < c.cols; ++j) s(i, j) = c(i, j) * c(i, j) + rest;
                       });
      return const_view_of<E>(s);
    };
    auto const left = squares(in.change.left);
    turn(exec, left, in.change.right.empty() ? in.change.right : squares(in.change.right), m, out);
  }
};

}  // namespace lowrank::transport
