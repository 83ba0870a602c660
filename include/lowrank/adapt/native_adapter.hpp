/// @file
/// Adapters that PEFT has no words for, in the same two files: their trained matrices as tensors, their settings as texts in the
/// metadata. PEFT refuses such a directory, since it knows no peft_type "LOWRANK", and does not take it for something else.
///
/// adapter_model.safetensors holds base_model.model.<module>.<tensor> for each tensor of an adapter, and under
/// "lowrank.module.<module>" its method, shape and key of random numbers, and all settings.
#pragma once

#include <bit>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/adapt/peft.hpp"
#include "lowrank/adapt/settings_text.hpp"

namespace lowrank::adapt {

/// One trained matrix.
struct native_tensor {
  std::string name;
  matrix<float> values;
};

/// An adapter of one module, of whatever method, as a file has it.
struct native_module {
  std::string name;
  std::string method;      ///< "mora"
  std::string settings;    ///< "rank=8, type=6"
  extents shape{};         ///< of W, out x in
  rng_key key{};           ///< what is random in it and not saved comes from here
  std::uint64_t frozen{};  ///< hash of what comes from the base and is not saved; 0: nothing does
  std::optional<base_fingerprint> base{};
  std::vector<native_tensor> tensors{};
};

struct native_adapter {
  std::string base_model{};  ///< name or path; empty: not said
  std::vector<native_module> modules{};
};

namespace detail {

inline constexpr std::string_view native_type = "LOWRANK", native_module_key = "lowrank.module.";
inline constexpr index_t native_version = 1;

[[nodiscard]] inline std::string native_text(native_module const& m) {
  return lowrank::detail::join("method=", m.method, ", rows=", m.shape.rows, ", cols=", m.shape.cols,
                               ", key.seed=", std::bit_cast<std::int64_t>(m.key.seed), ", key.step=", m.key.step,
                               ", key.tensor=", m.key.tensor, ", key.purpose=", static_cast<int>(m.key.purpose),
                               ", frozen=", std::bit_cast<std::int64_t>(m.frozen), m.settings.empty() ? "" : ", ",
                               m.settings);
}
/// The module that a text describes, without its tensors; what is left of the text are its settings.
[[nodiscard]] inline native_module native_module_from(std::string name, std::string_view text) {
  option_list options{text};
  native_module out;
  out.name = std::move(name);
  out.method = options.take("method", std::string_view{});
  out.shape = {options.take("rows", index_t{0}), options.take("cols", index_t{0})};
  out.key.seed = std::bit_cast<std::uint64_t>(options.take("key.seed", index_t{0}));
  auto const narrow = [&options](std::string_view field, index_t limit) {
    index_t const number = options.take(field, index_t{0});
    require(number >= 0 && number < limit, "native_adapter", field, " must be in [0, ", limit, "), got ", number);
    return static_cast<std::uint32_t>(number);
  };
  out.key.step = narrow("key.step", index_t{1} << 32);
  out.key.tensor = narrow("key.tensor", index_t{1} << 24);
  out.key.purpose = static_cast<rng_purpose>(narrow("key.purpose", 256));
  out.frozen = std::bit_cast<std::uint64_t>(options.take("frozen", index_t{0}));
  constexpr index_t limit = index_t{1} << 31;
  require(out.shape.rows > 0 && out.shape.cols > 0 && out.shape.rows < limit && out.shape.cols < limit,
          "native_adapter", "needs a shape, got ", out.shape);
  auto const settings = text.find("frozen=");
  auto const comma = settings == std::string_view::npos ? settings : text.find(',', settings);
  if (comma != std::string_view::npos) out.settings = text.substr(std::min(text.size(), comma + 2));
  return out;
}

}  // namespace detail

/// Writes both files. They appear when they are complete.
/// Throws: argument_error for modules or tensors of one name, and for NaN, naming the tensor: nothing was written then; io_error.
inline void write_native(std::filesystem::path const& folder, native_adapter const& adapter) {
  constexpr std::string_view caller = "write_native";
  require(!adapter.modules.empty(), caller, "needs at least one module");
  std::vector<tensor_source> sources;
  file_metadata metadata{{"format", "pt"}};
  for (auto const& m : adapter.modules) {
    bool const is_new =
        metadata.emplace(std::string{detail::native_module_key} + m.name, detail::native_text(m)).second;
    require(!m.name.empty() && is_new, caller, "needs modules of different names, got ",
            lowrank::detail::quoted{m.name}, " twice or without one");
    if (m.base) metadata.emplace(std::string{detail::fingerprint_key} + m.name, m.base->text());
    for (auto const& t : m.tensors) {
      std::string name = std::string{detail::peft_prefix} + m.name + "." + t.name;
      require(!t.name.empty() && t.name.find('.') == std::string::npos, caller, "a tensor must not be called ",
              lowrank::detail::quoted{t.name});
      detail::require_finite(t.values.view(), name, caller);
      sources.push_back(detail::packed_source(std::move(name), t.values));
    }
  }
  json_value config = json_value::object();
  config["base_model_name_or_path"] = adapter.base_model.empty() ? json_value(nullptr) : json_value(adapter.base_model);
  config["peft_type"] = detail::native_type;
  config["version"] = detail::native_version;
  detail::write_adapter_files(folder, sources, metadata, config);
}

/// What a directory holds that `write_native` wrote.
/// Throws: io_error, shape_error when it is damaged, of another kind, or holds NaN.
[[nodiscard]] inline native_adapter read_native(std::filesystem::path const& folder) {
  std::string const caller = "read_native: " + folder.string();
  auto const config = read_json(folder / peft_config_file);
  auto const member = [&](char const* name) {
    return config.is_object() ? config.value(name, json_value{}) : json_value{};
  };
  require<io_error>(member("peft_type") == json_value(detail::native_type), caller, "peft_type must be ",
                    detail::native_type);
  require<io_error>(member("version") == json_value(detail::native_version), caller, "version must be ",
                    detail::native_version);
  native_adapter out;
  if (auto const name = member("base_model_name_or_path"); name.is_string()) out.base_model = name.get<std::string>();
  safetensors_reader const file{folder / peft_tensor_file};
  std::map<std::string, std::size_t, std::less<>> place;
  for (auto const& [key, text] : file.metadata()) {
    if (!key.starts_with(detail::native_module_key)) continue;
    std::string const name = key.substr(detail::native_module_key.size());
    place.emplace(name, out.modules.size());
    try {
      out.modules.push_back(detail::native_module_from(name, text));
    } catch (argument_error const& e) {
      throw io_error{lowrank::detail::join("lowrank::", caller, ": ", lowrank::detail::quoted{name}, ": ", e.what())};
    }
    out.modules.back().base = detail::fingerprint_in(file.metadata(), name, caller);
  }
  std::string strange;
  for (auto const& t : file.tensors()) {
    auto const dot = t.name.rfind('.');
    auto const begin = detail::peft_prefix.size();
    auto const owner = t.name.starts_with(detail::peft_prefix) && dot != std::string::npos && dot > begin
                           ? place.find(std::string_view{t.name}.substr(begin, dot - begin))
                           : place.end();
    if (owner == place.end()) strange += (strange.empty() ? "" : ", ") + t.name;
    else
      out.modules[owner->second].tensors.push_back({t.name.substr(dot + 1), detail::read_finite(file, t.name, caller)});
  }
  require<io_error>(strange.empty(), caller, "these tensors belong to no module: ", strange);
  require<io_error>(!out.modules.empty(), caller, "holds no adapter");
  return out;
}
/// The same, refused where it is not for this base: see check_base.
[[nodiscard]] inline native_adapter read_native(std::filesystem::path const& folder, adapter_base const& base) {
  std::string const caller = "read_native: " + folder.string();
  auto out = read_native(folder);
  require<io_error>(base.name.empty() || out.base_model.empty() || base.name == out.base_model, caller,
                    "the adapter was made for the base ", lowrank::detail::quoted{out.base_model}, ", not for ",
                    lowrank::detail::quoted{base.name});
  std::vector<std::string> names;
  for (auto const& m : out.modules) names.push_back(m.name);
  detail::require_known_modules(base, names, caller);
  for (auto const& m : out.modules)
    detail::require_matrix_of_base(base, m.name, m.shape, m.base,
                                   m.name + "." + (m.tensors.empty() ? "" : m.tensors.front().name), caller);
  return out;
}

/// An adapter of one module as a file has it. `key`: the one it was made with.
template <adapter A>
  requires named_settings<typename A::settings_type> && std::same_as<typename A::value_type, float>
[[nodiscard]] native_module to_native_module(std::string name, A const& made, rng_key const& key) {
  native_module out{.name = std::move(name),
                    .method = std::string{settings_fields<typename A::settings_type>::method},
                    .settings = settings_text(made.settings()),
                    .shape = made.shape(),
                    .key = key};
  if constexpr (requires { made.basis_hash(); }) out.frozen = made.basis_hash();
  for (auto const& t : made.tensors()) {
    matrix<float> values{t.values.shape()};
    for (index_t i = 0; i < t.values.rows; ++i)
      for (index_t j = 0; j < t.values.cols; ++j) values(i, j) = t.values(i, j);
    out.tensors.push_back({std::string{t.name}, std::move(values)});
  }
  return out;
}

/// The adapter again, for the matrix w that it belongs to.
/// Throws: argument_error, shape_error where method, settings or tensors are not those of S, naming the tensor; state_error where
/// what comes from w is not what the adapter was trained with: another base, or one in another format.
template <named_settings S, class E>
[[nodiscard]] adapter_of<S> from_native_module(E& exec, native_module const& saved, matrix_view<float> w) {
  constexpr std::string_view caller = "from_native_module";
  auto const name = lowrank::detail::quoted{saved.name};
  require(saved.method == settings_fields<S>::method, caller, name, " must be of the method ",
          settings_fields<S>::method, ", got ", saved.method);
  require<shape_error>(saved.shape == w.shape(), caller, name, " is for a matrix of ", saved.shape, ", got ",
                       w.shape());
  static_assert(!S::mutates_base, "lowrank: its base is not the one that w is; write it as plain LoRA");
  auto const settings = settings_from<S>(saved.settings);
  auto out = [&] {
    settings.check(w.shape());
    // Every number of it is replaced: any gradient will do.
    if constexpr (requires { settings.needs_gradient(); })
      if (settings.needs_gradient())
        return settings.template make<float>(exec, w, saved.key, matrix_view<float const>(w));
    return make_adapter<float>(exec, settings, w, saved.key);
  }();
  if constexpr (requires { out.basis_hash(); })
    require<state_error>(out.basis_hash() == saved.frozen, caller, name,
                         " was trained between singular vectors of which this matrix has others");
  auto const own = out.tensors();
  for (auto const& t : saved.tensors)
    require(std::ranges::any_of(own, [&](auto const& o) { return o.name == t.name; }), caller, name, " has no tensor ",
            lowrank::detail::quoted{t.name});
  for (auto const& o : own) {
    auto const t = std::ranges::find(saved.tensors, o.name, &native_tensor::name);
    require(t != saved.tensors.end(), caller, name, " lacks the tensor ", o.name);
    require<shape_error>(t->values.shape() == o.values.shape(), caller, name, ": tensor ", o.name, " must be ",
                         o.values.shape(), ", got ", t->values.shape());
    for (index_t i = 0; i < o.values.rows; ++i)
      for (index_t j = 0; j < o.values.cols; ++j) o.values(i, j) = t->values(i, j);
  }
  return out;
}

}  // namespace lowrank::adapt
