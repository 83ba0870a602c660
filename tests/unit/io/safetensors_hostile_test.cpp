// Files from strangers: each one is refused with its own message, and no byte of a header can crash the reader.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/safetensors.hpp"
#include "temporary_folder.hpp"

namespace safetensors_hostile_test {

namespace {

using namespace lowrank;

std::string refusal(temporary_folder const& folder, std::string_view content) {
  write_content(folder / "f", content);
  return message_of<io_error>([&] { safetensors_reader{folder / "f"}; });
}
std::string header_refusal(std::string_view header, index_t data_bytes) {
  return message_of<io_error>([&] { (void)detail::parse_header(header, data_bytes, "test"); });
}
// One tensor of 16 bytes, with its fields as given.
std::string one(std::string_view fields) { return R"({"t":{)" + std::string{fields} + "}}"; }

TEST_SUITE_BEGIN("safetensors hostile");

TEST_CASE("files whose first bytes lie") {
  temporary_folder const folder;
  struct row {
    std::string content;
    std::string_view message;
  };
  std::string const good = file_of(one(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"), std::string(16, '\0'));
  CHECK(refusal(folder, good).empty());
  auto const with_length = [](std::uint64_t length, std::string_view rest) {
    std::string file(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i) & 0xFFU);
    return file.append(rest);
  };
  row const rows[] = {
      {"", "must have at least 8 bytes, got 0"},
      {good.substr(0, 7), "must have at least 8 bytes, got 7"},
      {with_length(~std::uint64_t{0}, "{}"), "must not exceed 100000000 bytes, the file says 18446744073709551615"},
      {with_length(std::uint64_t{1} << 63, "{}"), "must not exceed 100000000 bytes"},
      {with_length(100'000'001, "{}"), "must not exceed 100000000 bytes, the file says 100000001"},
      {with_length(100'000'000, "{}"), "says its header has 100000000 bytes, but only 2 follow"},
      {with_length(3, "{}"), "says its header has 3 bytes, but only 2 follow"},
      {with_length(0, "{}"), "must start with '{'"},
      {good.substr(0, good.size() - 1), "data_offsets end at byte 16, the data has 15"},
      {good + "x", "goes on after its last tensor: 1 bytes belong to no tensor"},
      {file_of("{}", "x"), "goes on after its last tensor: 1 bytes"},
  };
  for (auto const& [content, message] : rows) {
    auto const said = refusal(folder, content);
    CAPTURE(message);
    CAPTURE(said);
    CHECK(said.find(message) != std::string::npos);
    CHECK(said.find((folder / "f").string()) != std::string::npos);
  }
}

TEST_CASE("headers that are no header, one by one") {
  std::string const good = R"("dtype":"F32","shape":[4],"data_offsets":[0,16])";
  auto const entry = [&](std::string_view name, std::string_view offsets) {
    return "\"" + std::string{name} + R"(":{"dtype":"U8","shape":[8],"data_offsets":)" + std::string{offsets} + "}";
  };
  struct row {
    std::string header;
    std::string_view message;
  };
  std::string deep_object, deep_array;
  for (int i = 0; i < 100'000; ++i) {
    deep_object += R"({"a":)";
    deep_array += '[';
  }
  std::string dimensions = "1";
  for (int i = 0; i < 64; ++i) dimensions += ",1";
  row const rows[] = {
      {" " + one(good), "must start with '{'"},
      {"\xEF\xBB\xBF" + one(good), "must start with '{'"},
      {"[]", "must start with '{'"},
      {"{", "not valid UTF-8 JSON at byte"},
      {one(good) + "x", "not valid UTF-8 JSON at byte"},
      {one(good) + "{}", "not valid UTF-8 JSON at byte"},
      {one(good) + std::string(1, '\0'), "not valid UTF-8 JSON at byte"},
      {one(good) + std::string("\0{evil", 6), "not valid UTF-8 JSON at byte"},
      {R"({"a)" + std::string(1, '\0') + R"(":1})", "not valid UTF-8 JSON at byte"},
      {"{'t':1}", "not valid UTF-8 JSON at byte"},
      {"{/**/}", "not valid UTF-8 JSON at byte"},
      {"{\"\xff\":{}}", "not valid UTF-8 JSON at byte"},
      {"{\"\xc0\x80\":{}}", "not valid UTF-8 JSON at byte"},      // overlong zero
      {"{\"\xed\xa0\x80\":{}}", "not valid UTF-8 JSON at byte"},  // surrogate
      {R"({"\ud800":{}})", "not valid UTF-8 JSON at byte"},
      {one(good + ","), "not valid UTF-8 JSON at byte"},
      {deep_object, "tensor \"a\" has the unknown field \"a\""},
      {one(R"("dtype":)" + deep_object), "dtype must not hold \"an object\""},
      {R"({"t":)" + deep_array, "entry \"t\" must be an object, got \"an array\""},
      {one(R"("shape":)" + deep_array), "shape must not hold \"an array\""},
      {one(R"("dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16])"), "\"t\" has two fields \"dtype\""},
      {one(R"("dtype":"F32","\u0064type":"F32")"), "\"t\" has two fields \"dtype\""},
      {one(good + R"(,"shape":[4])"), "\"t\" has two fields \"shape\""},
      {one(good + R"(,"offset":0)"), "\"t\" has the unknown field \"offset\""},
      {one(R"("shape":[4],"data_offsets":[0,16])"), "\"t\" has no dtype"},
      {one(R"("dtype":"F32","data_offsets":[0,16])"), "\"t\" has no shape"},
      {one(R"("dtype":"F32","shape":[4])"), "\"t\" has no data_offsets"},
      {R"({"t":{}})", "\"t\" has no dtype"},
      {R"({"t":null})", "entry \"t\" must be an object, got \"null\""},
      {R"({"t":true})", "entry \"t\" must be an object, got \"a boolean\""},
      {R"({"t":1})", "must be an object"},
      {R"({"t":"x"})", "entry \"t\" must be an object, got \"a string\""},
      {one(R"("dtype":"F33","shape":[4],"data_offsets":[0,16])"), "unknown dtype \"F33\""},
      {one(R"("dtype":"f32","shape":[4],"data_offsets":[0,16])"), "unknown dtype \"f32\""},
      {one(R"("dtype":32,"shape":[4],"data_offsets":[0,16])"), "dtype must not hold \"a number\""},
      {one(R"("dtype":["F32"],"shape":[4])"), "dtype must not hold \"an array\""},
      {one(R"("dtype":"F32","shape":4,"data_offsets":[0,16])"), "shape must not hold \"a number\""},
      {one(R"("dtype":"F32","shape":["4"],"data_offsets":[0,16])"), "shape must not hold \"a string\""},
      {one(R"("dtype":"F32","shape":[4.0],"data_offsets":[0,16])"), "shape must not hold \"4.0\""},
      {one(R"("dtype":"F32","shape":[4e0],"data_offsets":[0,16])"), "shape must not hold \"4e0\""},
      {one(R"("dtype":"F32","shape":[null],"data_offsets":[0,16])"), "shape must not hold \"null\""},
      {one(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), "shape must not be negative, got -4"},
      {one(R"("dtype":"F32","shape":[5],"data_offsets":[0,16])"), "[5] of F32 takes 20 bytes, data_offsets span 16"},
      {one(R"("dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16])"), "does not make"},
      {one(R"("dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16])"), "does not make"},
      {one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,16])"),
       "9223372036854775808 in shape is too large"},
      {one(R"("dtype":"F32","shape":[18446744073709551620],"data_offsets":[0,16])"), "shape must not hold"},
      {one(R"("dtype":"F32","shape":[)" + dimensions + R"(],"data_offsets":[0,16])"), "shape has too many numbers"},
      {one(R"("dtype":"F4","shape":[31],"data_offsets":[0,16])"), "does not make a whole number of bytes"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"), "end before they begin: 16, 0"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[-16,0])"), "data_offsets must not be negative, got -16"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[0,17])"), "end at byte 17, the data has 16"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[9223372036854775800,9223372036854775807])"), "the data has 16"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[0])"), "must be two numbers, got 1"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[])"), "must be two numbers, got 0"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":[0,16,16])"), "data_offsets has too many numbers"},
      {one(R"("dtype":"F32","shape":[4],"data_offsets":{"begin":0})"), "must not hold \"an object\""},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[12,16])"),
       "bytes 0 to 12 before tensor \"t\" belong to no tensor"},
      {"{" + entry("a", "[0,8]") + "," + entry("a", "[8,16]") + "}", "two tensors are called \"a\""},
      {"{" + entry("a", "[0,8]") + "," + entry("\\u0061", "[8,16]") + "}", "two tensors are called \"a\""},
      {"{" + entry("a", "[0,8]") + "," + entry("b", "[0,8]") + "}", "\"b\" begins at byte 0 and overlaps"},
      {"{" + entry("a", "[0,8]") + "," + entry("b", "[7,15]") + "}", "\"b\" begins at byte 7 and overlaps"},
      {"{" + entry("a", "[0,8]") + "}", "goes on after its last tensor: 8 bytes"},
      {"{}", "goes on after its last tensor: 16 bytes"},
      {R"({"__metadata__":null})", "entry \"__metadata__\" must be an object, got \"null\""},
      {R"({"__metadata__":{"a":1}})", "__metadata__ entry \"a\" must be a string, got \"a number\""},
      {R"({"__metadata__":{"a":{}}})", "__metadata__ entry \"a\" must be a string, got \"an object\""},
      {R"({"__metadata__":{"a":"1","a":"2"}})", "__metadata__ has two entries \"a\""},
      {R"({"__metadata__":{},"__metadata__":{}})", "two entries \"__metadata__\""},
  };
  CHECK(header_refusal(one(good), 16).empty());
  for (auto const& [header, message] : rows) {
    auto const said = header_refusal(header, 16);
    CAPTURE(header.substr(0, 120));
    CAPTURE(message);
    CAPTURE(said);
    CHECK(said.find(message) != std::string::npos);
    CHECK(said.size() < 400);
  }
}

