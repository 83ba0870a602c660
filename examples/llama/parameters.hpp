/// @file
/// All weights of the model in one flat allocation, each with its Hugging Face name.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "linear_plan.hpp"
#include "lowrank/core/buffer.hpp"
#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"

namespace llama {

template <class T>
using view = lowrank::matrix_view<T>;

/// Which tensor of a linear weight: all of it, or the left factor (U, or coefficients), the right one (V, or pivot rows),
/// the bias; frozen: all of it, in memory of its own. See `linear_plan`.
enum class linear_part : std::uint8_t { whole, left, right, bias, frozen };

/// Where it is and what it is called. Norm gains have one row.
struct parameter {
  std::string name;
  role what{};
  index_t layer{-1};
  lowrank::extents shape;
  index_t offset{};  ///< elements from the start of the flat allocation
  linear_part part{linear_part::whole};

  [[nodiscard]] bool is_norm() const noexcept {
    return what == role::attention_norm || what == role::mlp_norm || what == role::final_norm;
  }
  /// Whole weights of linear layers, out x in: the ones with a factored gradient. A tied head is an embedding.
  [[nodiscard]] bool is_linear() const noexcept {
    return !is_norm() && what != role::embedding && part == linear_part::whole;
  }
};

/// Position in `parameter_list`; of a weight in factors, that of the left one.
[[nodiscard]] constexpr index_t index_of(config const& c, role what, index_t layer = 0) noexcept {
  switch (what) {
    case role::embedding:
      return 0;
    case role::final_norm:
      return 1 + roles_per_layer * c.layers;
    case role::head:
      return c.head == output_head::tied ? 0 : 2 + roles_per_layer * c.layers;
    default:
      return 1 + roles_per_layer * layer + static_cast<index_t>(what);
  }
}

/// Names, shapes and offsets. Query, key and value follow each other without a gap, and so do gate and up: each group is
/// also one taller matrix, so that one product serves the group while all of it is whole. Right factors and biases come
/// at the end.
/// Throws: argument_error.
[[nodiscard]] inline std::vector<parameter> parameter_list(config const& c, linear_plan const& plan = {}) {
  validate(c);
  plan.check(c);
  std::vector<parameter> list, rest;
  index_t offset = 0;
  auto const add = [&](std::string name, role what, index_t layer, lowrank::extents shape) {
    list.push_back({std::move(name), what, layer, shape, offset});
    if (plan.at(what, layer).form == linear_form::frozen) list.back().part = linear_part::frozen;
    else offset += shape.size();
  };
  auto const add_linear = [&](std::string const& name, role what, index_t layer) {
    auto const shape = linear_shape(c, what);
    auto const kind = plan.at(what, layer);
    bool const pivoted = kind.form == linear_form::pivoted;
    if (kind.form == linear_form::whole || kind.form == linear_form::frozen) {
      add(name + ".weight", what, layer, shape);
    } else {
      add(name + (pivoted ? ".coefficients" : ".U") + ".weight", what, layer,
          {shape.rows - (pivoted ? kind.rank : 0), kind.rank});
      list.back().part = linear_part::left;
      rest.push_back({name + (pivoted ? ".pivot_rows" : ".V") + ".weight",
                      what,
                      layer,
                      {kind.rank, shape.cols},
                      0,
                      linear_part::right});
    }
    if (kind.bias == bias_term::added)
      rest.push_back({name + ".bias", what, layer, {1, shape.rows}, 0, linear_part::bias});
  };
  add("model.embed_tokens.weight", role::embedding, -1, {c.vocabulary, c.width});
  for (index_t l = 0; l < c.layers; ++l) {
    std::string const prefix = "model.layers." + std::to_string(l) + ".";
    add_linear(prefix + "self_attn.q_proj", role::query, l);
    add_linear(prefix + "self_attn.k_proj", role::key, l);
    add_linear(prefix + "self_attn.v_proj", role::value, l);
    add_linear(prefix + "self_attn.o_proj", role::attention_output, l);
    add_linear(prefix + "mlp.gate_proj", role::gate, l);
    add_linear(prefix + "mlp.up_proj", role::up, l);
    add_linear(prefix + "mlp.down_proj", role::down, l);
    add(prefix + "input_layernorm.weight", role::attention_norm, l, {1, c.width});
    add(prefix + "post_attention_layernorm.weight", role::mlp_norm, l, {1, c.width});
  }
  add("model.norm.weight", role::final_norm, -1, {1, c.width});
  if (c.head == output_head::own) add("lm_head.weight", role::head, -1, {c.vocabulary, c.width});
  for (auto& p : rest) {
    p.offset = offset;
    offset += p.shape.size();
    list.push_back(std::move(p));
  }
  return list;
}

/// The weights. Linear weights are out x in, row-major: y = x Wᵀ.
template <class T>
class parameters {
 public:
  explicit parameters(llama::config const& c, linear_plan plan = {})
      : config_{c}, plan_{std::move(plan)}, list_{parameter_list(c, plan_)} {
    auto const& last = list_.back();
    storage_ = lowrank::buffer<T>{last.offset + (last.part == linear_part::frozen ? 0 : last.shape.size())};
    places_.resize(static_cast<std::size_t>(linear_roles * c.layers));
    for (index_t i = 0; i < count(); ++i) {
      auto const& p = (*this)[i];
      if (p.part == linear_part::right) place(p.what, p.layer).right = i;
      if (p.part == linear_part::bias) place(p.what, p.layer).bias = i;
      if (p.part == linear_part::left && plan_.at(p.what, p.layer).form == linear_form::pivoted) {
        auto& order = place(p.what, p.layer).order;
        order.resize(static_cast<std::size_t>(linear_shape(c, p.what).rows));
        std::iota(order.begin(), order.end(), 0);
      }
    }
  }

