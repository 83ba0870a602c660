/// @file
/// adapter_config.json of PEFT, for plain LoRA: what the tensors beside it mean. Whatever would make them mean something else
/// is refused.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/adapt/module_pattern.hpp"
#include "lowrank/adapt/scaling.hpp"
#include "lowrank/core/view.hpp"
#include "lowrank/io/json_file.hpp"

namespace lowrank::adapt {

/// Plain LoRA as PEFT describes it.
/// Reference: LoraConfig of huggingface/peft 0.21.2.
struct peft_config {
  std::string base_model{};  ///< name or path of the base; empty: not said
  std::string task_type{};   ///< "CAUSAL_LM"; empty: not said
  index_t rank{8};
  double alpha{8};
  double dropout{0};
  adapt::scaling scaling{adapt::scaling::rank};  ///< alpha / r, or alpha / sqrt(r) (rsLoRA)
  bool fan_in_fan_out{};                      ///< the base stores its weights in x out (GPT-2); A and B do not change
  std::vector<std::string> target_modules{};  ///< names, or the ends of names after a dot
  std::string target_pattern{};               ///< or a regular expression of whole names
  std::vector<std::pair<std::string, index_t>> rank_pattern{};  ///< regular expressions; the first that fits counts
  std::vector<std::pair<std::string, double>> alpha_pattern{};

  /// Throws: argument_error naming the first value that cannot be meant.
  void check() const {
    auto const usable = [](double x) { return is_finite(x) && x > 0; };
    require(rank >= 1, "peft_config", "rank must be at least 1, got ", rank);
    require(usable(alpha), "peft_config", "alpha must be positive and finite, got ", alpha);
    require(dropout >= 0 && dropout < 1, "peft_config", "dropout must be in [0, 1), got ", dropout);
    require(target_modules.empty() || target_pattern.empty(), "peft_config",
            "target modules are named or a pattern, not both");
    for (auto const& [pattern, value] : rank_pattern)
      require(value >= 1, "peft_config", "rank_pattern ", lowrank::detail::quoted{pattern}, " must be at least 1, got ",
              value);
    for (auto const& [pattern, value] : alpha_pattern)
      require(usable(value), "peft_config", "alpha_pattern ", lowrank::detail::quoted{pattern},
              " must be positive and finite, got ", value);
  }
  [[nodiscard]] double scale(index_t r, double a) const {
    return a / (scaling == adapt::scaling::rank ? static_cast<double>(r) : std::sqrt(static_cast<double>(r)));
  }
};

/// What a configuration says about single modules, its patterns read once.
/// Throws: io_error for a pattern that is none.
class peft_rules {
 public:
  explicit peft_rules(peft_config const& config) : config_{config} {
    using start = module_pattern::start;
    for (auto const& [text, value] : config.rank_pattern)
      ranks_.emplace_back(module_pattern{text, start::after_a_dot, caller}, value);
    for (auto const& [text, value] : config.alpha_pattern)
      alphas_.emplace_back(module_pattern{text, start::after_a_dot, caller}, value);
    if (!config.target_pattern.empty()) target_.emplace(config.target_pattern, start::whole, caller);
  }

  [[nodiscard]] bool targets(std::string_view module) const {
    if (target_) return target_->matches(module);
    for (auto const& name : config_.target_modules)
      if (ends_in_name(module, name)) return true;
    return false;
  }
  [[nodiscard]] index_t rank(std::string_view module) const { return first_of(ranks_, module, config_.rank); }
  [[nodiscard]] double alpha(std::string_view module) const { return first_of(alphas_, module, config_.alpha); }

 private:
  static constexpr std::string_view caller = "peft_config";

  template <class Value>
  using rules = std::vector<std::pair<module_pattern, Value>>;

  template <class Value>
  static Value first_of(rules<Value> const& list, std::string_view module, Value otherwise) {
    for (auto const& [pattern, value] : list)
      if (pattern.matches(module)) return value;
    return otherwise;
  }

  peft_config const& config_;
  rules<index_t> ranks_;
  rules<double> alphas_;
  std::optional<module_pattern> target_;
};

namespace detail {

/// Reads adapter_config.json field by field: each is known and understood, or known not to matter, or holds nothing.
class peft_config_reader {
 public:
  peft_config_reader(json_value const& root, std::string caller) : root_{root}, caller_{std::move(caller)} {
    require<io_error>(root.is_object(), caller_, "must be an object");
  }

