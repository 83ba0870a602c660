/// @file
/// A model into a folder that Hugging Face's transformers loads.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "lowrank/io/safetensors.hpp"
#include "rotary_rows.hpp"

namespace llama {

/// What a checkpoint says beside the shape of its model.
struct hugging_face_options {
  lowrank::dtype type{lowrank::dtype::f32};  ///< of all tensors: f32, or bf16, nearest even
  index_t context{0};                        ///< the longest text; 0: the sequence of the configuration
  std::optional<std::int32_t> first_token{}, last_token{};

  void check() const {
    lowrank::require(type == lowrank::dtype::f32 || type == lowrank::dtype::bf16, "llama::save",
                     "type must be F32 or BF16, got ", type);
    lowrank::require(context >= 0, "llama::save", "context must not be negative, got ", context);
  }
};

namespace detail {

/// Which linear weights have a bias in the file: in transformers one switch says so for all of attention, and one for all
/// of the feed-forward part.
[[nodiscard]] inline bool any_bias(linear_plan const& plan, config const& c, std::span<role const> of) {
  for (index_t l = 0; l < c.layers; ++l)
    for (role const what : of)
      if (plan.at(what, l).bias == bias_term::added) return true;
  return false;
}
inline constexpr std::array attention_linears{role::query, role::key, role::value, role::attention_output};
inline constexpr std::array feed_forward_linears{role::gate, role::up, role::down};

[[nodiscard]] inline nlohmann::ordered_json hugging_face_config(parameters<float> const& model,
                                                                hugging_face_options const& options) {
  auto const& c = model.config();
  nlohmann::ordered_json out{
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", c.vocabulary},
      {"hidden_size", c.width},
      {"intermediate_size", c.ffn},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"head_dim", c.head_width()},
      {"hidden_act", "silu"},
      {"max_position_embeddings", options.context > 0 ? options.context : c.sequence},
      {"rms_norm_eps", c.epsilon},
      {"rope_theta", c.rope_base},
      {"rope_scaling", nullptr},
      {"attention_bias", any_bias(model.plan(), c, attention_linears)},
      {"mlp_bias", any_bias(model.plan(), c, feed_forward_linears)},
      {"tie_word_embeddings", c.head == output_head::tied},
      {"torch_dtype", options.type == lowrank::dtype::f32 ? "float32" : "bfloat16"},
  };
  if (options.first_token) out["bos_token_id"] = *options.first_token;
  if (options.last_token) out["eos_token_id"] = *options.last_token;
  return out;
}

/// Writes `text` to a file that appears whole or not at all.
inline void replace_file(std::filesystem::path const& path, std::string const& text) {
  auto const partial = std::filesystem::path{path}.concat(".partial");
  {
    std::ofstream out{partial, std::ios::binary | std::ios::trunc};
    out << text;
    out.close();
    lowrank::require<lowrank::io_error>(out.good(), "llama::save", "cannot write ", partial.string());
  }
  std::filesystem::rename(partial, path);
}

}  // namespace detail

/// Writes config.json and model.safetensors into `folder`, which is made if it is not there. A tied head is not written,
/// as transformers does; rows come in the order of half-split pairs. Files that are there are replaced when the new ones
/// are complete.
/// Requires: no weight is in factors; biases may be there.
/// Cost: memory of one tensor.
/// Throws: argument_error before anything is written; io_error when the disk refuses.
inline void save(std::filesystem::path const& folder, parameters<float> const& model,
                 hugging_face_options const& options = {}) {
  options.check();
  auto const& c = model.config();
  std::vector<lowrank::tensor_spec> specs;
  std::map<std::string, index_t, std::less<>> indices;
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    lowrank::require(p.part == linear_part::whole || p.part == linear_part::bias, "llama::save",
                     "transformers knows no factors; merge them first, got ", p.name);
    indices[p.name] = i;
    bool const vector = p.is_norm() || p.part == linear_part::bias;
    specs.push_back(
        {p.name, options.type, vector ? std::vector{p.shape.cols} : std::vector{p.shape.rows, p.shape.cols}});
  }
  // A switch that is on is on for every weight of its kind: what has no bias gets zeros.
  for (std::span<role const> const kinds :
       {std::span<role const>{detail::attention_linears}, std::span<role const>{detail::feed_forward_linears}})
    if (detail::any_bias(model.plan(), c, kinds))
      for (index_t l = 0; l < c.layers; ++l)
        for (role const what : kinds)
          if (model.bias_of(what, l) < 0) {
            auto const& weight = model[index_of(c, what, l)];
            auto const name = weight.name.substr(0, weight.name.size() - std::string_view{"weight"}.size()) + "bias";
            specs.push_back({name, options.type, {weight.shape.rows}});
          }

  std::filesystem::create_directories(folder);
  lowrank::safetensors_writer writer{folder / "model.safetensors", std::move(specs), {{"format", "pt"}}};
  std::vector<float> values;
  std::vector<lowrank::bf16> narrow;
  for (auto const& tensor : writer.tensors()) {
    auto const found = indices.find(tensor.name);
    if (found == indices.end()) {
      values.assign(static_cast<std::size_t>(tensor.shape[0]), 0.0F);
    } else {
      auto const& p = model[found->second];
      auto const w = model.weight(found->second);
      values.assign(w.data, w.data + w.size());
      if (p.what == role::query || p.what == role::key)
        move_rotary_rows(lowrank::row_major(values.data(), p.part == linear_part::bias ? p.shape.t() : p.shape),
                         c.head_width(), c.rotary, rotary_pairs::half_split);
    }
    if (options.type == lowrank::dtype::f32) {
      writer.append(tensor.name, std::as_bytes(std::span{values}));
    } else {
      narrow.resize(values.size());
      std::ranges::transform(values, narrow.begin(), [](float x) { return lowrank::to_bf16(x); });
      writer.append(tensor.name, std::as_bytes(std::span{narrow}));
    }
  }
  writer.commit();
  detail::replace_file(folder / "config.json", detail::hugging_face_config(model, options).dump(2) + "\n");
}

}  // namespace llama
