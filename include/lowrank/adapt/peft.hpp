/// @file
/// Adapters as PEFT keeps them: a directory with adapter_config.json and adapter_model.safetensors. Exact, or refused with
/// the reason.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/adapt/adapter_base.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/peft_config.hpp"
#include "lowrank/io/safetensors.hpp"

namespace lowrank::adapt {

inline constexpr std::string_view peft_config_file = "adapter_config.json";
inline constexpr std::string_view peft_tensor_file = "adapter_model.safetensors";

/// What is adapted: a linear layer, y = W x with W out x in, or an embedding, whose W has a row for each word.
enum class peft_layer : std::uint8_t { linear, embedding };

/// Plain LoRA of one module, as PEFT keeps it: the change of a linear layer's W is s B A, that of an embedding's s (B A)ᵀ, where
/// s = alpha / r or, in a file of rsLoRA, alpha / sqrt(r).
/// Shapes: A r x in, B out x r; embedding: A r x words, B width x r.
struct peft_module {
  std::string name;  ///< "model.layers.0.self_attn.q_proj"
  matrix<float> a;
  matrix<float> b;
  double alpha{8};
  peft_layer layer{peft_layer::linear};
  std::optional<base_fingerprint> base{};  ///< what W looks like

  [[nodiscard]] index_t rank() const noexcept { return a.shape().rows; }
  /// Of W.
  [[nodiscard]] extents shape() const noexcept {
    extents const product{b.shape().rows, a.shape().cols};
    return layer == peft_layer::linear ? product : product.t();
  }
};

/// A directory. In `config`, rank, alpha and the patterns are what the file says in general; `modules` say what holds for each.
struct peft_adapter {
  peft_config config;
  std::vector<peft_module> modules;