TEST_CASE("legal oddities are read") {
  CHECK(header_refusal("{}", 0).empty());
  CHECK(header_refusal("{} \n\t ", 0).empty());
  CHECK(header_refusal(one(R"("data_offsets":[0,16],"shape":[2,2],"dtype":"F32")"), 16).empty());
  CHECK(header_refusal(one(R"("dtype":"F32","shape":[],"data_offsets":[0,4])"), 4).empty());
  CHECK(header_refusal(one(R"("dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0])"), 0).empty());
  CHECK(header_refusal(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1).empty());
  // Empty tensors lie anywhere between others.
  auto const header = detail::parse_header(R"({"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},)"
                                           R"("e":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},)"
                                           R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                                           8, "test");
  CHECK(header.tensors[0].name == "a");
  CHECK(header.tensors[1].name == "e");
  CHECK(header.tensors[2].name == "b");
}

TEST_CASE("names of strangers cannot disturb a message") {
  auto const said = header_refusal(R"({"\u001b[31m\n)" + std::string(1000, 'x') + R"(":1})", 0);
  CHECK(said.find("\\x1b[31m\\x0a") != std::string::npos);
  CHECK(std::ranges::none_of(said, [](char c) { return c < ' '; }));
  CHECK(said.size() < 300);
}

// Every byte of a header, changed to every value, removed, doubled, and the header cut there.
TEST_CASE("no damage to one byte crashes: it is refused, or read as something consistent") {
  std::string const header =
      R"({"__metadata__":{"k\u00e4":"v"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("b":{"dtype":"I8","shape":[],"data_offsets":[16,17]}})";
  index_t const data_bytes = 17;
  int read = 0, refused = 0;
  auto const attempt = [&](std::string const& text) {
    try {
      auto const parsed = detail::parse_header(text, data_bytes, "test");
      index_t end = 0;
      for (auto const& t : parsed.tensors) {
        REQUIRE(t.begin == end);
        REQUIRE(detail::packed_bytes(t.type, t.shape) == t.bytes());
        end = t.end;
      }
      REQUIRE(end == data_bytes);
      ++read;
    } catch (io_error const&) { ++refused; }
  };
  attempt(header);
  REQUIRE(read == 1);
  for (std::size_t at = 0; at < header.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      auto damaged = header;
      damaged[at] = static_cast<char>(value);
      attempt(damaged);
    }
    attempt(header.substr(0, at));
    attempt(header.substr(0, at) + header.substr(at + 1));
    attempt(header.substr(0, at) + header[at] + header.substr(at));
  }
  CHECK(refused > read);
  CHECK(read > 500);  // letters of names, for example, may be anything
}

TEST_CASE("no damage to one byte of a whole file crashes") {
  temporary_folder const folder;
  std::string const good = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", std::string(8, '\0'));
  for (std::size_t at = 0; at < good.size(); ++at) {
    CHECK_FALSE(refusal(folder, good.substr(0, at)).empty());
    for (int const flip : {1, 0x20, 0x80, 0xFF}) {
      auto damaged = good;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      (void)refusal(folder, damaged);
    }
  }
}

TEST_CASE("a large header costs memory in proportion to itself only") {
  // A million numbers in a shape, a million unknown entries: refused at the first that does not belong.
  std::string numbers = R"({"t":{"dtype":"U8","shape":[0)";
  for (int i = 0; i < 1'000'000; ++i) numbers += ",0";
  CHECK(header_refusal(numbers + "]}}", 0).find("too many numbers") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace

}  // namespace safetensors_hostile_test
