/// @file
/// How much memory training a published shape takes, before anything is allocated.
#pragma once

#include "gradients.hpp"
#include "lowrank/optim/plan.hpp"
#include "lowrank/optim/presets.hpp"
#include "shapes.hpp"

namespace llama {

/// Of the matrices of layers. Embedding and head are bf16 beside int8, norm gains always fp32.
/// customary: fp32 for adamw and galore_adamw, bf16 for low-bit moments, int8 for Q-GaLore.
enum class weight_format : std::uint8_t { customary, fp32, bf16, int8 };

/// What a pass keeps of its layers: everything, or what enters each, from which the backward pass computes one at a time
/// again (layerwise/layer_passes.hpp).
enum class checkpointing : std::uint8_t { off, on };

struct plan_settings {
  std::string model{"llama-7b"}, optimizer{"q_galore_adamw_8bit"};
  index_t rank{0};  ///< 0: the one published for the model
  index_t batch{1}, sequence{256};
  checkpointing layers_kept{checkpointing::on};
  gradient_storage gradients{gradient_storage::one_at_a_time};
  gradient_form form{gradient_form::factored};  ///< of matrices whose optimizer takes factors
  weight_format weights{weight_format::customary};
  /// Embedding and head are trained in blocks of that many rows; 0: each whole; -1: 1024 for Q-GaLore layer by layer, as
  /// layerwise/ does, else 0.
  index_t vocabulary_rows{-1};
};

/// Names that `plan_of` knows.
[[nodiscard]] constexpr auto plannable_optimizers() noexcept {
  return std::array<std::string_view, 6>{"adamw",        "adamw_8bit",        "adamw_4bit",
                                         "galore_adamw", "galore_adamw_8bit", "q_galore_adamw_8bit"};
}

namespace detail {

/// The groups of a model: matrices of layers, norms, and the rest.
template <class W, class Vocabulary, class InLayers, class Rest>
[[nodiscard]] std::vector<lowrank::plan_group> groups_over(InLayers const& in_layers, Rest const& rest) {
  using name_view = std::string_view;
  using lowrank::extents;
  return {lowrank::planned<W>("layers", in_layers,
                              [](name_view name, extents) { return name.find("_proj.") != name_view::npos; }),
          lowrank::planned<lowrank::fp32_weight<>>(
              "norms", lowrank::adamw{}, [](name_view name, extents) { return name.find("norm.") != name_view::npos; }),
          lowrank::planned<Vocabulary>("embedding, head", rest, [](name_view, extents) { return true; })};
}
template <class InLayers, class Rest>
[[nodiscard]] std::vector<lowrank::plan_group> groups_of(weight_format weights, weight_format customary,
                                                         InLayers const& in_layers, Rest const& rest) {
  using narrow = lowrank::bf16_weight<>;
  switch (weights == weight_format::customary ? customary : weights) {
    case weight_format::bf16:
      return groups_over<narrow, narrow>(in_layers, rest);
    case weight_format::int8:
      return groups_over<lowrank::quantized_weight<>, narrow>(in_layers, rest);
    default:
      return groups_over<lowrank::fp32_weight<>, lowrank::fp32_weight<>>(in_layers, rest);
  }
}

/// In the order of the list; embedding and head cut into blocks of rows.
[[nodiscard]] inline std::vector<lowrank::planned_parameter> planned_parameters(std::span<parameter const> list,
                                                                                index_t vocabulary_rows) {
  std::vector<lowrank::planned_parameter> out;
  for (auto const& p : list) {
    bool const cut = vocabulary_rows > 0 && (p.what == role::embedding || p.what == role::head);
    index_t const height = cut ? vocabulary_rows : p.shape.rows;
    for (index_t row = 0; row < p.shape.rows; row += height)
      out.push_back({p.name, {std::min(height, p.shape.rows - row), p.shape.cols}});
  }
  return out;
}

inline void check_numbers(plan_settings const& s, config const& c) {
  lowrank::require(s.rank >= 0 && s.batch > 0 && s.sequence > 0 && s.vocabulary_rows >= -1, "llama::plan_of",
                   "needs rank >= 0, batch and sequence >= 1, vocabulary_rows >= -1; got ", s.rank, ", ", s.batch, ", ",
                   s.sequence, " and ", s.vocabulary_rows);
  // More than any buffer of the activations takes.
  namespace checked = lowrank::checked;
  index_t const tokens = checked::product(s.batch, s.sequence, "tokens");
  index_t const wide = checked::sum(checked::product(c.heads, s.sequence, "attention"),
                                    c.vocabulary + 16 * c.width + 8 * c.ffn + 64 * c.heads, "activations of a token");
  std::ignore = checked::product(checked::product(tokens, wide, "activations of a layer"), 8 * (c.layers + 2),
                                 "bytes of activations");
}

}  // namespace detail

[[nodiscard]] inline config shape_of(plan_settings const& s) {
  auto c = shape_named(s.model).shape;
  c.sequence = s.sequence;
  return c;
}
[[nodiscard]] inline index_t rank_of(plan_settings const& s) { return s.rank > 0 ? s.rank : shape_named(s.model).rank; }

[[nodiscard]] inline index_t vocabulary_rows_of(plan_settings const& s) {
  if (s.vocabulary_rows >= 0) return s.vocabulary_rows;
  return s.optimizer == "q_galore_adamw_8bit" && s.gradients == gradient_storage::one_at_a_time ? 1024 : 0;
}
/// With recomputation, memory for one layer and its two streams is beside what enters the layers.
[[nodiscard]] inline activation_bytes activations_of(plan_settings const& s, config c) noexcept {
  if (s.layers_kept == checkpointing::off) return activations<float>::bytes_for(c, s.batch, s.sequence, pass::training);
  index_t const entering = (std::exchange(c.layers, 1) + 1) * s.batch * s.sequence * c.width * index_t{sizeof(float)};
  auto out = activations<float>::bytes_for(c, s.batch, s.sequence, pass::training);
  out.streams += entering;
  return out;
}

/// Throws: argument_error for an unknown optimizer.
[[nodiscard]] inline std::vector<lowrank::plan_group> plan_groups(plan_settings const& s) {
  auto const of = [&](weight_format customary, auto const& in_layers, auto const& rest) {
    return detail::groups_of(s.weights, customary, in_layers, rest);
  };
  index_t const rank = rank_of(s);
  lowrank::adamw const adamw;
  lowrank::adamw_8bit const eight_bits;
  lowrank::adamw_4bit const four_bits;
  if (s.optimizer == "adamw") return of(weight_format::fp32, adamw, adamw);
  if (s.optimizer == "adamw_8bit") return of(weight_format::bf16, eight_bits, eight_bits);
  if (s.optimizer == "adamw_4bit") return of(weight_format::bf16, four_bits, four_bits);
  if (s.optimizer == "galore_adamw") return of(weight_format::fp32, lowrank::galore_adamw{.rank = rank}, adamw);
  if (s.optimizer == "galore_adamw_8bit")
    return of(weight_format::bf16, lowrank::galore_adamw_8bit{.rank = rank}, eight_bits);
  if (s.optimizer == "q_galore_adamw_8bit")
    return of(weight_format::int8, lowrank::q_galore_adamw_8bit{.rank = rank}, eight_bits);
  std::string known;
  for (auto const one : plannable_optimizers()) known += (known.empty() ? "" : ", ") + std::string{one};
  throw lowrank::argument_error{"llama::plan_of: unknown optimizer \"" + s.optimizer + "\"; known are " + known};
}

/// Weights, optimizer, gradients and activations as this model's classes size them, in fp32 where nothing else is said.
/// Throws: argument_error, shape_error.
[[nodiscard]] inline lowrank::memory_plan plan_of(plan_settings const& s) {
  using lowrank::memory_kind;
  auto const c = shape_of(s);
  detail::check_numbers(s, c);
  auto const list = parameter_list(c);
  bool const factored = s.form == gradient_form::factored && s.optimizer.find("galore") != std::string::npos;
  index_t const rows = vocabulary_rows_of(s);
  lowrank::memory_plan plan;
  lowrank::add_parameters(plan, detail::planned_parameters(list, rows), plan_groups(s),
                          {.gradients = lowrank::gradients_alive::none, .tokens = factored ? s.batch * s.sequence : 0});
  std::vector<gradient_form> forms;
  for (auto const& p : list) {
    bool const vocabulary = p.what == role::embedding || p.what == role::head;
    forms.push_back(vocabulary && rows > 0                     ? gradient_form::none
                    : factored && !vocabulary && p.is_linear() ? gradient_form::factored
                                                               : gradient_form::dense);
  }
  // Gradients of blocks of rows come one at a time, between those of matrices.
  bool const one = s.gradients == gradient_storage::one_at_a_time;
  std::string_view const overlay = rows > 0 && one ? "one gradient" : "";
  plan.add(memory_kind::gradients, one ? "largest of matrices, rest" : "all",
           gradients<float>::bytes_for(list, forms, s.gradients), overlay);
  if (rows > 0)
    plan.add(memory_kind::gradients, "rows of embedding or head",
             std::min(rows, c.vocabulary) * c.width * index_t{sizeof(float)}, overlay);
  auto const memory = activations_of(s, c);
  plan.add(memory_kind::activations, "residual streams", memory.streams);
  plan.add(memory_kind::activations, s.layers_kept == checkpointing::on ? "one layer" : "layers", memory.layers);
  plan.add(memory_kind::activations, "logits", memory.logits);
  plan.add(memory_kind::activations, "rest", memory.rest);
  return plan;
}

/// Of the whole model.
[[nodiscard]] inline index_t parameter_count(config const& c) {
  auto const list = parameter_list(c);
  return list.back().offset + list.back().shape.size();
}

}  // namespace llama
