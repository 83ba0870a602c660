/// @file
/// Byte-level BPE out of a GGUF file: from text to tokens and back.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "byte_pair_merges.hpp"
#include "byte_pair_pieces.hpp"
#include "lowrank/io/gguf.hpp"

namespace llama {

namespace detail {

/// The character that stands for a byte in vocabularies: printable bytes for themselves, the others from U+0100 on.
[[nodiscard]] constexpr std::array<std::int32_t, 256> byte_symbols() noexcept {
  std::array<std::int32_t, 256> symbols{};
  std::int32_t next = 256;
  for (std::int32_t byte = 0; byte < 256; ++byte) {
    bool const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    symbols[static_cast<std::size_t>(byte)] = printable ? byte : next++;
  }
  return symbols;
}

}  // namespace detail

/// Whether the names of special tokens in a text become those tokens, or are text like any other.
enum class special_names : std::uint8_t { tokens, text };

/// The tokenizer of SmolLM-like models: GPT-2's byte-level BPE, with every digit a token of its own.
/// Nothing is put in front of a text: models that want their first token there are given it by the caller.
class tokenizer {
 public:
  /// Throws: io_error when the file's tokenizer is of another kind, or contradicts itself.
  explicit tokenizer(lowrank::gguf_reader const& file) : caller_{"llama::tokenizer: " + file.path().string()} {
    auto const& keys = file.metadata();
    auto const expect = [&](std::string const& key, std::string_view value) {
      auto const& found = keys.at<std::string>(key);
      lowrank::require<lowrank::io_error>(found == value, caller_, key, " must be ", value, ", got ",
                                          lowrank::detail::quoted{found});
    };
    expect("tokenizer.ggml.model", "gpt2");
    expect("tokenizer.ggml.pre", "smollm");
    read_tokens(keys.at<std::vector<std::string>>("tokenizer.ggml.tokens"),
                keys.at<std::vector<std::int32_t>>("tokenizer.ggml.token_type"));
    read_merges(keys.at<std::vector<std::string>>("tokenizer.ggml.merges"));
    first_ = token_at(keys, "tokenizer.ggml.bos_token_id");
    last_ = token_at(keys, "tokenizer.ggml.eos_token_id");
  }

  [[nodiscard]] std::int32_t size() const noexcept { return static_cast<std::int32_t>(bytes_of_.size()); }
  /// The token that begins a text, for those who want one, and the token that ends an answer.
  [[nodiscard]] std::optional<std::int32_t> first() const noexcept { return first_; }
  [[nodiscard]] std::optional<std::int32_t> last() const noexcept { return last_; }
  /// The special token of that name, or nothing.
  [[nodiscard]] std::optional<std::int32_t> special(std::string_view name) const {
    for (auto const& [text, id] : specials_)
      if (text == name) return id;
    return std::nullopt;
  }

  /// The tokens of a text. Bytes that are no UTF-8 are characters of no kind; bytes for which the vocabulary has no token
  /// are left out, as other implementations do.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text,
                                                 special_names names = special_names::tokens) const {
    std::vector<std::int32_t> out;
    std::unordered_map<std::string_view, std::vector<std::int32_t>> seen;  // texts repeat their words
    auto const encode_plain = [&](std::string_view part) {
      each_piece(part, [&](std::string_view piece) {
        auto const [place, added] = seen.try_emplace(piece);
        if (added) place->second = encode_piece(piece);
        out.insert(out.end(), place->second.begin(), place->second.end());
      });
    };
    std::size_t begin = 0;
    if (names == special_names::tokens)
      for (std::size_t at = 0; at < text.size();) {
        auto const* const found = special_at(text.substr(at));
        if (found == nullptr) {
          ++at;
          continue;
        }
        encode_plain(text.substr(begin, at - begin));
        out.push_back(found->id);
        at += found->text.size();
        begin = at;
      }
    encode_plain(text.substr(begin));
    return out;
  }

  /// The bytes of tokens. They need not be UTF-8: a character may have been cut.
  /// Throws: argument_error for a number that is no token.
  [[nodiscard]] std::string decode(std::span<std::int32_t const> tokens) const {
    std::string out;
    for (auto const token : tokens) {
      lowrank::require(token >= 0 && token < size(), "llama::tokenizer", "tokens must be in [0, ", size(), "), got ",
                       token);
      out += bytes_of_[static_cast<std::size_t>(token)];
    }
    return out;
  }

 private:
  /// ggml's numbers for kinds of tokens that are not merged from bytes.
  static constexpr std::int32_t control = 3, user_defined = 4;

  struct special_token {
    std::string text;
    std::int32_t id;
  };