  /// The s of a module.
  [[nodiscard]] double scale(peft_module const& m) const { return config.scale(m.rank(), m.alpha); }
};

namespace detail {

inline constexpr std::string_view peft_prefix = "base_model.model.";

struct peft_keys {
  std::string a, b;
};
[[nodiscard]] inline peft_keys peft_keys_of(std::string_view module, peft_layer layer) {
  std::string const stem = std::string{peft_prefix} + std::string{module};
  if (layer == peft_layer::embedding) return {stem + ".lora_embedding_A", stem + ".lora_embedding_B"};
  return {stem + ".lora_A.weight", stem + ".lora_B.weight"};
}

/// Whose tensors a file holds. Each must be one of a pair that we know; the others are listed.
[[nodiscard]] inline std::map<std::string, peft_layer, std::less<>> peft_modules_of(safetensors_reader const& file,
                                                                                    std::string_view caller) {
  struct ending {
    std::string_view text;
    peft_layer layer;
  };
  constexpr std::array<ending, 4> endings{{{".lora_A.weight", peft_layer::linear},
                                           {".lora_B.weight", peft_layer::linear},
                                           {".lora_embedding_A", peft_layer::embedding},
                                           {".lora_embedding_B", peft_layer::embedding}}};
  std::map<std::string, peft_layer, std::less<>> out;
  std::vector<std::string> strange;
  for (auto const& t : file.tensors()) {
    std::string_view const name = t.name;
    auto const known = std::ranges::find_if(endings, [&](ending const& e) { return name.ends_with(e.text); });
    if (!name.starts_with(peft_prefix) || known == endings.end() ||
        name.size() <= peft_prefix.size() + known->text.size())
      strange.push_back(t.name);
    else
      out.emplace(name.substr(peft_prefix.size(), name.size() - peft_prefix.size() - known->text.size()), known->layer);
  }
  std::string list;
  bool has_base = false;
  for (auto const& name : strange) {
    list += (list.empty() ? "" : ", ") + name;
    has_base = has_base || name.ends_with(".base_layer.weight");
  }
  require<io_error>(strange.empty(), caller, "these tensors are none of plain LoRA's: ", list,
                    has_base ? "; those of the base are left out by save_embedding_layers=False of PEFT" : "");
  require<io_error>(!out.empty(), caller, "holds no adapter");
  for (auto const& [module, layer] : out)
    for (auto const& key : {peft_keys_of(module, layer).a, peft_keys_of(module, layer).b})
      require<io_error>(file.find(key) != nullptr, caller, "tensor ", lowrank::detail::quoted{key}, " is missing");
  require<io_error>(file.tensors().size() == 2 * out.size(), caller,
                    "a module has tensors of a linear layer and of an embedding");
  return out;
}

inline void require_finite(matrix_view<float const> values, std::string_view tensor, std::string_view caller) {
  for (index_t i = 0; i < values.rows; ++i)
    for (index_t j = 0; j < values.cols; ++j)
      require<io_error>(is_finite(values(i, j)), caller, "tensor ", lowrank::detail::quoted{tensor},
                        " must be finite, got ", values(i, j), " in row ", i, ", column ", j);
}
[[nodiscard]] inline matrix<float> read_finite(safetensors_reader const& file, std::string const& tensor,
                                               std::string_view caller) {
  auto const& info = file.at(tensor);
  require<shape_error>(info.shape.size() == 2, caller, "tensor ", lowrank::detail::quoted{tensor},
                       " must have 2 dimensions, got ", lowrank::detail::shape_text{info.shape});
  auto out = file.read_matrix(tensor);
  require_finite(out.view(), tensor, caller);
  return out;
}

inline void require_rank(extents shape, index_t expected, index_t found, std::string_view tensor,
                         std::string_view caller) {
  require<shape_error>(found == expected, caller, "tensor ", lowrank::detail::quoted{tensor}, " must be of rank ",
                       expected, ", got ", shape);
}

[[nodiscard]] inline tensor_source packed_source(std::string name, matrix<float> const& values) {
  auto const count = static_cast<std::size_t>(values.shape().size());
  return {{std::move(name), dtype::f32, {values.shape().rows, values.shape().cols}},
          std::as_bytes(std::span{values.data(), count})};
}

/// Writes both files of a directory. Everything is on the disk before the first of them changes; and as long as the tensors
/// are new and the settings are old there are no settings, so that nobody can take one for the other.
inline void write_adapter_files(std::filesystem::path const& folder, std::span<tensor_source const> sources,
                                file_metadata const& metadata, json_value const& config) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  require<io_error>(!failed, "write_adapter", "cannot create ", folder.string(), ": ", failed.message());
  std::vector<tensor_spec> specs;
  std::map<std::string_view, std::span<std::byte const>> bytes;
  for (auto const& source : sources) {
    specs.push_back(source.spec);
    bytes[source.spec.name] = source.bytes;
  }
  safetensors_writer tensors{folder / peft_tensor_file, std::move(specs), metadata};
  for (auto const& t : tensors.tensors()) tensors.append(t.name, bytes[t.name]);
  json_writer settings{folder / peft_config_file, config};
  std::filesystem::remove(folder / peft_config_file, failed);
  require<io_error>(!failed, "write_adapter", "cannot replace ", (folder / peft_config_file).string(), ": ",
                    failed.message());
  tensors.commit();
  settings.commit();
}

}  // namespace detail