  [[nodiscard]] llama::config const& config() const noexcept { return config_; }
  [[nodiscard]] linear_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] std::span<parameter const> list() const noexcept { return list_; }
  [[nodiscard]] index_t count() const noexcept { return static_cast<index_t>(list_.size()); }
  [[nodiscard]] parameter const& operator[](index_t index) const noexcept {
    return list_[static_cast<std::size_t>(index)];
  }
  [[nodiscard]] view<T> weight(index_t index) noexcept { return at(storage_.data(), (*this)[index]); }
  [[nodiscard]] view<T const> weight(index_t index) const noexcept { return at(storage_.data(), (*this)[index]); }
  [[nodiscard]] view<T const> weight(role what, index_t layer = 0) const noexcept {
    return weight(index_of(config_, what, layer));
  }
  /// Positions in the list of what else a linear weight has; -1: nothing.
  [[nodiscard]] index_t right_of(role what, index_t layer) const noexcept { return place(what, layer).right; }
  [[nodiscard]] index_t bias_of(role what, index_t layer) const noexcept { return place(what, layer).bias; }
  /// Pivoted: which row of W each pivot is, then which each of the others. At first all in their places.
  [[nodiscard]] std::span<std::int32_t> order(role what, index_t layer) noexcept { return place(what, layer).order; }
  [[nodiscard]] linear_weight<T> linear(role what, index_t layer) const noexcept {
    auto const& at = place(what, layer);
    auto const of = [&](index_t index) { return index < 0 ? view<T const>{} : weight(index); };
    return {plan_.at(what, layer).form,
            weight(index_of(config_, what, layer)),
            of(at.right),
            of(at.bias),
            at.order,
            &at.frozen};
  }
  /// A weight that the plan freezes; empty until it is put there.
  [[nodiscard]] lowrank::adapt::frozen_matrix const& frozen(role what, index_t layer = 0) const noexcept {
    return what == role::embedding ? embedding_ : place(what, layer).frozen;
  }
  /// Throws: argument_error unless T is float, shape_error.
  void freeze(role what, index_t layer, lowrank::adapt::frozen_matrix w) {
    auto const& p = (*this)[index_of(config_, what, layer)];
    lowrank::require(
        std::same_as<T, float> && p.part == linear_part::frozen && plan_.at(what, layer).format == w.format(),
        "llama::parameters", "\"", p.name, "\" is not kept in fp32 arithmetic as ", name(w.format()));
    lowrank::require<lowrank::shape_error>(p.shape == w.shape(), "llama::parameters", "\"", p.name, "\" is ", p.shape,
                                           ", got ", w.shape());
    (what == role::embedding ? embedding_ : place(what, layer).frozen) = std::move(w);
  }
  /// Scratch that passes take for frozen weights.
  [[nodiscard]] index_t workspace_bytes() const noexcept {
    index_t most = 0;
    for (auto const& p : list_)
      if (p.part == linear_part::frozen)
        most =
            std::max(most, lowrank::adapt::frozen_matrix::workspace_bytes(p.shape, plan_.at(p.what, p.layer).format));
    return most;
  }
  /// Query, key and value as one matrix: (width + 2 kv_width) x width. Empty unless all three are whole.
  [[nodiscard]] view<T const> query_key_value(index_t layer) const noexcept {
    return stacked(attention_inputs, layer, config_.width + 2 * config_.kv_width());
  }
  /// Gate and up as one matrix: 2 ffn x width. Empty unless both are whole.
  [[nodiscard]] view<T const> gate_up(index_t layer) const noexcept {
    return stacked(feed_forward_inputs, layer, 2 * config_.ffn);
  }
  /// Every element of every parameter that is not frozen, in the order of the list.
  [[nodiscard]] std::span<T> flat() noexcept { return storage_.span(); }
  [[nodiscard]] std::span<T const> flat() const noexcept { return storage_.span(); }
  [[nodiscard]] index_t bytes() const noexcept {
    index_t sum = storage_.bytes() + embedding_.bytes();
    for (auto const& at : places_) sum += at.frozen.bytes();
    return sum;
  }

