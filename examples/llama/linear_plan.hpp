/// @file
/// How each linear weight of a model is kept: whole, as the factors that compression left, or frozen in codes.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "config.hpp"
#include "lowrank/adapt/frozen_matrix.hpp"
#include "lowrank/factor/pivoted.hpp"

namespace llama {

/// What a parameter does. Those of one layer come first, in the order they have in memory; the first seven are linear.
enum class role : std::uint8_t {
  query,
  key,
  value,
  attention_output,
  gate,
  up,
  down,
  attention_norm,
  mlp_norm,
  embedding,
  final_norm,
  head
};
inline constexpr index_t linear_roles = 7;
inline constexpr index_t roles_per_layer = 9;
/// Linear weights with the same input, which are neighbours in memory.
inline constexpr std::array attention_inputs{role::query, role::key, role::value};
inline constexpr std::array feed_forward_inputs{role::gate, role::up};

/// whole: W, m x n. factors: W = U V with U m x r and V r x n. pivoted: V holds r of W's rows, the others are C V with C
/// (m - r) x r, and an order says which row is where. frozen: W in a format of its own, which no gradient reaches.
enum class linear_form : std::uint8_t { whole, factors, pivoted, frozen };
[[nodiscard]] constexpr bool has_factors(linear_form form) noexcept {
  return form == linear_form::factors || form == linear_form::pivoted;
}
enum class bias_term : std::uint8_t { none, added };

struct linear_kind {
  linear_form form{linear_form::whole};
  index_t rank{};  ///< of factors and pivoted
  bias_term bias{bias_term::none};
  lowrank::adapt::frozen_format format{};  ///< of frozen

  friend constexpr bool operator==(linear_kind const&, linear_kind const&) = default;
};

/// Rows and columns of a linear weight, out x in.
[[nodiscard]] constexpr lowrank::extents linear_shape(config const& c, role what) noexcept {
  switch (what) {
    case role::key:
    case role::value:
      return {c.kv_width(), c.width};
    case role::gate:
    case role::up:
      return {c.ffn, c.width};
    case role::down:
      return {c.width, c.ffn};
    default:
      return {c.width, c.width};
  }
}

/// One kind for each linear weight of the layers, and whether the embedding is frozen; all whole unless set. A head of its
/// own is always whole.
class linear_plan {
 public:
  [[nodiscard]] linear_kind at(role what, index_t layer) const noexcept {
    if (what == role::embedding) return embedding_;
    if (static_cast<index_t>(what) >= linear_roles) return {};
    auto const place = static_cast<std::size_t>(layer * linear_roles + static_cast<index_t>(what));
    return place < kinds_.size() ? kinds_[place] : linear_kind{};
  }
  /// Throws: argument_error for a role that is no linear weight of a layer, except for an embedding that is frozen.
  void set(role what, index_t layer, linear_kind kind) {
    if (what == role::embedding && kind.form == linear_form::frozen && kind.bias == bias_term::none) {
      embedding_ = kind;
      return;
    }
    lowrank::require(static_cast<index_t>(what) < linear_roles && layer >= 0, "llama::linear_plan",
                     "needs a linear weight of a layer, got role ", static_cast<int>(what), " of layer ", layer);
    auto const place = static_cast<std::size_t>(layer * linear_roles + static_cast<index_t>(what));
    if (place >= kinds_.size()) kinds_.resize(place + 1);
    kinds_[place] = kind;
  }
  /// Throws: argument_error for ranks beyond the sides and for layers that the model does not have.
  void check(config const& c) const {
    for (std::size_t place = 0; place < kinds_.size(); ++place) {
      auto const kind = kinds_[place];
      auto const what = static_cast<role>(static_cast<index_t>(place) % linear_roles);
      auto const shape = linear_shape(c, what);
      lowrank::require(kind == linear_kind{} || static_cast<index_t>(place) < linear_roles * c.layers,
                       "llama::linear_plan", "has a kind for layer ", static_cast<index_t>(place) / linear_roles,
                       " of a model with ", c.layers);
      lowrank::require(kind.form == linear_form::whole || kind.form == linear_form::frozen ||
                           (kind.rank > 0 && kind.rank <= std::min(shape.rows, shape.cols)),
                       "llama::linear_plan", "the rank of a ", shape, " weight must be in [1, ",
                       std::min(shape.rows, shape.cols), "], got ", kind.rank);
    }
  }

 private:
  linear_kind embedding_;
  std::vector<linear_kind> kinds_;
};

/// A linear weight as it is kept.
template <class T>
struct linear_weight {
  using view = lowrank::matrix_view<T const>;

  linear_form form{linear_form::whole};
  view left;                            ///< W, or U, or the coefficients C
  view right;                           ///< empty, or V, or the pivot rows
  view bias;                            ///< 1 x m, or empty
  std::span<std::int32_t const> order;  ///< pivoted: which row of W the pivots are, then which the others
  lowrank::adapt::frozen_matrix const* frozen{};

  [[nodiscard]] std::span<T const> biases() const noexcept {
    return {bias.data, static_cast<std::size_t>(bias.size())};
  }
  /// As the library's layers.  Requires: that form.
  [[nodiscard]] lowrank::factor_view<T const> factors() const noexcept { return {left, right, biases()}; }
  [[nodiscard]] lowrank::pivoted_view<T const> pivoted() const noexcept { return {right, left, order, biases()}; }
};

}  // namespace llama
