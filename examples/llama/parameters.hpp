/// @file
/// All weights of the model in one flat allocation, each with its Hugging Face name.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"
#include "lowrank/core/buffer.hpp"
#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"

namespace llama {

template <class T>
using view = lowrank::matrix_view<T>;

/// What a parameter does. Those of one layer come first, in the order they have in memory.
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
inline constexpr index_t roles_per_layer = 9;

/// Where it is and what it is called. Norm gains have one row.
struct parameter {
  std::string name;
  role what{};
  index_t layer{-1};
  lowrank::extents shape;
  index_t offset{};  ///< elements from the start of the flat allocation

  [[nodiscard]] bool is_norm() const noexcept {
    return what == role::attention_norm || what == role::mlp_norm || what == role::final_norm;
  }
  /// Weights of linear layers, out x in: the ones with a factored gradient. A tied head is an embedding.
  [[nodiscard]] bool is_linear() const noexcept { return !is_norm() && what != role::embedding; }
};

/// Position in `parameter_list`.
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
/// also one taller matrix, so that one product serves the group.
[[nodiscard]] inline std::vector<parameter> parameter_list(config const& c) {
  validate(c);
  std::vector<parameter> list;
  index_t offset = 0;
  auto const add = [&](std::string name, role what, index_t layer, lowrank::extents shape) {
    list.push_back({std::move(name), what, layer, shape, offset});
    offset += shape.size();
  };
  add("model.embed_tokens.weight", role::embedding, -1, {c.vocabulary, c.width});
  for (index_t l = 0; l < c.layers; ++l) {
    std::string const prefix = "model.layers." + std::to_string(l) + ".";
    add(prefix + "self_attn.q_proj.weight", role::query, l, {c.width, c.width});
    add(prefix + "self_attn.k_proj.weight", role::key, l, {c.kv_width(), c.width});
    add(prefix + "self_attn.v_proj.weight", role::value, l, {c.kv_width(), c.width});
    add(prefix + "self_attn.o_proj.weight", role::attention_output, l, {c.width, c.width});
    add(prefix + "mlp.gate_proj.weight", role::gate, l, {c.ffn, c.width});
    add(prefix + "mlp.up_proj.weight", role::up, l, {c.ffn, c.width});
    add(prefix + "mlp.down_proj.weight", role::down, l, {c.width, c.ffn});
    add(prefix + "input_layernorm.weight", role::attention_norm, l, {1, c.width});
    add(prefix + "post_attention_layernorm.weight", role::mlp_norm, l, {1, c.width});
  }
  add("model.norm.weight", role::final_norm, -1, {1, c.width});
  if (c.head == output_head::own) add("lm_head.weight", role::head, -1, {c.vocabulary, c.width});
  return list;
}

/// The weights. Linear weights are out x in, row-major: y = x Wᵀ.
template <class T>
class parameters {
 public:
  explicit parameters(llama::config const& c) : config_{c}, list_{parameter_list(c)} {
    storage_ = lowrank::buffer<T>{list_.back().offset + list_.back().shape.size()};
  }

  [[nodiscard]] llama::config const& config() const noexcept { return config_; }
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
  /// Query, key and value as one matrix: (width + 2 kv_width) x width.
  [[nodiscard]] view<T const> query_key_value(index_t layer) const noexcept {
    return stacked(role::query, layer, config_.width + 2 * config_.kv_width());
  }
  /// Gate and up as one matrix: 2 ffn x width.
  [[nodiscard]] view<T const> gate_up(index_t layer) const noexcept {
    return stacked(role::gate, layer, 2 * config_.ffn);
  }
  /// Every element of every parameter, in the order of the list.
  [[nodiscard]] std::span<T> flat() noexcept { return storage_.span(); }
  [[nodiscard]] std::span<T const> flat() const noexcept { return storage_.span(); }
  [[nodiscard]] index_t bytes() const noexcept { return storage_.bytes(); }

 private:
  template <class U>
  static view<U> at(U* data, parameter const& p) noexcept {
    return lowrank::row_major(data + p.offset, p.shape);
  }
  view<T const> stacked(role first, index_t layer, index_t rows) const noexcept {
    return lowrank::row_major(storage_.data() + (*this)[index_of(config_, first, layer)].offset, {rows, config_.width});
  }

  llama::config config_;
  std::vector<parameter> list_;
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