  [[nodiscard]] peft_config read() const {
    auto const type = text("peft_type");
    require<io_error>(!type.empty(), caller_, "must say its peft_type");
    require<io_error>(type == "LORA", caller_, "peft_type must be LORA, got ", lowrank::detail::quoted{type});
    refuse_changed_base();
    refuse_other_meanings();
    peft_config out;
    out.base_model = text("base_model_name_or_path");
    out.task_type = text("task_type");
    require<io_error>(find("r") != nullptr, caller_, "must say the rank \"r\"");
    out.rank = whole("r", *find("r"));
    require<io_error>(find("lora_alpha") != nullptr, caller_,
                      "must say \"lora_alpha\": the scale is not in the tensors");
    out.alpha = number("lora_alpha", *find("lora_alpha"));
    if (auto const* const x = find("lora_dropout")) out.dropout = number("lora_dropout", *x);
    out.scaling = is_on("use_rslora") ? scaling::rank_root : scaling::rank;
    out.fan_in_fan_out = is_on("fan_in_fan_out");
    read_targets(out);
    for (auto const& [pattern, value] : members("rank_pattern"))
      out.rank_pattern.emplace_back(pattern, whole("rank_pattern", value));
    for (auto const& [pattern, value] : members("alpha_pattern"))
      out.alpha_pattern.emplace_back(pattern, number("alpha_pattern", value));
    try {
      out.check();
    } catch (argument_error const& e) { throw io_error{lowrank::detail::join("lowrank::", caller_, ": ", e.what())}; }
    return out;
  }

 private:
  /// The value of a field that is there and not null.
  [[nodiscard]] json_value const* find(std::string_view field) const {
    auto const place = root_.find(std::string{field});
    return place == root_.end() || place->is_null() ? nullptr : &*place;
  }
  [[nodiscard]] std::string text(std::string_view field) const {
    auto const* const value = find(field);
    require<io_error>(value == nullptr || value->is_string(), caller_, "\"", field, "\" must be a text");
    return value == nullptr ? std::string{} : value->get<std::string>();
  }
  [[nodiscard]] bool is_on(std::string_view field) const {
    auto const* const value = find(field);
    require<io_error>(value == nullptr || value->is_boolean(), caller_, "\"", field, "\" must be true or false");
    return value != nullptr && value->get<bool>();
  }
  [[nodiscard]] double number(std::string_view field, json_value const& value) const {
    require<io_error>(value.is_number(), caller_, "\"", field, "\" must hold numbers");
    return value.get<double>();
  }
  [[nodiscard]] index_t whole(std::string_view field, json_value const& value) const {
    constexpr double limit = std::numeric_limits<std::int32_t>::max();
    double const x = number(field, value);
    require<io_error>(x == std::floor(x) && std::abs(x) <= limit, caller_, "\"", field,
                      "\" must hold whole numbers, got ", x);
    return static_cast<index_t>(x);
  }
  [[nodiscard]] std::vector<std::pair<std::string, json_value>> members(std::string_view field) const {
    std::vector<std::pair<std::string, json_value>> out;
    auto const* const value = find(field);
    if (value == nullptr) return out;
    require<io_error>(value->is_object(), caller_, "\"", field, "\" must be an object");
    for (auto const& [key, member] : value->items()) out.emplace_back(key, member);
    return out;
  }
  static bool holds_nothing(json_value const& value) {
    return value.is_null() || value == json_value(false) || value == json_value("") ||
           (value.is_structured() && value.empty());
  }