/// The adapter in a directory of PEFT, in fp32.
/// Throws: io_error, shape_error when a file is damaged, says anything but plain LoRA for an unchanged base, holds tensors
/// that the settings do not speak of, or NaN.
[[nodiscard]] inline peft_adapter read_peft(std::filesystem::path const& folder) {
  std::string const caller = "read_peft: " + folder.string();
  auto config = read_peft_config(folder / peft_config_file);
  peft_rules const rules{config};
  safetensors_reader const file{folder / peft_tensor_file};
  std::vector<peft_module> modules;
  for (auto const& [name, layer] : detail::peft_modules_of(file, caller)) {
    auto const keys = detail::peft_keys_of(name, layer);
    require<io_error>(rules.targets(name), caller, "tensor ", lowrank::detail::quoted{keys.a},
                      " is for a module that target_modules does not name");
    index_t const rank = rules.rank(name);
    detail::require_rank(file.matrix_shape(keys.a), rank, file.matrix_shape(keys.a).rows, keys.a, caller);
    detail::require_rank(file.matrix_shape(keys.b), rank, file.matrix_shape(keys.b).cols, keys.b, caller);
    peft_module module{.name = name,
                       .a = detail::read_finite(file, keys.a, caller),
                       .b = detail::read_finite(file, keys.b, caller),
                       .alpha = rules.alpha(name),
                       .layer = layer,
                       .base = detail::fingerprint_in(file.metadata(), name, caller)};
    modules.push_back(std::move(module));
  }
  return {std::move(config), std::move(modules)};
}

/// Refuses an adapter that is not for this base: modules which it does not have (all are listed), shapes that disagree,
/// another name or other weights, where both are known.
/// Throws: io_error, shape_error naming the tensor.
inline void check_base(peft_adapter const& adapter, adapter_base const& base, std::string_view caller = "check_base") {
  require<io_error>(base.name.empty() || adapter.config.base_model.empty() || base.name == adapter.config.base_model,
                    caller, "the adapter was made for the base ", lowrank::detail::quoted{adapter.config.base_model},
                    ", not for ", lowrank::detail::quoted{base.name});
  std::vector<std::string> names;
  for (auto const& m : adapter.modules) names.push_back(m.name);
  detail::require_known_modules(base, names, caller);
  for (auto const& m : adapter.modules)
    detail::require_matrix_of_base(base, m.name, m.shape(), m.base, detail::peft_keys_of(m.name, m.layer).a, caller);
}
[[nodiscard]] inline peft_adapter read_peft(std::filesystem::path const& folder, adapter_base const& base) {
  auto out = read_peft(folder);
  check_base(out, base, "read_peft: " + folder.string());
  return out;
}

/// Writes an adapter as PEFT would. Ranks and alphas that differ between modules become patterns, and where the configuration
/// names no targets they are the modules by their whole names; what `config` says about ranks and alphas is not looked at.
/// The files appear when they are complete.
/// Throws: argument_error, shape_error for what is no LoRA, naming the tensor: nothing was written then; io_error.
inline void write_peft(std::filesystem::path const& folder, peft_adapter const& adapter) {
  constexpr std::string_view caller = "write_peft";
  require(!adapter.modules.empty(), caller, "needs at least one module");
  auto config = adapter.config;
  config.rank = adapter.modules.front().rank();
  config.alpha = adapter.modules.front().alpha;
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  bool const names_targets = config.target_modules.empty() && config.target_pattern.empty();
  std::set<std::string_view> names;
  std::vector<tensor_source> sources;
  file_metadata metadata{{"format", "pt"}};
  for (auto const& m : adapter.modules) {
    auto const keys = detail::peft_keys_of(m.name, m.layer);
    require(!m.name.empty() && names.insert(m.name).second, caller, "needs modules of different names, got ",
            lowrank::detail::quoted{m.name}, " twice or without one");
    require<shape_error>(m.rank() >= 1 && m.a.shape().cols >= 1 && m.b.shape().rows >= 1, caller, "tensor ",
                         lowrank::detail::quoted{keys.a}, " must be r x in with r >= 1, got ", m.a.shape());
    detail::require_rank(m.b.shape(), m.rank(), m.b.shape().cols, keys.b, caller);
    detail::require_finite(m.a.view(), keys.a, caller);
    detail::require_finite(m.b.view(), keys.b, caller);
    if (m.rank() != config.rank) config.rank_pattern.emplace_back(detail::exact_pattern(m.name), m.rank());
    if (m.alpha != config.alpha) config.alpha_pattern.emplace_back(detail::exact_pattern(m.name), m.alpha);
    if (names_targets) config.target_modules.push_back(m.name);
    if (m.base) metadata.emplace(std::string{detail::fingerprint_key} + m.name, m.base->text());
    sources.push_back(detail::packed_source(keys.a, m.a));
    sources.push_back(detail::packed_source(keys.b, m.b));
  }
  config.check();
  peft_rules const rules{config};
  for (auto const& m : adapter.modules)
    require(rules.targets(m.name), caller, "target_modules does not name ", lowrank::detail::quoted{m.name});
  detail::write_adapter_files(folder, sources, metadata, to_json(config));
}

