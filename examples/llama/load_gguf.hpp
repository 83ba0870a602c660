/// @file
/// A Llama out of a GGUF file.
#pragma once

#include "lowrank/io/gguf.hpp"
#include "rotary_rows.hpp"

namespace llama {

/// The name of a parameter in GGUF files.
[[nodiscard]] inline std::string gguf_name(role what, index_t layer) {
  std::string const prefix = "blk." + std::to_string(layer) + ".";
  switch (what) {
    case role::query:
      return prefix + "attn_q.weight";
    case role::key:
      return prefix + "attn_k.weight";
    case role::value:
      return prefix + "attn_v.weight";
    case role::attention_output:
      return prefix + "attn_output.weight";
    case role::gate:
      return prefix + "ffn_gate.weight";
    case role::up:
      return prefix + "ffn_up.weight";
    case role::down:
      return prefix + "ffn_down.weight";
    case role::attention_norm:
      return prefix + "attn_norm.weight";
    case role::mlp_norm:
      return prefix + "ffn_norm.weight";
    case role::embedding:
      return "token_embd.weight";
    case role::final_norm:
      return "output_norm.weight";
    default:
      return "output.weight";
  }
}

namespace detail {

/// Keys that change what the model computes, in ways that this one does not.
inline void refuse_strange_gguf(lowrank::gguf_reader const& file) {
  auto const& keys = file.metadata();
  auto const caller = "llama::config_of: " + file.path().string();
  auto const architecture = keys.at<std::string>("general.architecture");
  lowrank::require<lowrank::io_error>(architecture == "llama", caller, "the architecture must be llama, got ",
                                      lowrank::detail::quoted{architecture});
  for (auto const* const key : {"llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear",
                                "llama.attention.scale", "llama.expert_count", "llama.attention.sliding_window",
                                "llama.logit_scale", "llama.residual_scale", "llama.embedding_scale"})
    lowrank::require<lowrank::io_error>(!keys.contains(key), caller, "key ", key, " is not supported");
}

}  // namespace detail

/// The shape of the model in `file`, for contexts of up to `sequence` tokens. GGUF holds query and key rows for interleaved
/// pairs; `rotary` is the order they shall have in memory.
/// Throws: io_error when the file holds no Llama, or one that computes something else; argument_error for a sequence
/// longer than the model's context.
[[nodiscard]] inline config config_of(lowrank::gguf_reader const& file, index_t sequence,
                                      rotary_pairs rotary = rotary_pairs::half_split) {
  detail::refuse_strange_gguf(file);
  auto const& keys = file.metadata();
  auto const caller = "llama::config_of: " + file.path().string();
  auto const number = [&](char const* key) { return keys.at<index_t>(std::string{"llama."} + key); };
  auto const number_or = [&](char const* key, index_t otherwise) {
    return keys.find<index_t>(std::string{"llama."} + key).value_or(otherwise);
  };
  config c;
  c.width = number("embedding_length");
  c.layers = number("block_count");
  c.heads = number("attention.head_count");
  c.kv_heads = number_or("attention.head_count_kv", c.heads);
  c.ffn = number("feed_forward_length");
  c.vocabulary = file.matrix_shape(gguf_name(role::embedding, 0)).rows;
  c.rope_base = keys.find<double>("llama.rope.freq_base").value_or(10000);
  c.epsilon = keys.at<double>("llama.attention.layer_norm_rms_epsilon");
  c.head = file.find(gguf_name(role::head, 0)) == nullptr ? output_head::tied : output_head::own;
  c.rotary = rotary;
  c.sequence = sequence;
  validate(c);
  // A count of layers is the word of a stranger until there are tensors for them.
  lowrank::require<lowrank::io_error>(c.layers * roles_per_layer <= static_cast<index_t>(file.tensors().size()), caller,
                                      "it says it has ", c.layers, " layers, which its ", file.tensors().size(),
                                      " tensors cannot be");
  for (auto const* const key : {"rope.dimension_count", "attention.key_length", "attention.value_length"})
    lowrank::require<lowrank::io_error>(number_or(key, c.head_width()) == c.head_width(), caller, "llama.", key,
                                        " must be the width of a head, ", c.head_width(), ", got ",
                                        number_or(key, c.head_width()));
  index_t const longest = number("context_length");
  lowrank::require(sequence <= longest, caller, "sequences must not exceed the model's context of ", longest,
                   " tokens, got ", sequence);
  return c;
}

/// The weights in `file`, as fp32, in the order of rows that `c.rotary` asks for. `c` comes from `config_of`.
/// Throws: io_error when a tensor is missing, is there beside those of the model, or holds a NaN or an infinity;
/// shape_error.
[[nodiscard]] inline parameters<float> load(lowrank::gguf_reader const& file, config const& c) {
  auto const caller = "llama::load: " + file.path().string();
  auto const list = parameter_list(c);
  for (auto const& p : list) {
    auto const name = gguf_name(p.what, p.layer);
    auto const shape = file.matrix_shape(name);
    lowrank::require<lowrank::shape_error>(shape == p.shape, caller, "tensor ", name, " must be ", p.shape, ", got ",
                                           shape);
  }
  // A bias, say: leaving it out would be another model. All names are there and differ, so the counts tell.
  if (file.tensors().size() != list.size())
    for (auto const& tensor : file.tensors())
      lowrank::require<lowrank::io_error>(
          std::ranges::any_of(list, [&](parameter const& p) { return gguf_name(p.what, p.layer) == tensor.name; }),
          caller, "tensor ", lowrank::detail::quoted{tensor.name}, " is no part of the model");
  parameters<float> model{c};
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    file.read_matrix(gguf_name(p.what, p.layer), model.weight(i), lowrank::nonfinite::refuse);
    if (p.what == role::query || p.what == role::key)
      move_rotary_rows(model.weight(i), c.head_width(), rotary_pairs::interleaved, c.rotary);
  }
  return model;
}

}  // namespace llama