  void read_targets(peft_config& out) const {
    auto const* const targets = find("target_modules");
    if (targets == nullptr) return;
    if (targets->is_string()) {
      out.target_pattern = targets->get<std::string>();
      // PEFT writes the names it stands for; of a file that holds the word nobody can tell what was meant.
      require<io_error>(out.target_pattern != "all-linear", caller_,
                        "target_modules must name modules, got all-linear");
      return;
    }
    require<io_error>(targets->is_array(), caller_, "\"target_modules\" must be a list of names or a pattern");
    for (auto const& name : *targets) {
      require<io_error>(name.is_string(), caller_, "\"target_modules\" must be a list of names or a pattern");
      out.target_modules.push_back(name.get<std::string>());
    }
  }
  /// Initialisations that took something out of the base: their A and B are wrong for the base that everybody has.
  void refuse_changed_base() const {
    auto const* const value = find("init_lora_weights");
    if (value == nullptr || value->is_boolean()) return;
    require<io_error>(value->is_string(), caller_, "\"init_lora_weights\" must be true, false or a text");
    auto const init = value->get<std::string>();
    for (std::string_view const harmless : {"gaussian", "orthogonal", "eva", "mica"})
      if (init == harmless) return;
    for (std::string_view const changing : {"pissa", "olora", "corda", "loftq", "lora_ga"})
      require<io_error>(!init.starts_with(changing), caller_, "was initialised with ", changing,
                        ", which changed the base: convert it to plain LoRA of twice the rank first "
                        "(path_initial_model_for_weight_conversion of PEFT)");
    throw io_error{lowrank::detail::join("lowrank::", caller_,
                                         ": \"init_lora_weights\" is unknown: ", lowrank::detail::quoted{init})};
  }
  void refuse_other_meanings() const {
    auto const bias = text("bias");
    require<io_error>(bias.empty() || bias == "none", caller_, "bias must be none, got ", lowrank::detail::quoted{bias},
                      ": the file changes biases of the base");
    require<io_error>(!is_on("use_dora"), caller_, "uses DoRA, whose magnitudes are not a change of low rank");
    // Understood above, or without influence on what the tensors are.
    constexpr std::array<std::string_view, 27> known{"peft_type",
                                                     "base_model_name_or_path",
                                                     "task_type",
                                                     "r",
                                                     "lora_alpha",
                                                     "lora_dropout",
                                                     "use_rslora",
                                                     "fan_in_fan_out",
                                                     "rank_pattern",
                                                     "target_modules",
                                                     "alpha_pattern",
                                                     "init_lora_weights",
                                                     "bias",
                                                     "use_dora",
                                                     "auto_mapping",
                                                     "peft_version",
                                                     "revision",
                                                     "inference_mode",
                                                     "megatron_core",
                                                     "layers_to_transform",
                                                     "layers_pattern",
                                                     "exclude_modules",
                                                     "loftq_config",
                                                     "eva_config",
                                                     "corda_config",
                                                     "lora_ga_config",
                                                     "qalora_group_size"};
    for (auto const& [field, value] : root_.items())
      require<io_error>(holds_nothing(value) || std::find(known.begin(), known.end(), field) != known.end(), caller_,
                        "the field ", lowrank::detail::quoted{field},
                        " is not supported, and what it says may change the meaning of the tensors");
  }

  json_value const& root_;
  std::string caller_;
};

}  // namespace detail

/// The configuration in a file.
/// Throws: io_error when it is damaged, or describes anything but plain LoRA for an unchanged base.
[[nodiscard]] inline peft_config read_peft_config(std::filesystem::path const& path) {
  auto const root = read_json(path);
  return detail::peft_config_reader{root, "peft_config: " + path.string()}.read();
}

/// The configuration as PEFT writes it: its classic fields only, so that old versions read it too.
[[nodiscard]] inline json_value to_json(peft_config const& config) {
  config.check();
  auto const text_or_null = [](std::string const& text) {
    return text.empty() ? json_value(nullptr) : json_value(text);
  };
  // As an integer where it is one, which is what readers in other languages expect.
  auto const number = [](double x) {
    return x == std::floor(x) && std::abs(x) < 0x1p53 ? json_value(static_cast<std::int64_t>(x)) : json_value(x);
  };
  json_value alphas = json_value::object(), ranks = json_value::object(), targets = json_value(nullptr);
  for (auto const& [pattern, value] : config.alpha_pattern) alphas[pattern] = number(value);
  for (auto const& [pattern, value] : config.rank_pattern) ranks[pattern] = value;
  if (!config.target_pattern.empty()) targets = config.target_pattern;
  else if (!config.target_modules.empty()) targets = config.target_modules;
  json_value out = json_value::object();
  out["alpha_pattern"] = alphas;
  out["base_model_name_or_path"] = text_or_null(config.base_model);
  out["bias"] = "none";
  out["fan_in_fan_out"] = config.fan_in_fan_out;
  out["inference_mode"] = true;
  out["init_lora_weights"] = true;
  out["lora_alpha"] = number(config.alpha);
  out["lora_dropout"] = config.dropout;
  out["modules_to_save"] = nullptr;
  out["peft_type"] = "LORA";
  out["r"] = config.rank;
  out["rank_pattern"] = ranks;
  out["target_modules"] = targets;
  out["task_type"] = text_or_null(config.task_type);
  out["use_rslora"] = config.scaling == scaling::rank_root;
  return out;
}

}  // namespace lowrank::adapt
