/// @file
/// Option strings: "rank=64, update_proj_gap=100, betas=(0.9, 0.999)".
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank {

/// Named values of one optimizer. Every `take` removes what it reads, so that `require_empty` can refuse what nobody read.
class option_list {
 public:
  option_list() = default;
  /// Comma-separated name=value pairs; values may be bracketed lists. Throws argument_error naming the piece at fault.
  explicit option_list(std::string_view text) {
    while (!(text = trimmed(text)).empty()) {
      std::size_t end = 0;
      for (int depth = 0; end < text.size() && (depth > 0 || text[end] != ','); ++end)
        depth += text[end] == '(' || text[end] == '[' ? 1 : text[end] == ')' || text[end] == ']' ? -1 : 0;
      auto const piece = trimmed(text.substr(0, end));
      auto const equals = piece.find('=');
      require(equals != std::string_view::npos && equals > 0 && equals + 1 < piece.size(), "option_list",
              "needs name=value, got \"", piece, "\"");
      set(trimmed(piece.substr(0, equals)), trimmed(piece.substr(equals + 1)));
      text = end < text.size() ? text.substr(end + 1) : std::string_view{};
    }
  }
  /// Refuses a name that is there already.
  void set(std::string_view name, std::string_view value) {
    for (auto const& known : entries_)
      require(known.name != name, "option_list", "option \"", name, "\" is given twice");
    entries_.push_back({std::string{name}, unquoted(value)});
  }

  [[nodiscard]] std::string take(std::string_view name, std::string_view otherwise) {
    for (auto it = entries_.begin(); it != entries_.end(); ++it)
      if (it->name == name) {
        std::string value = std::move(it->value);
        entries_.erase(it);
        return value;
      }
    return std::string{otherwise};
  }
  [[nodiscard]] double take(std::string_view name, double otherwise) {
    auto const text = take(name, std::string_view{});
    return text.empty() ? otherwise : number<double>(name, text);
  }
  [[nodiscard]] index_t take(std::string_view name, index_t otherwise) {
    auto const text = take(name, std::string_view{});
    return text.empty() ? otherwise : number<index_t>(name, text);
  }
  /// true/false in the spellings of Python, JSON and numbers.
  [[nodiscard]] bool take_switch(std::string_view name, std::string_view otherwise = "false") {
    auto const text = take(name, otherwise);
    if (text == "true" || text == "True" || text == "1") return true;
    require(text == "false" || text == "False" || text == "0", "option_list", "option \"", name,
            "\" must be true or false, got \"", text, "\"");
    return false;
  }
  /// Two numbers: "(0.9, 0.999)" or "[0.9, 0.999]". `first` and `second` are left alone where the option is absent.
  void take_pair(std::string_view name, double& first, double& second) {
    auto const text = take(name, std::string_view{});
    if (text.empty()) return;
    auto const comma = text.find(',');
    bool const bracketed = (text.front() == '(' && text.back() == ')') || (text.front() == '[' && text.back() == ']');
    require(text.size() >= 5 && comma != std::string::npos && bracketed, "option_list", "option \"", name,
            "\" must be a pair like (0.9, 0.999), got \"", text, "\"");
    first = number<double>(name, text.substr(1, comma - 1));
    second = number<double>(name, text.substr(comma + 1, text.size() - comma - 2));
  }
  /// The value that `choices` gives the name; refuses other names, listing the known ones.
  template <class T>
  [[nodiscard]] T take_choice(std::string_view name, std::vector<std::pair<std::string_view, T>> const& choices,
                              T otherwise) {
    auto const text = take(name, std::string_view{});
    if (text.empty()) return otherwise;
    std::string known;
    for (auto const& [spelling, value] : choices) {
      if (text == spelling) return value;
      known += (known.empty() ? "" : ", ") + std::string{spelling};
    }
    throw argument_error{
        detail::join("lowrank::option_list: option \"", name, "\" must be one of ", known, "; got \"", text, "\"")};
  }
  /// Refuses whatever nobody asked for: a misspelt option must not be ignored in silence.
  void require_empty(std::string_view optimizer) const {
    if (!entries_.empty())
      throw argument_error{
          detail::join("lowrank::by_name: ", optimizer, " has no option \"", entries_.front().name, "\"")};
  }

 private:
  struct entry {
    std::string name, value;
  };

  [[nodiscard]] static std::string_view trimmed(std::string_view text) noexcept {
    auto const space = [](char c) { return c == ' ' || c == '\t' || c == '\n'; };
    while (!text.empty() && space(text.front())) text.remove_prefix(1);
    while (!text.empty() && space(text.back())) text.remove_suffix(1);
    return text;
  }
  [[nodiscard]] static std::string unquoted(std::string_view text) {
    if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front())
      text = text.substr(1, text.size() - 2);
    return std::string{text};
  }
  template <class T>
  [[nodiscard]] static T number(std::string_view name, std::string_view text) {
    text = trimmed(text);
    T value{};
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    require(error == std::errc{} && end == text.data() + text.size(), "option_list", "option \"", name,
            "\" must be a number, got \"", text, "\"");
    return value;
  }

  std::vector<entry> entries_;
};

}  // namespace lowrank
