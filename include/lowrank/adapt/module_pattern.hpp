/// @file
/// How PEFT's settings name modules of a model: by the ends of their names, and by regular expressions.
#pragma once

#include <regex>
#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank::adapt {

/// Whether `module` is `name`, or ends in it after a dot: "q_proj" names "model.layers.0.self_attn.q_proj".
[[nodiscard]] inline bool ends_in_name(std::string_view module, std::string_view name) noexcept {
  return module == name ||
         (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
}

/// A regular expression of a file. Python's and ECMAScript's agree about what such files hold; what only Python knows is
/// refused, and so is what is longer than any name of modules asks for.
/// Throws: io_error naming the pattern.
class module_pattern {
 public:
  /// Where a match may begin: the whole name, or what follows one of its dots as well.
  enum class start : std::uint8_t { whole, after_a_dot };

  module_pattern(std::string_view text, start where, std::string_view caller) {
    constexpr std::size_t size_limit = 4096;
    require<io_error>(text.size() <= size_limit, caller, "a pattern must not exceed ", size_limit, " bytes, got ",
                      text.size());
    try {
      std::string const whole = where == start::whole ? std::string{text} : "(?:.*\\.)?(?:" + std::string{text} + ")";
      expression_.assign(whole, flags);
    } catch (std::regex_error const&) {
      throw io_error{
          lowrank::detail::join("lowrank::", caller, ": cannot read the pattern ", lowrank::detail::quoted{text})};
    }
  }
  [[nodiscard]] bool matches(std::string_view module) const {
    return std::regex_match(module.begin(), module.end(), expression_);
  }

 private:
#if defined(__GLIBCXX__)
  // Backtracking takes exponential time, and a stack as deep as the text is long, for patterns that are written for it.
  static constexpr auto flags = std::regex_constants::ECMAScript | std::regex_constants::__polynomial;
#else
  static constexpr auto flags = std::regex_constants::ECMAScript;
#endif
  std::regex expression_;
};

namespace detail {

/// A pattern that fits this module and no other.
[[nodiscard]] inline std::string exact_pattern(std::string_view module) {
  std::string out = "^";
  for (char const c : module) {
    bool const plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace detail

}  // namespace lowrank::adapt
