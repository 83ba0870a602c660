/// @file
/// What a tokenizer asks about the characters of a text.
#pragma once

#include <utf8proc.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llama {

/// What a character is to the splitting of text into pieces: \p{L}, \p{N}, \s, or none of them.
enum class character_kind : std::uint8_t { letter, number, space, other };

/// A character of a text: where it ends and what it is.
struct character {
  std::size_t size;  ///< bytes
  character_kind kind;
};

/// The kind of a code point. Spaces are those of Unicode's White_Space property.
[[nodiscard]] inline character_kind kind_of(std::int32_t code) noexcept {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return character_kind::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return character_kind::number;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return character_kind::space;
    default:
      return (code >= 0x09 && code <= 0x0D) || code == 0x85 ? character_kind::space : character_kind::other;
  }
}

/// The first character of `text`, which must not be empty. A byte that is no UTF-8 is a character by itself, of no kind.
[[nodiscard]] inline character first_character(std::string_view text) noexcept {
  auto const first = static_cast<unsigned char>(text.front());
  if (first < 0x80) return {1, kind_of(first)};
  utf8proc_int32_t code = -1;
  auto const size = utf8proc_iterate(reinterpret_cast<utf8proc_uint8_t const*>(text.data()),
                                     static_cast<utf8proc_ssize_t>(text.size()), &code);
  if (size <= 0) return {1, character_kind::other};
  return {static_cast<std::size_t>(size), kind_of(code)};
}

/// Writes `code`, below 0x800, as UTF-8 behind `text`.
template <class Text>
void append_utf8(Text& text, std::int32_t code) {
  if (code < 0x80) {
    text.push_back(static_cast<char>(code));
  } else {
    text.push_back(static_cast<char>(0xC0 | code >> 6));
    text.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

}  // namespace llama
