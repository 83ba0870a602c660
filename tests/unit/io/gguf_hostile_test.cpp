// Files from strangers: each one is refused with its own message, and no byte of a header can crash the reader.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/gguf.hpp"
#include "support/gguf_file.hpp"
#include "temporary_folder.hpp"

namespace gguf_hostile_test {

namespace {

using namespace lowrank;
using lowrank_test::gguf_file;
using lowrank_test::gguf_kind;
using lowrank_test::gguf_text;
using lowrank_test::raw;

std::string refusal(temporary_folder const& folder, std::string_view content) {
  write_content(folder / "f", content);
  return message_of<io_error>([&] { gguf_reader{folder / "f"}; });
}
gguf_file good() {
  return gguf_file{}
      .u32("n", 7)
      .text("t", "words")
      .texts("list", {"a", "bc"})
      .tensor("w", 8, {32, 2}, std::string(68, '\0'))
      .tensor("v", 0, {3}, std::string(12, '\0'));
}

TEST_SUITE_BEGIN("gguf hostile");

TEST_CASE("files that lie, one by one") {
  temporary_folder const folder;
  CHECK(refusal(folder, good().bytes()).empty());
  CHECK(refusal(folder, gguf_file{}.bytes()).empty());
  struct row {
    std::string content;
    std::string_view message;
  };
  constexpr auto most = std::numeric_limits<std::uint64_t>::max();
  auto const with = [](auto&& change) {
    auto file = good();
    change(file);
    return file.bytes();
  };
  auto const tensor = [](std::uint32_t type, std::vector<std::uint64_t> const& dimensions, std::uint64_t offset) {
    return gguf_file{}.placed("w", type, dimensions, offset).bytes() + std::string(64, '\0');
  };
  auto const key = [](gguf_kind kind, std::string const& value) { return gguf_file{}.key("k", kind, value).bytes(); };
  auto const array = [](gguf_kind kind, std::uint64_t count, std::string const& values) {
    return gguf_file{}.array("k", kind, count, values).bytes();
  };
  auto const kind = [](std::uint32_t number) { return static_cast<gguf_kind>(number); };
  row const rows[] = {
      {"", "ends inside of its header, at byte 0"},
      {"GGU", "ends inside of its header, at byte 3"},
      {with([](auto& f) { f.magic = "GGML"; }), "must start with \"GGUF\""},
      {with([](auto& f) { f.version = 2; }), "version must be 3, got 2"},
      {with([](auto& f) { f.version = 4; }), "version must be 3, got 4"},
      {with([](auto& f) { f.version = 3U << 24; }), "big-endian"},
      {with([](auto& f) { f.more_tensors = most - 5; }), "says it has 18446744073709551612 tensors"},
      {with([](auto& f) { f.more_keys = std::uint64_t{1} << 40; }), "says it has 1099511627779 keys"},
      {with([](auto& f) { f.more_keys = 1; }), "lowrank::gguf_reader"},
      {with([](auto& f) { f.more_tensors = 1; }), "lowrank::gguf_reader"},
      {with([](auto& f) { f.u32("n", 8); }), "there are two keys \"n\""},
      {key(kind(13), std::string(64, '\0')), "key \"k\" has a value of the unknown type 13"},
      {key(kind(0xFFFFFFFF), std::string(64, '\0')), "unknown type 4294967295"},
      {key(gguf_kind::boolean, "\2"), "truth values of 0 or 1, got 2"},
      {key(gguf_kind::text, raw(most)), "says it has 18446744073709551615 bytes of text"},
      {key(gguf_kind::text, raw(std::uint64_t{1} << 33)), "says it has 8589934592 bytes of text"},
      {array(gguf_kind::array, 1, raw(gguf_kind::u8) + raw(std::uint64_t{0})), "holds an array of arrays"},
      {array(kind(77), 0, ""), "has a value of the unknown type 77"},
      {array(gguf_kind::u8, most, ""), "says it has 18446744073709551615 elements of an array"},
      {array(gguf_kind::f64, (most >> 3) + 2, std::string(64, '\0')), "elements of an array"},
      {array(gguf_kind::text, std::uint64_t{1} << 61, std::string(64, '\0')), "elements of an array"},
      {array(gguf_kind::text, 1, raw(most)), "bytes of text"},
      {array(gguf_kind::boolean, 2, "\1\7"), "truth values of 0 or 1, got 7"},
      {gguf_file{}.u32("general.alignment", 0).bytes(), "power of two up to 1048576, got 0"},
      {gguf_file{}.u32("general.alignment", 24).bytes(), "power of two up to 1048576, got 24"},
      {gguf_file{}.u32("general.alignment", 1U << 31).bytes(), "power of two up to 1048576, got 2147483648"},
      {gguf_file{}.text("general.alignment", "32").bytes(), "must hold an integer"},
      {tensor(0, {1, 1, 1, 1, 1}, 0), "at most 4 dimensions, got 5"},
      {tensor(0, {most}, 0), "18446744073709551615 in its shape is too large"},
      {tensor(0, {std::uint64_t{1} << 32, std::uint64_t{1} << 32}, 0), "whole number of blocks below 2^63 bytes"},
      {tensor(0, {std::uint64_t{1} << 62}, 0), "whole number of blocks below 2^63 bytes"},
      {tensor(8, {33}, 0), "shape [33] of Q8_0 does not make a whole number of blocks"},
      {tensor(14, {32, 8}, 0), "shape [8, 32] of Q6_K does not make a whole number of blocks"},
      {tensor(4, {32}, 0), "tensor \"w\" has the unknown type 4"},
      {tensor(40, {32}, 0), "has the unknown type 40"},
      {tensor(0, {1}, 8), "begins at byte 8, which is no multiple of the alignment 32"},
      {tensor(0, {1}, most - 31), "begins at byte 18446744073709551584, which is too large"},
      {tensor(0, {1}, (most >> 1) - 31), "ends at byte 9223372036854775780"},
      {tensor(24, {64}, (most >> 1) - 31), "begins at byte 9223372036854775776, which is too large"},
      {tensor(0, {1}, 96), "tensor \"w\" ends at byte 100, the data has"},
      {tensor(0, {1000}, 0), "tensor \"w\" ends at byte 4000, the data has"},
      {with([](auto& f) { f.placed("w", 0, {1}, 0); }), "two tensors are called \"w\""},
      {with([](auto& f) { f.placed("x", 0, {1}, 32); }), "\"x\" begins at byte 32 and overlaps the one before"},
      {with([](auto& f) { f.placed("x", 0, {2}, 96); }), "and overlaps the one before, which ends at"},
  };
  for (auto const& [content, message] : rows) {
    auto const said = refusal(folder, content);
    CAPTURE(message);
    CAPTURE(said);
    CHECK(said.find(message) != std::string::npos);
    CHECK(said.find((folder / "f").string()) != std::string::npos);
    CHECK(said.size() < 400);
  }
}

TEST_CASE("a header is not read without end") {
  temporary_folder const folder;
  write_content(folder / "f", gguf_file{}.array("k", gguf_kind::text, 13'000'000, "").bytes());
  std::filesystem::resize_file(folder / "f", 104'000'100);  // sparse: texts of no bytes, as many as one likes
  CHECK(message_of<io_error>([&] { gguf_reader{folder / "f"}; }).find("elements of an array") != std::string::npos);
  write_content(folder / "f", gguf_file{}.text("k", "").array("l", gguf_kind::u8, 99'999'940, "").bytes());
  std::filesystem::resize_file(folder / "f", 200'000'000);
  CHECK(message_of<io_error>([&] { gguf_reader{folder / "f"}; }).find("elements of an array") != std::string::npos);
}

TEST_CASE("legal oddities are read") {
  temporary_folder const folder;
  // No tensors and no padding; a tensor of nothing; gaps; bytes behind the last tensor; the order of the data.
  CHECK(refusal(folder, gguf_file{}.header()).empty());
  CHECK(refusal(folder, gguf_file{}.placed("empty", 0, {0, 5}, 0).header()).empty());
  CHECK(refusal(folder, gguf_file{}.placed("b", 0, {1}, 64).placed("a", 0, {1}, 0).bytes() + std::string(80, 'x'))
            .empty());
  CHECK(refusal(folder, gguf_file{}.text("", "").tensor("", 0, {1}, "four").bytes()).empty());
}

TEST_CASE("names of strangers cannot disturb a message") {
  temporary_folder const folder;
  auto const said = refusal(folder, gguf_file{}.placed("\x1b[31m\n" + std::string(1000, 'x'), 99, {1}, 0).bytes());
  CHECK(said.find("\\x1b[31m\\x0a") != std::string::npos);
  CHECK(std::ranges::none_of(said, [](char c) { return c < ' '; }));
  CHECK(said.size() < 300);
}

// Every byte of a header, each of its bits turned and some more values, and the file cut there.
TEST_CASE("no damage to one byte crashes: it is refused, or read as something consistent") {
  temporary_folder const folder;
  std::string const whole = good().bytes();
  std::size_t const header = good().header().size();
  int read = 0, refused = 0;
  auto const attempt = [&](std::string const& content) {
    write_content(folder / "f", content);
    try {
      gguf_reader const reader{folder / "f"};
      for (auto const& t : reader.tensors()) {
        REQUIRE(t.begin >= 0);
        REQUIRE(t.end <= static_cast<index_t>(content.size()) - reader.data_begin());
        if (t.shape.size() <= 2 && t.type != ggml_type::i8) {
          try {
            REQUIRE(reader.read_matrix(t.name).shape() == reader.matrix_shape(t.name));
          } catch (io_error const&) { ++refused; }  // a type that has no numbers for us
        }
      }
      ++read;
    } catch (io_error const&) { ++refused; }
  };
  attempt(whole);
  REQUIRE(read == 1);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    attempt(whole.substr(0, at));
    if (at >= header) continue;
    for (int const flip : {1, 2, 4, 8, 16, 32, 64, 128, 0xFF, 0x7F, 0x55}) {
      auto damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      attempt(damaged);
    }
    attempt(whole.substr(0, at) + whole.substr(at + 1));
    attempt(whole.substr(0, at) + whole[at] + whole.substr(at));
  }
  CHECK(refused > read);
  CHECK(read > 100);  // letters of names, for example, may be anything
}

}  // namespace

TEST_SUITE_END();

}  // namespace gguf_hostile_test