/// W += factor s B A, or what it is for an embedding: 1 merges.
/// Shapes: W as m.shape().  Throws: shape_error.
template <class E>
void add_to(E& exec, peft_adapter const& adapter, peft_module const& m, float factor, matrix_view<float> w) {
  require<shape_error>(w.shape() == m.shape(), "add_to", lowrank::detail::quoted{m.name}, " changes a matrix of ",
                       m.shape(), ", got ", w.shape());
  bool const linear = m.layer == peft_layer::linear;
  auto const scale = static_cast<float>(static_cast<double>(factor) * adapter.scale(m));
  multiply(exec, scale, linear ? m.b.view() : m.a.view().t(), linear ? m.a.view() : m.b.view().t(), 1.0F, w);
}
/// A LoRA with the factors of a file, to be trained further: s as the file's.
template <class E>
[[nodiscard]] lora_adapter<float> to_lora(E& exec, peft_config const& config, peft_module const& m) {
  require(m.layer == peft_layer::linear, "to_lora", "needs a linear layer, got the embedding ",
          lowrank::detail::quoted{m.name});
  lora_adapter<float> out{{.rank = m.rank(),
                           .alpha = static_cast<float>(m.alpha),
                           .scale = config.scaling,
                           .dropout = static_cast<float>(config.dropout)},
                          m.shape()};
  auto const tensors = out.tensors();
  copy(exec, m.a.view(), tensors[0].values);
  copy(exec, m.b.view(), tensors[1].values);
  return out;
}
/// A LoRA as it is, A and B apart from alpha, which `config` must be told how to scale: see peft_config::scaling.
template <class E>
[[nodiscard]] peft_module to_peft_module(E& exec, std::string name, lora_adapter<float> const& adapter,
                                         peft_config const& config) {
  auto const& settings = adapter.settings();
  require(settings.scale == config.scaling, "to_peft_module", lowrank::detail::quoted{name},
          " must be scaled as all modules of one file are");
  peft_module out{.name = std::move(name),
                  .a = matrix<float>{{settings.rank, adapter.shape().cols}},
                  .b = matrix<float>{{adapter.shape().rows, settings.rank}},
                  .alpha = static_cast<double>(settings.alpha)};
  copy(exec, adapter.a(), out.a.view());
  copy(exec, adapter.b(), out.b.view());
  return out;
}
/// A change of low rank as plain LoRA.
[[nodiscard]] inline peft_module to_peft_module(std::string name, low_rank_factors<float> change) {
  auto const rank = static_cast<double>(change.rank());
  return {.name = std::move(name), .a = std::move(change.right), .b = std::move(change.left), .alpha = rank};
}
/// An adapter of low rank as plain LoRA, its scale folded into B. One whose base was changed when it was made is written for the
/// base as it was, with twice the rank.
template <class E, low_rank_adapter A>
[[nodiscard]] peft_module to_peft_module(E& exec, std::string name, A const& adapter) {
  if constexpr (base_changing_adapter<A>) return to_peft_module(std::move(name), adapter.factors_for_original(exec));
  else return to_peft_module(std::move(name), adapter.factors(exec));
}

}  // namespace lowrank::adapt