 private:
  template <class U>
  static view<U> at(U* data, parameter const& p) noexcept {
    if (p.part == linear_part::frozen) return {};
    return lowrank::row_major(data + p.offset, p.shape);
  }
  view<T const> stacked(std::span<role const> group, index_t layer, index_t rows) const noexcept {
    for (role const what : group)
      if (plan_.at(what, layer).form != linear_form::whole) return {};
    return lowrank::row_major(storage_.data() + (*this)[index_of(config_, group[0], layer)].offset,
                              {rows, config_.width});
  }

  struct places {
    index_t right{-1}, bias{-1};
    std::vector<std::int32_t> order;
    lowrank::adapt::frozen_matrix frozen;
  };
  places& place(role what, index_t layer) noexcept {
    return places_[static_cast<std::size_t>(layer * linear_roles + static_cast<index_t>(what))];
  }
  places const& place(role what, index_t layer) const noexcept {
    return places_[static_cast<std::size_t>(layer * linear_roles + static_cast<index_t>(what))];
  }

  llama::config config_;
  linear_plan plan_;
  std::vector<parameter> list_;
  std::vector<places> places_;
  lowrank::adapt::frozen_matrix embedding_;
  lowrank::buffer<T> storage_;
};

struct initialisation {
  std::uint64_t seed{0};
  double deviation{0.02};
};

/// Norm gains 1, everything else normal(0, deviation): the same numbers for any number of threads, and in fp32 and fp64.
template <class Executor, class T>
void initialise(Executor& exec, parameters<T>& model, initialisation const& options) {
  constexpr index_t chunk = 4096;
  for (index_t index = 0; index < model.count(); ++index) {
    auto const w = model.weight(index);
    if (model[index].is_norm()) {
      std::fill(w.data, w.data + w.size(), T{1});
      continue;
    }
    lowrank::rng_key const key{.seed = options.seed,
                               .tensor = static_cast<std::uint32_t>(index),
                               .purpose = lowrank::rng_purpose::initialisation};
    exec.parallel((w.size() + chunk - 1) / chunk, [&](index_t task) {
      for (index_t e = task * chunk; e < std::min(w.size(), (task + 1) * chunk); e += 4) {
        auto const four = lowrank::gaussian_block(lowrank::random_block(key, static_cast<std::uint64_t>(e) / 4));
        for (index_t i = 0; i < std::min<index_t>(4, w.size() - e); ++i)
          w.data[e + i] = static_cast<T>(options.deviation) * static_cast<T>(four[static_cast<std::size_t>(i)]);
      }
    });
  }
}

}  // namespace llama
