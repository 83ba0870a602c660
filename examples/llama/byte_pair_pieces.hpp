/// @file
/// The pieces of a text inside of which byte pairs are merged.
#pragma once

#include <algorithm>
#include <array>

#include "unicode.hpp"

namespace llama {

namespace detail {

/// Bytes of 's 't 're 've 'm 'll 'd at the start of `text`, or 0.
[[nodiscard]] inline std::size_t contraction(std::string_view text) noexcept {
  for (std::string_view const tail : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
    if (text.starts_with(tail)) return tail.size();
  return 0;
}

/// Bytes of the characters at the start of `text` that are of `kind`.
[[nodiscard]] inline std::size_t run_of(character_kind kind, std::string_view text) noexcept {
  std::size_t size = 0;
  while (size < text.size()) {
    auto const c = first_character(text.substr(size));
    if (c.kind != kind) break;
    size += c.size;
  }
  return size;
}

/// Bytes of the first match of 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ at the start of `text`,
/// which is not empty and holds no number.
[[nodiscard]] inline std::size_t first_match(std::string_view text) noexcept {
  if (auto const size = contraction(text); size > 0) return size;
  std::size_t const blank = text.front() == ' ' ? 1 : 0;
  if (text.size() > blank) {
    auto const kind = first_character(text.substr(blank)).kind;
    if (kind != character_kind::space) return blank + run_of(kind, text.substr(blank));
  }
  // A run of spaces leaves its last one to what follows.
  std::size_t const run = run_of(character_kind::space, text);
  if (run == text.size()) return run;
  std::size_t last = run;
  for (std::size_t at = 0; at < run; at += first_character(text.substr(at)).size) last = at;
  return last > 0 ? last : run;
}

}  // namespace detail

/// Calls on_piece(piece) for the pieces of `text` in their order: first every \p{N} character alone, then what lies
/// between them by GPT-2's expression, in which the end of such a part counts as the end of the text.
/// Cost: linear.
template <class OnPiece>
void each_piece(std::string_view text, OnPiece&& on_piece) {
  auto const split = [&](std::string_view part) {
    while (!part.empty()) {
      auto const size = detail::first_match(part);
      on_piece(part.substr(0, size));
      part.remove_prefix(size);
    }
  };
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    auto const c = first_character(text.substr(at));
    if (c.kind == character_kind::number) {
      split(text.substr(begin, at - begin));
      on_piece(text.substr(at, c.size));
      begin = at + c.size;
    }
    at += c.size;
  }
  split(text.substr(begin));
}

}  // namespace llama
