/// @file
/// The library's elementwise rules on fp64 numbers.
#pragma once

#include "lowrank/core/buffer.hpp"
#include "lowrank/rule/elementwise.hpp"

namespace lowrank::deep {

/// A number of fp64 that formulas of rules take for a pack: they find its functions by its type.
struct wide_number {
  double value;

  friend constexpr wide_number operator+(wide_number a, wide_number b) noexcept { return {a.value + b.value}; }
  friend constexpr wide_number operator-(wide_number a, wide_number b) noexcept { return {a.value - b.value}; }
  friend constexpr wide_number operator*(wide_number a, wide_number b) noexcept { return {a.value * b.value}; }
  friend constexpr wide_number operator/(wide_number a, wide_number b) noexcept { return {a.value / b.value}; }
  friend constexpr wide_number quotient(wide_number a, wide_number b) noexcept { return a / b; }
  friend constexpr wide_number fused_multiply_add(wide_number a, wide_number b, wide_number c) noexcept {
    return a * b + c;
  }
  friend wide_number square_root(wide_number a) noexcept { return {std::sqrt(a.value)}; }
};

/// An element formula with moments and arithmetic in fp64; its numbers (betas, rate) stay the formula's own, of fp32.
template <class Formula>
concept wide_formula = rule::element_formula<Formula> &&
    requires(wide_number g, std::array<wide_number, static_cast<std::size_t>(Formula::moment_count)> m,
             typename Formula::scalars s) {
  { Formula::direction(g, m, s) } -> std::same_as<wide_number>;
};

/// Moments of one matrix, and how often it was stepped.
template <wide_formula Formula>
class wide_state {
 public:
  static constexpr auto moments = static_cast<std::size_t>(Formula::moment_count);

  explicit wide_state(index_t count) {
    for (auto& m : moment_) m = buffer<double>{count};
  }
  [[nodiscard]] static constexpr index_t bytes(index_t count) noexcept {
    return static_cast<index_t>(moments) * count * index_t{sizeof(double)} + index_t{sizeof(std::int64_t)};
  }

  /// g <- rate N(g), moments moved on; `scale` multiplies the rate.
  /// Shapes: g packed, of `count` elements.
  template <class E>
  void turn(E& exec, Formula const& formula, double learning_rate, double scale, matrix_view<double> g) {
    ++steps_;
    auto const in = static_cast<float>(learning_rate);
    auto const s = formula.at(steps_, in);
    // A rate given in fp64 is not rounded where the formula hands it on as it is.
    float const rounded = formula.rate(steps_, in);
    double const out = scale * (rounded == in ? learning_rate : static_cast<double>(rounded));
    constexpr index_t together = 4096;
    exec.parallel((g.size() + together - 1) / together, [&](index_t task) {
      for (index_t e = task * together; e < std::min(g.size(), (task + 1) * together); ++e) {
        std::array<wide_number, moments> m;
        for (std::size_t k = 0; k < moments; ++k) m[k] = {moment_[k].data()[e]};
        g.data[e] = out * Formula::direction(wide_number{g.data[e]}, m, s).value;
        for (std::size_t k = 0; k < moments; ++k) moment_[k].data()[e] = m[k].value;
      }
    });
  }

 private:
  std::array<buffer<double>, moments> moment_;
  std::int64_t steps_{};
};

}  // namespace lowrank::deep
