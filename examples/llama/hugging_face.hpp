/// @file
/// Llama checkpoints as Hugging Face's transformers keeps them: a folder with config.json and safetensors.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "lowrank/io/safetensors.hpp"
#include "rotary_rows.hpp"

namespace llama {

namespace detail {

/// A JSON object in a file of at most 64 MiB.
[[nodiscard]] inline nlohmann::json read_json(std::filesystem::path const& path) {
  constexpr std::uintmax_t limit = 64U << 20;
  std::string const caller = "llama::hugging_face_folder: " + path.string();
  std::error_code problem;
  auto const size = std::filesystem::file_size(path, problem);
  lowrank::require<lowrank::io_error>(!problem, caller, "cannot be read: ", problem.message());
  lowrank::require<lowrank::io_error>(size <= limit, caller, "must not exceed ", limit, " bytes, got ", size);
  std::ifstream in{path, std::ios::binary};
  auto out = nlohmann::json::parse(in, nullptr, false);
  lowrank::require<lowrank::io_error>(out.is_object(), caller, "must be a JSON object");
  return out;
}

}  // namespace detail

/// The files of a checkpoint: one of tensors, or several with an index. Tensors are read when they are asked for.
/// Throws: io_error when a file is missing or breaks its format.
class hugging_face_folder {
 public:
  explicit hugging_face_folder(std::filesystem::path folder)
      : folder_{std::move(folder)}, settings_(detail::read_json(folder_ / "config.json")) {
    auto const index = folder_ / "model.safetensors.index.json";
    if (!std::filesystem::exists(index)) {
      open("model.safetensors");
      for (auto const& tensor : files_[0].tensors()) place_[tensor.name] = 0;
      return;
    }
    auto const map = detail::read_json(index);
    auto const weights = map.find("weight_map");
    lowrank::require<lowrank::io_error>(weights != map.end() && weights->is_object(), caller(),
                                        "the index must have a weight_map");
    std::map<std::string, std::size_t> numbers;
    for (auto const& [tensor, file] : weights->items()) {
      lowrank::require<lowrank::io_error>(file.is_string(), caller(), "the index must name a file for ",
                                          lowrank::detail::quoted{tensor});
      auto const name = file.get<std::string>();
      // A name leads nowhere else than into this folder.
      lowrank::require<lowrank::io_error>(name.ends_with(".safetensors") && name.find('/') == std::string::npos,
                                          caller(), "the index must name files beside it, got ",
                                          lowrank::detail::quoted{name});
      if (auto const [number, added] = numbers.try_emplace(name, files_.size()); added) open(name);
      place_[tensor] = numbers[name];
      std::ignore = files_[numbers[name]].at(tensor);
    }
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return folder_; }
  [[nodiscard]] nlohmann::json const& settings() const noexcept { return settings_; }
  [[nodiscard]] std::map<std::string, std::size_t, std::less<>> const& tensors() const noexcept { return place_; }
  [[nodiscard]] bool contains(std::string_view tensor) const { return place_.find(tensor) != place_.end(); }
  /// The file that holds a tensor. Throws: io_error when none does.
  [[nodiscard]] lowrank::safetensors_reader const& file_of(std::string_view tensor) const {
    auto const found = place_.find(tensor);
    lowrank::require<lowrank::io_error>(found != place_.end(), caller(), "there is no tensor ",
                                        lowrank::detail::quoted{tensor});
    return files_[found->second];
  }
  [[nodiscard]] std::string caller() const { return "llama::hugging_face_folder: " + folder_.string(); }

 private:
  void open(std::string const& name) { files_.emplace_back(folder_ / name); }

