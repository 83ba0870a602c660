#if defined(LOWRANK_HAS_UTF8PROC)

#include "../../../examples/llama/tokenizer.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "../io/temporary_folder.hpp"
#include "lowrank/core/rng.hpp"
#include "support/gguf_file.hpp"

namespace tokenizer_test {

namespace {

using lowrank_test::gguf_file;
using tokens = std::vector<std::int32_t>;

std::vector<std::string> pieces_of(std::string_view text) {
  std::vector<std::string> out;
  llama::each_piece(text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

/// Two special tokens, a symbol for every byte but 4, and what the merges make.
struct tiny_vocabulary {
  std::vector<std::string> texts{"<|end|>", "<|end"};
  std::vector<std::int32_t> types{3, 3};
  std::vector<std::string> merges;

  tiny_vocabulary() {
    auto const symbols = llama::detail::byte_symbols();
    for (int byte = 0; byte < 256; ++byte)
      if (byte != 4) {
        texts.emplace_back();
        llama::append_utf8(texts.back(), symbols[static_cast<std::size_t>(byte)]);
        types.push_back(1);
      }
    for (auto const* const merge :
         {"t h", "th e", "Ġ the", "a b", "ab ab", "b a", "e r", "h e", "abab ab", "Ġ Ġ", "Ã ¤", "Ġ t", "c ab"}) {
      merges.emplace_back(merge);
      std::string joined = merge;
      joined.erase(joined.find(' '), 1);
      texts.push_back(joined);
      types.push_back(1);
    }
  }
  [[nodiscard]] gguf_file file() const {
    return gguf_file{}
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .texts("tokenizer.ggml.tokens", texts)
        .numbers("tokenizer.ggml.token_type", types)
        .texts("tokenizer.ggml.merges", merges)
        .u32("tokenizer.ggml.bos_token_id", 0);
  }
  [[nodiscard]] std::int32_t id(std::string_view text) const {
    return static_cast<std::int32_t>(std::ranges::find(texts, text) - texts.begin());
  }
  /// The definition: of all neighbours that can be merged, the first of the lowest rank, until there are none.
  [[nodiscard]] tokens merged(std::string_view piece) const {
    std::vector<std::string> parts;
    auto const symbols = llama::detail::byte_symbols();
    for (char const c : piece) {
      std::string symbol;
      llama::append_utf8(symbol, symbols[static_cast<unsigned char>(c)]);
      if (c != 4) parts.push_back(symbol);
    }
    for (;;) {
      std::size_t best = merges.size(), place = 0;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        auto const rank =
            static_cast<std::size_t>(std::ranges::find(merges, parts[i] + " " + parts[i + 1]) - merges.begin());
        if (rank < best) best = rank, place = i;
      }
      if (best == merges.size()) break;
      parts[place] += parts[place + 1];
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
    tokens out;
    for (auto const& part : parts) out.push_back(id(part));
    return out;
  }
};

struct loaded {
  temporary_folder folder;
  tiny_vocabulary vocabulary;

  llama::tokenizer tokenizer() const {
    write_content(folder / "f", vocabulary.file().bytes());
    return llama::tokenizer{lowrank::gguf_reader{folder / "f"}};
  }
};

TEST_SUITE_BEGIN("tokenizer");

TEST_CASE("texts fall into pieces") {
  using list = std::vector<std::string>;
  struct row {
    std::string text;
    list pieces;
  };
  row const rows[] = {
      {"", {}},
      {"Hello, world!", {"Hello", ",", " world", "!"}},
      {"In 2026, 3.14", {"In", " ", "2", "0", "2", "6", ",", " ", "3", ".", "1", "4"}},
      {"it's we'll I'd you're I've I'm don't",
       {"it", "'s", " we", "'ll", " I", "'d", " you", "'re", " I", "'ve", " I", "'m", " don", "'t"}},
      {"IT'S 'tis ' s ''s", {"IT", "'", "S", " '", "tis", " '", " s", " ''", "s"}},
      {"a  b", {"a", " ", " b"}},
      {"a   b", {"a", "  ", " b"}},
      {"a \n b", {"a", " \n", " b"}},
      {"a\nb", {"a", "\n", "b"}},
      {"a\n\nb", {"a", "\n", "\n", "b"}},
      {"a  ", {"a", "  "}},
      {"   ", {"   "}},
      // A number ends what is before it, so its spaces stay together.
      {"a   1 b", {"a", "   ", "1", " b"}},
      {"a\t!b", {"a", "\t", "!", "b"}},
      {"x=-1;", {"x", "=-", "1", ";"}},
      {"caf\u00e9 \u00fcber \u4e2d\u6587", {"caf\u00e9", " \u00fcber", " \u4e2d\u6587"}},
      {"x\u00b2\u00bd\u2177\u0663", {"x", "\u00b2", "\u00bd", "\u2177", "\u0663"}},
      {"a\u00a0\u2003\u3000b", {"a", "\u00a0\u2003", "\u3000", "b"}},
      {"a \u00a0b", {"a", " ", "\u00a0", "b"}},
      {"a\u0085\u0085b\x0b\x0c!", {"a", "\u0085", "\u0085", "b", "\x0b", "\x0c", "!"}},
      {" \U0001F642\u200d!", {" \U0001F642\u200d!"}},
      {"e\u0301a", {"e", "\u0301", "a"}},  // a combining mark is no letter
      // Bytes that are no UTF-8, and a character cut at the end.
      {"a\xFF\xFE"
       "b\xC3",
       {"a", "\xFF\xFE", "b", "\xC3"}},
      {"\xED\xA0\x80 \xC0\xAF", {"\xED\xA0\x80", " \xC0\xAF"}},
  };
  for (auto const& [text, pieces] : rows) {
    CAPTURE(text);
    CHECK(pieces_of(text) == pieces);
  }
}

TEST_CASE("merges are those of the definition, on every text") {
  loaded const all;
  auto const tokenizer = all.tokenizer();
  auto const& v = all.vocabulary;
  CHECK(tokenizer.encode("the other") == tokens{v.id("the"), v.id("\u0120"), v.id("o"), v.id("the"), v.id("r")});
  CHECK(tokenizer.encode(" the") == tokens{v.id("\u0120the")});
  CHECK(tokenizer.encode("\u00e4") == tokens{v.id("\u00c3\u00a4")});
  CHECK(tokenizer.encode("ababab") == tokens{v.id("ababab")});
  for (std::uint32_t n = 0; n < 3000; ++n) {
    std::string text;
    auto const word = [&](std::uint64_t i) { return lowrank::random_word({.seed = 1, .step = n}, i); };
    std::string_view const letters = n % 3 == 0 ? "ab" : n % 3 == 1 ? "abtherc " : " \n,.a1b'sth\xC3\xA4\x04\xFF";
    for (std::uint64_t i = 0; i < word(0) % 40; ++i) text.push_back(letters[word(i + 1) % letters.size()]);
    tokens expected;
    llama::each_piece(text, [&](std::string_view piece) {
      auto const part = v.merged(piece);
      expected.insert(expected.end(), part.begin(), part.end());
    });
    CAPTURE(text);
    REQUIRE(tokenizer.encode(text) == expected);
    std::erase(text, '\x04');  // the byte without a symbol is left out
    REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
  }
}

TEST_CASE("special tokens are found first, the longest where several fit") {
  loaded const all;
  auto const tokenizer = all.tokenizer();
  auto const a = all.vocabulary.id("a");
  CHECK(tokenizer.encode("a<|end|>a") == tokens{a, 0, a});
  CHECK(tokenizer.encode("<|enda<|end|><|end") == tokens{1, a, 0, 1});
  CHECK(tokenizer.encode("<|end|>", llama::special_names::text).size() == 7);
  CHECK(tokenizer.encode("<<|en").size() == 5);
  // A text ends where a special token begins.
  CHECK(tokenizer.encode("a  <|end|>") == tokens{a, all.vocabulary.id("\u0120\u0120"), 0});
  CHECK(tokenizer.decode(tokens{a, 0, a}) == "a<|end|>a");
  CHECK(tokenizer.special("<|end|>") == 0);
  CHECK_FALSE(tokenizer.special("a").has_value());
  CHECK(tokenizer.first() == 0);
  CHECK_FALSE(tokenizer.last().has_value());
  CHECK(tokenizer.size() == 2 + 255 + 13);
  CHECK_THROWS_AS((void)tokenizer.decode(tokens{-1}), lowrank::argument_error);
  CHECK_THROWS_AS((void)tokenizer.decode(tokens{270}), lowrank::argument_error);
}

TEST_CASE("long pieces take no square of time") {
  loaded const all;
  auto const tokenizer = all.tokenizer();
  std::string text(400'000, 'a');
  for (std::size_t i = 1; i < text.size(); i += 2) text[i] = 'b';
  auto const begin = std::chrono::steady_clock::now();
  auto const found = tokenizer.encode(text);
  CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < 20);
  CHECK(tokenizer.decode(found) == text);
  CHECK(found.size() == 100'000);  // abab, and no pair of those can be merged
}

TEST_CASE("contradictions are refused") {
  temporary_folder const folder;
  auto const said = [&](gguf_file const& file) {
    write_content(folder / "f", file.bytes());
    lowrank::gguf_reader const reader{folder / "f"};
    return message_of<lowrank::io_error>([&] { llama::tokenizer{reader}; });
  };
  auto const has = [](std::string const& text, std::string_view part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  auto const changed = [](auto&& change) {
    tiny_vocabulary v;
    change(v);
    return v.file();
  };
  CHECK(said(tiny_vocabulary{}.file()).empty());
  has(said(gguf_file{}), "there is no key \"tokenizer.ggml.model\"");
  has(said(gguf_file{}.text("tokenizer.ggml.model", "llama")), "tokenizer.ggml.model must be gpt2, got \"llama\"");
  has(said(gguf_file{}.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "llama-bpe")),
      "tokenizer.ggml.pre must be smollm");
  has(said(changed([](auto& v) { v.types.pop_back(); })), "it has 270 tokens, but types of 269");
  has(said(changed([](auto& v) {
        v.texts.emplace_back("a");
        v.types.push_back(1);
      })),
      "are both \"a\"");
  for (auto const* const line : {"", " ", "ab", "a ", " a", "a q q", "a z", "zz a"}) {
    CAPTURE(line);
    has(said(changed([&](auto& v) { v.merges.emplace_back(line); })), "merge 13, ");
  }
  has(said(tiny_vocabulary{}.file().u32("tokenizer.ggml.eos_token_id", 270)),
      "tokenizer.ggml.eos_token_id must be a token, got 270");
}

}  // namespace

TEST_SUITE_END();

#endif

}  // namespace tokenizer_test