  void read_tokens(std::vector<std::string> const& texts, std::vector<std::int32_t> const& types) {
    lowrank::require<lowrank::io_error>(texts.size() == types.size(), caller_, "it has ", texts.size(),
                                        " tokens, but types of ", types.size());
    std::unordered_map<std::string, unsigned char> byte_of;
    auto const symbols = detail::byte_symbols();
    for (std::size_t byte = 0; byte < symbols.size(); ++byte) {
      std::string symbol;
      append_utf8(symbol, symbols[byte]);
      byte_of[symbol] = static_cast<unsigned char>(byte);
    }
    byte_tokens_.fill(-1);
    ids_.reserve(texts.size());
    bytes_of_.reserve(texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      auto const id = static_cast<std::int32_t>(i);
      auto const [place, added] = ids_.try_emplace(texts[i], id);
      lowrank::require<lowrank::io_error>(added, caller_, "tokens ", place->second, " and ", id, " are both ",
                                          lowrank::detail::quoted{texts[i]});
      bool const special = types[i] == control || types[i] == user_defined;
      if (special && !texts[i].empty()) specials_.push_back({texts[i], id});
      bytes_of_.push_back(special ? texts[i] : bytes_of(texts[i], byte_of));
      if (auto const byte = byte_of.find(texts[i]); !special && byte != byte_of.end()) byte_tokens_[byte->second] = id;
    }
    // The longest name that fits is the one that counts.
    std::ranges::stable_sort(specials_, std::ranges::greater{},
                             [](special_token const& token) { return token.text.size(); });
    for (auto const& token : specials_) starts_special_[static_cast<unsigned char>(token.text.front())] = true;
  }
  void read_merges(std::vector<std::string> const& lines) {
    merges_.reserve(lines.size());
    for (std::size_t rank = 0; rank < lines.size(); ++rank) {
      std::string_view const line = lines[rank];
      // A space cannot be part of a token: its symbol is another character.
      auto const gap = line.find(' ');
      auto const id = [&](std::string_view text) {
        auto const found = ids_.find(std::string{text});
        lowrank::require<lowrank::io_error>(gap != std::string_view::npos && found != ids_.end(), caller_, "merge ",
                                            rank, ", ", lowrank::detail::quoted{line},
                                            ", must be of two tokens into a third one");
        return found->second;
      };
      auto const left = line.substr(0, gap), right = line.substr(std::min(gap, line.size() - 1) + 1);
      merges_.add(id(left), id(right), static_cast<std::int32_t>(rank), id(std::string{left} + std::string{right}));
    }
  }
  [[nodiscard]] std::optional<std::int32_t> token_at(lowrank::gguf_metadata const& keys, std::string_view key) const {
    auto const id = keys.find<std::int32_t>(key);
    lowrank::require<lowrank::io_error>(!id || (*id >= 0 && *id < size()), caller_, key, " must be a token, got ",
                                        id.value_or(0));
    return id;
  }
  /// The bytes that a token's symbols stand for; characters that are no symbols stand for themselves.
  [[nodiscard]] static std::string bytes_of(std::string_view text,
                                            std::unordered_map<std::string, unsigned char> const& byte_of) {
    std::string out;
    while (!text.empty()) {
      std::string const symbol{text.substr(0, first_character(text).size)};
      auto const found = byte_of.find(symbol);
      if (found == byte_of.end()) out += symbol;
      else out.push_back(static_cast<char>(found->second));
      text.remove_prefix(symbol.size());
    }
    return out;
  }
  [[nodiscard]] special_token const* special_at(std::string_view text) const noexcept {
    if (!starts_special_[static_cast<unsigned char>(text.front())]) return nullptr;
    auto const found =
        std::ranges::find_if(specials_, [&](special_token const& token) { return text.starts_with(token.text); });
    return found == specials_.end() ? nullptr : &*found;
  }
  [[nodiscard]] std::vector<std::int32_t> encode_piece(std::string_view piece) const {
    std::vector<std::int32_t> tokens;
    tokens.reserve(piece.size());
    for (char const c : piece)
      if (auto const id = byte_tokens_[static_cast<unsigned char>(c)]; id >= 0) tokens.push_back(id);
    merges_.apply(tokens);
    return tokens;
  }

  std::string caller_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::vector<std::string> bytes_of_;
  std::array<std::int32_t, 256> byte_tokens_{};
  std::vector<special_token> specials_;  ///< the longest first
  std::array<bool, 256> starts_special_{};
  byte_pair_merges merges_;
  std::optional<std::int32_t> first_, last_;
};

}  // namespace llama