  std::filesystem::path folder_;
  nlohmann::json settings_;
  std::vector<lowrank::safetensors_reader> files_;
  std::map<std::string, std::size_t, std::less<>> place_;
};

/// The shape of the model in `folder`, for contexts of up to `sequence` tokens. The files hold query and key rows for
/// half-split pairs; `rotary` is the order they shall have in memory.
/// Throws: io_error when the folder holds no Llama, or one that computes something else; argument_error for a sequence
/// longer than the model's context.
[[nodiscard]] inline config config_of(hugging_face_folder const& folder, index_t sequence,
                                      rotary_pairs rotary = rotary_pairs::half_split) {
  auto const& settings = folder.settings();
  auto const caller = folder.caller();
  auto const given = [&](char const* key) { return settings.contains(key) && !settings[key].is_null(); };
  auto const expect = [&](bool holds, char const* key, char const* what) {
    lowrank::require<lowrank::io_error>(holds, caller, key, " must be ", what);
  };
  auto const number = [&](char const* key, std::optional<index_t> otherwise = {}) {
    if (!given(key) && otherwise) return *otherwise;
    expect(given(key) && settings[key].is_number_integer(), key, "an integer");
    return settings[key].get<index_t>();
  };
  auto const real = [&](nlohmann::json const& of, char const* key, double otherwise) {
    if (!of.contains(key) || of[key].is_null()) return otherwise;
    expect(of[key].is_number(), key, "a number");
    return of[key].get<double>();
  };
  expect(given("model_type") && settings["model_type"] == "llama", "model_type", "llama");
  expect(!given("hidden_act") || settings["hidden_act"] == "silu", "hidden_act", "silu");
  expect(!given("rope_scaling"), "rope_scaling", "absent");
  expect(!given("quantization_config"), "quantization_config", "absent");
  // Newer files keep what belongs to rotation together.
  auto const rope = given("rope_parameters") ? settings["rope_parameters"] : settings;
  expect(rope.is_object() && rope.value("rope_type", nlohmann::json("default")) == "default", "rope_type", "default");
  config c;
  c.width = number("hidden_size");
  c.layers = number("num_hidden_layers");
  c.heads = number("num_attention_heads");
  c.kv_heads = number("num_key_value_heads", c.heads);
  c.ffn = number("intermediate_size");
  c.vocabulary = number("vocab_size");
  c.rope_base = real(rope, "rope_theta", 10000);
  c.epsilon = real(settings, "rms_norm_eps", 1e-6);
  bool const tied =
      given("tie_word_embeddings") ? settings["tie_word_embeddings"] == true : !folder.contains("lm_head.weight");
  c.head = tied ? output_head::tied : output_head::own;
  c.rotary = rotary;
  c.sequence = sequence;
  validate(c);
  lowrank::require<lowrank::io_error>(c.layers * roles_per_layer <= static_cast<index_t>(folder.tensors().size()),
                                      caller, "it says it has ", c.layers, " layers, which its ",
                                      folder.tensors().size(), " tensors cannot be");
  lowrank::require<lowrank::io_error>(number("head_dim", c.head_width()) == c.head_width(), caller, "head_dim must be ",
                                      c.head_width(), ", got ", number("head_dim", 0));
  index_t const longest = number("max_position_embeddings", 2048);
  lowrank::require(sequence <= longest, caller, "sequences must not exceed the model's context of ", longest,
                   " tokens, got ", sequence);
  return c;
}

/// The weights in `folder`, as fp32, in the order of rows that `c.rotary` asks for; biases are kept. `c` comes from
/// `config_of`.
/// Throws: io_error when a tensor is missing, is there beside those of the model, or holds a NaN or an infinity;
/// shape_error.
[[nodiscard]] inline parameters<float> load(hugging_face_folder const& folder, config const& c) {
  linear_plan plan;
  for (auto const& p : parameter_list(c)) {
    auto const bias = p.name.substr(0, p.name.size() - std::string_view{"weight"}.size()) + "bias";
    if (p.is_linear() && p.what != role::head && folder.contains(bias))
      plan.set(p.what, p.layer, {.bias = bias_term::added});
  }
  auto const list = parameter_list(c, plan);
  std::set<std::string, std::less<>> names;
  for (auto const& p : list) {
    auto const shape = folder.file_of(p.name).matrix_shape(p.name);
    lowrank::require<lowrank::shape_error>(shape == p.shape, folder.caller(), "tensor ", p.name, " must be ", p.shape,
                                           ", got ", shape);
    names.insert(p.name);
  }
  // A tied head may be there too, and old files hold the angles of rotation.
  for (auto const& [name, file] : folder.tensors())
    lowrank::require<lowrank::io_error>(
        names.contains(name) || name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq"), folder.caller(),
        "tensor ", lowrank::detail::quoted{name}, " is no part of the model");
  parameters<float> model{c, plan};
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    auto const w = model.weight(i);
    folder.file_of(p.name).read_matrix(p.name, w);
    lowrank::require<lowrank::io_error>(
        std::all_of(w.data, w.data + w.size(), [](float x) { return lowrank::is_finite(x); }), folder.caller(),
        "tensor ", p.name, " must be finite");
    if (p.what == role::query || p.what == role::key)
      move_rotary_rows(p.part == linear_part::bias ? w.t() : w, c.head_width(), rotary_pairs::half_split, c.rotary);
  }
  return model;
}

}  // namespace llama
