// Cuts PTX text into top-level items, statements, modifiers and operands.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace softgpu {

[[nodiscard]] std::string_view trim(std::string_view s) noexcept;

/// Parts between separators that stand outside of {}, [] and (); empty parts are left out.
[[nodiscard]] std::vector<std::string_view> split(std::string_view s, char separator);
[[nodiscard]] std::vector<std::string_view> words(std::string_view s);  ///< between white space and commas

/// Without comments, and with a ';' after directives that end with their line.
[[nodiscard]] std::string without_comments(std::string_view ptx);

enum class item_kind : unsigned char { directive, entry, function };
/// `.visible .entry name(parameters) directives { body }`, or a directive without its ';' in `head`.
struct item {
  item_kind kind = item_kind::directive;
  std::string_view head, name, results, parameters, directives, body;
  bool has_body = false;
};
[[nodiscard]] std::vector<item> items(std::string_view cleaned);

/// One statement of a body: "{", "}", "label:", or an instruction or directive without its ';'.
[[nodiscard]] std::vector<std::string_view> statements(std::string_view body);

/// `.align 4 .b8 name[16]` and the initial values behind '='.
struct declaration {
  std::string_view name, values;
  unsigned align = 1, unit = 1;
  unsigned long long bytes = 0;
  bool holds_real = false;
};
[[nodiscard]] declaration parse_declaration(std::string_view text);

}  // namespace softgpu
