/// @file
/// Plain LoRA as llama.cpp loads it: a GGUF file of a Llama's adapter.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/adapt/peft.hpp"
#include "lowrank/io/gguf_writer.hpp"

namespace lowrank::adapt {

/// What a file of a Llama must know about the base.
struct gguf_llama {
  index_t heads{};
  index_t kv_heads{};

  void check() const {
    require(heads >= 1 && kv_heads >= 1 && heads % kv_heads == 0, "gguf_llama",
            "heads must be a positive multiple of kv_heads, got ", heads, " and ", kv_heads);
  }
};

namespace detail {

/// The name in GGUF of the weight of a Llama's module, or nothing.
[[nodiscard]] inline std::optional<std::string> gguf_weight_name(std::string_view module) {
  constexpr std::string_view stem = "model.layers.";
  constexpr std::array<std::array<std::string_view, 2>, 7> parts{{{"self_attn.q_proj", "attn_q"},
                                                                  {"self_attn.k_proj", "attn_k"},
                                                                  {"self_attn.v_proj", "attn_v"},
                                                                  {"self_attn.o_proj", "attn_output"},
                                                                  {"mlp.gate_proj", "ffn_gate"},
                                                                  {"mlp.up_proj", "ffn_up"},
                                                                  {"mlp.down_proj", "ffn_down"}}};
  if (module == "lm_head") return "output.weight";
  if (!module.starts_with(stem)) return std::nullopt;
  module.remove_prefix(stem.size());
  auto const dot = module.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  index_t layer = 0;
  auto const [end, error] = std::from_chars(module.data(), module.data() + dot, layer);
  if (error != std::errc{} || end != module.data() + dot || layer < 0) return std::nullopt;
  auto const part = std::ranges::find(parts, module.substr(dot + 1), [](auto const& p) { return p[0]; });
  if (part == parts.end()) return std::nullopt;
  return lowrank::detail::join("blk.", layer, ".", (*part)[1], ".weight");
}

/// Heads whose rows the file holds in another order; 0 for other matrices.
[[nodiscard]] inline index_t rotated_heads(std::string_view module, gguf_llama const& base) noexcept {
  return module.ends_with(".q_proj") ? base.heads : module.ends_with(".k_proj") ? base.kv_heads : 0;
}

/// s B. Rows of queries and keys go where the file has those of W: element j of the pair i that rotates together is row
/// i + j half in a head of Hugging Face, row 2 i + j in one of GGUF.
[[nodiscard]] inline matrix<float> gguf_left_factor(peft_module const& m, double scale, index_t heads) {
  extents const shape = m.b.shape();
  matrix<float> out{shape};
  index_t const width = heads == 0 ? 0 : shape.rows / heads, half = width / 2;
  for (index_t row = 0; row < shape.rows; ++row) {
    index_t to = row;
    if (heads != 0) {
      index_t const head = row / width, in_head = row % width;
      to = head * width + 2 * (in_head % half) + in_head / half;
    }
    for (index_t j = 0; j < shape.cols; ++j) out(to, j) = static_cast<float>(scale * static_cast<double>(m.b(row, j)));
  }
  return out;
}

}  // namespace detail

/// Writes an adapter of a Llama, scales folded into B, since the file has one alpha for all and knows no rsLoRA; rows of B are
/// reordered where GGUF's weights are. Where ranks differ the file's alpha is 0, which stands for "as it is".
/// Throws: argument_error, shape_error naming the module that a GGUF file cannot hold: embeddings (llama.cpp multiplies by the
/// tensor once more where the output shares it), modules of other names, heads that do not fit; io_error.
/// Reference: convert_lora_to_gguf.py and src/llama-adapter.cpp of ggml-org/llama.cpp.
inline void write_gguf_adapter(std::filesystem::path const& path, peft_adapter const& adapter, gguf_llama const& base) {
  constexpr std::string_view caller = "write_gguf_adapter";
  base.check();
  require(!adapter.modules.empty(), caller, "needs at least one module");
  std::vector<gguf_spec> specs;
  std::vector<matrix<float>> left;
  bool same_rank = true;
  for (auto const& m : adapter.modules) {
    auto const module = lowrank::detail::quoted{m.name};
    require(m.layer == peft_layer::linear, caller, module, " is an embedding, which cannot be written");
    auto const name = detail::gguf_weight_name(m.name);
    require(name.has_value(), caller, module, " is no matrix of a Llama");
    require<shape_error>(m.rank() >= 1 && m.b.shape().cols == m.rank(), caller, module,
                         " must have A r x in and B out x r, got ", m.a.shape(), " and ", m.b.shape());
    index_t const heads = detail::rotated_heads(m.name, base);
    require<shape_error>(heads == 0 || m.b.shape().rows % (2 * heads) == 0, caller, module, " has ", m.b.shape().rows,
                         " rows, which are not ", heads, " heads of an even width");
    double const scale = adapter.scale(m);
    require(is_finite(scale), caller, module, " must have a finite scale, got ", scale);
    left.push_back(detail::gguf_left_factor(m, scale, heads));
    detail::require_finite(m.a.view(), *name + ".lora_a", caller);
    detail::require_finite(left.back().view(), *name + ".lora_b", caller);
    same_rank = same_rank && m.rank() == adapter.modules.front().rank();
    specs.push_back({*name + ".lora_a", ggml_type::f32, {m.rank(), m.a.shape().cols}});
    specs.push_back({*name + ".lora_b", ggml_type::f32, {m.b.shape().rows, m.rank()}});
  }
  gguf_metadata metadata;
  metadata.add("adapter.lora.alpha", same_rank ? static_cast<float>(adapter.modules.front().rank()) : 0.0F);
  metadata.add("adapter.type", std::string{"lora"});
  metadata.add("general.architecture", std::string{"llama"});
  metadata.add("general.type", std::string{"adapter"});
  if (!adapter.config.base_model.empty()) metadata.add("general.base_model.0.name", adapter.config.base_model);
  gguf_writer out{path, std::move(specs), metadata};
  auto const append = [&out](std::size_t tensor, matrix<float> const& values) {
    auto const count = static_cast<std::size_t>(values.shape().size());
    out.append(out.tensors()[tensor].name, std::as_bytes(std::span{values.data(), count}));
  };
  for (std::size_t i = 0; i < left.size(); ++i) {
    append(2 * i, adapter.modules[i].a);
    append(2 * i + 1, left[i]);
  }
  out.commit();
}

}  // namespace lowrank::adapt
