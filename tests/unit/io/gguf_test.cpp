#include "lowrank/io/gguf.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "support/gguf_file.hpp"
#include "temporary_folder.hpp"

namespace gguf_test {

namespace {

using namespace lowrank;
using lowrank_test::gguf_file;
using lowrank_test::gguf_kind;
using lowrank_test::raw;

gguf_reader reader_of(temporary_folder const& folder, gguf_file const& file) {
  write_content(folder / "f", file.bytes());
  return gguf_reader{folder / "f"};
}
std::string half(float x) { return raw(to_fp16(x).bits); }

/// Byte i of a block is a mixture of i and `seed`, so that no two elements of a block agree for long.
std::string codes(std::size_t count, unsigned seed) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(static_cast<char>((i * 37 + seed * 101 + i * i) & 0xFFU));
  return out;
}
int code(std::string const& codes, std::size_t i) { return static_cast<unsigned char>(codes[i]); }

TEST_SUITE_BEGIN("gguf");

TEST_CASE("keys of every type are read, and nothing else than what they are") {
  temporary_folder const folder;
  auto const reader = reader_of(folder, gguf_file{}
                                            .key("u8", gguf_kind::u8, raw(std::uint8_t{200}))
                                            .key("i8", gguf_kind::i8, raw(std::int8_t{-5}))
                                            .key("u16", gguf_kind::u16, raw(std::uint16_t{60000}))
                                            .key("i16", gguf_kind::i16, raw(std::int16_t{-300}))
                                            .key("u32", gguf_kind::u32, raw(std::uint32_t{4000000000U}))
                                            .key("i32", gguf_kind::i32, raw(std::int32_t{-70000}))
                                            .key("f32", gguf_kind::f32, raw(1.5F))
                                            .key("yes", gguf_kind::boolean, raw(std::uint8_t{1}))
                                            .text("text", std::string("a\0\xFF", 3))
                                            .key("u64", gguf_kind::u64, raw(std::uint64_t{1} << 63))
                                            .key("i64", gguf_kind::i64, raw(std::int64_t{-1} << 40))
                                            .key("f64", gguf_kind::f64, raw(0.1))
                                            .texts("texts", {"", "b", "cc"})
                                            .numbers("numbers", {3, -4})
                                            .array("truths", gguf_kind::boolean, 3, std::string("\1\0\1", 3))
                                            .array("none", gguf_kind::f64, 0, ""));
  auto const& keys = reader.metadata();
  CHECK(keys.values().size() == 16);
  CHECK(keys.at<int>("u8") == 200);
  CHECK(keys.at<std::int8_t>("i8") == -5);
  CHECK(keys.at<index_t>("u16") == 60000);
  CHECK(keys.at<int>("i16") == -300);
  CHECK(keys.at<index_t>("u32") == 4000000000);
  CHECK(keys.at<int>("i32") == -70000);
  CHECK(keys.at<double>("f32") == 1.5);
  CHECK(keys.at<bool>("yes"));
  CHECK(keys.at<std::string>("text") == std::string("a\0\xFF", 3));
  CHECK(keys.at<std::uint64_t>("u64") == std::uint64_t{1} << 63);
  CHECK(keys.at<std::int64_t>("i64") == std::int64_t{-1} << 40);
  CHECK(keys.at<double>("f64") == 0.1);
  CHECK(keys.at<float>("f64") == 0.1F);
  CHECK(keys.at<std::vector<std::string>>("texts") == std::vector<std::string>{"", "b", "cc"});
  CHECK(keys.at<std::vector<std::int32_t>>("numbers") == std::vector<std::int32_t>{3, -4});
  CHECK(keys.at<std::vector<bool>>("truths") == std::vector<bool>{true, false, true});
  CHECK(keys.at<std::vector<double>>("none").empty());
  CHECK(keys.contains("u8"));
  CHECK(keys.find<int>("u8") == 200);
  CHECK_FALSE(keys.find<int>("v8").has_value());
  CHECK_FALSE(keys.contains("v8"));

  auto const refusal = [&](auto&& f) { return message_of<io_error>(f); };
  CHECK(refusal([&] { (void)keys.at<int>("v8"); }).find("there is no key \"v8\"") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<int>("u32"); }).find("an integer of the range") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<unsigned>("i8"); }).find("an integer of the range") != std::string::npos);
  CHECK(refusal([&] { (void)keys.find<int>("f32"); }).find("an integer") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<int>("yes"); }).find("an integer") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<bool>("u8"); }).find("a truth value") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<double>("u8"); }).find("a floating-point number") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<double>("numbers"); }).find("a floating-point number") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<std::string>("u8"); }).find("a text") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<std::vector<std::uint32_t>>("numbers"); }).find("an array") != std::string::npos);
  CHECK(refusal([&] { (void)keys.at<std::vector<float>>("f32"); }).find("an array") != std::string::npos);
}

TEST_CASE("numbers of every type that can be read are what their bytes mean") {
  temporary_folder const folder;
  std::string const q8 = codes(64, 1), q40 = codes(32, 2), q41 = codes(32, 3);
  // A row of two blocks each.
  auto const reader = reader_of(
      folder,
      gguf_file{}
          .tensor("f32", 0, {2, 3}, raw(std::vector<float>{1, 2, 3, 4, 5, 6}))
          .tensor("f16", 1, {3}, half(0.5F) + half(-2) + half(65504))
          .tensor("bf16", 30, {3, 1}, raw(std::vector<std::uint16_t>{0x3F80, 0xC000, 0x0001}))
          .tensor("q8_0", 8, {64}, half(0.25F) + q8.substr(0, 32) + half(-3) + q8.substr(32))
          .tensor("q4_0", 2, {64}, half(0.5F) + q40.substr(0, 16) + half(7) + q40.substr(16))
          .tensor("q4_1", 3, {64}, half(2) + half(-1.5F) + q41.substr(0, 16) + half(-1) + half(9) + q41.substr(16))
          .tensor("scalar", 0, {}, raw(8.0F)));
  CHECK(reader.tensors().size() == 7);
  CHECK(reader.data_begin() % 32 == 0);
  CHECK(reader.at("f32").shape == std::vector<index_t>{3, 2});
  CHECK(reader.at("q8_0").bytes() == 68);
  CHECK(name(reader.at("q4_1").type) == "Q4_1");
  auto const f32 = reader.read_matrix("f32"), f16 = reader.read_matrix("f16"), b16 = reader.read_matrix("bf16");
  REQUIRE(f32.shape() == extents{3, 2});
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 2; ++j) CHECK(f32(i, j) == static_cast<float>(2 * i + j + 1));
  REQUIRE(f16.shape() == extents{1, 3});
  CHECK(f16(0, 0) == 0.5F);
  CHECK(f16(0, 1) == -2);
  CHECK(f16(0, 2) == 65504);
  REQUIRE(b16.shape() == extents{1, 3});
  CHECK(b16(0, 0) == 1);
  CHECK(b16(0, 1) == -2);
  CHECK(b16(0, 2) == 0x1p-133F);
  CHECK(reader.read_matrix("scalar")(0, 0) == 8);
  auto const x8 = reader.read_matrix("q8_0"), x40 = reader.read_matrix("q4_0"), x41 = reader.read_matrix("q4_1");
  for (std::size_t i = 0; i < 64; ++i) {
    CAPTURE(i);
    auto const at = static_cast<index_t>(i);
    std::size_t const in_block = i % 32, byte = i / 32 * 16 + in_block % 16;
    auto const nibble = [&](std::string const& q) { return in_block < 16 ? code(q, byte) & 15 : code(q, byte) >> 4; };
    int const signed_code = code(q8, i) < 128 ? code(q8, i) : code(q8, i) - 256;
    CHECK(x8(0, at) == (i < 32 ? 0.25F : -3.0F) * static_cast<float>(signed_code));
    CHECK(x40(0, at) == (i < 32 ? 0.5F : 7.0F) * static_cast<float>(nibble(q40) - 8));
    CHECK(x41(0, at) == (i < 32 ? 2.0F : -1.0F) * static_cast<float>(nibble(q41)) + (i < 32 ? -1.5F : 9.0F));
  }
}

TEST_CASE("a tensor longer than what is read at once goes into any view") {
  temporary_folder const folder;
  constexpr index_t rows = 300, cols = 64;
  std::string content;
  for (index_t b = 0; b < rows * cols / 32; ++b) content += half(static_cast<float>(b % 512)) + std::string(32, '\1');
  // An alignment of its own, and other tensors on both sides.
  gguf_file file;
  file.alignment = 256;
  auto const reader = reader_of(folder, file.u32("general.alignment", 256)
                                            .tensor("before", 24, {3}, "abc")
                                            .tensor("w", 8, {cols, rows}, content)
                                            .tensor("after", 24, {1}, "d"));
  CHECK(reader.data_begin() % 256 == 0);
  CHECK(reader.at("w").begin == 256);
  matrix<float> wide{{cols + 1, rows + 2}};
  auto const out = wide.view().sub({1, cols + 1, 2, rows + 2}).t();
  reader.read_matrix("w", out);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) REQUIRE(out(i, j) == static_cast<float>((i * 2 + j / 32) % 512));
  for (index_t i = 0; i < rows; ++i) CHECK(wide(0, i) == 0);
  std::string bytes(1, ' ');
  reader.read_into("after", std::as_writable_bytes(std::span{bytes}));
  CHECK(bytes == "d");
}

TEST_CASE("what cannot be read is refused by its name") {
  temporary_folder const folder;
  auto const reader = reader_of(folder, gguf_file{}
                                            .tensor("ints", 26, {2}, raw(std::vector<std::int32_t>{1, 2}))
                                            .tensor("double", 28, {1}, raw(1.0))
                                            .tensor("q6_k", 14, {256}, std::string(210, '\0'))
                                            .tensor("deep", 0, {1, 1, 2}, raw(std::vector<float>{1, 2})));
  auto const said = [&](std::string_view name) { return message_of<error>([&] { (void)reader.read_matrix(name); }); };
  CHECK(said("ints").find("must be F32, F16, BF16, Q8_0, Q4_0 or Q4_1, got I32") != std::string::npos);
  CHECK(said("double").find("got F64") != std::string::npos);
  CHECK(said("q6_k").find("got Q6_K") != std::string::npos);
  CHECK(said("deep").find("must have at most 2 dimensions, got [2, 1, 1]") != std::string::npos);
  CHECK(said("none").find("there is no tensor \"none\"") != std::string::npos);
  CHECK(reader.find("none") == nullptr);
  matrix<float> wrong{{2, 1}};
  CHECK_THROWS_AS(reader.read_matrix("double", wrong.view()), shape_error);
  std::string bytes(3, ' ');
  CHECK_THROWS_AS(reader.read_into("ints", std::as_writable_bytes(std::span{bytes})), shape_error);
}

TEST_CASE("NaN and infinity are passed on, or refused where they are unwanted") {
  temporary_folder const folder;
  float const inf = std::numeric_limits<float>::infinity();
  auto const reader =
      reader_of(folder, gguf_file{}
                            .tensor("plain", 0, {2, 2}, raw(std::vector<float>{1, 2, 3, -inf}))
                            .tensor("scale", 3, {32}, raw(std::uint16_t{0x7E00}) + half(1) + std::string(16, '\0')));
  CHECK(reader.read_matrix("plain")(1, 1) == -inf);
  for (index_t i = 0; i < 32; ++i) CHECK_FALSE(is_finite(reader.read_matrix("scale")(0, i)));
  auto const said = [&](std::string_view name) {
    return message_of<io_error>([&] { (void)reader.read_matrix(name, nonfinite::refuse); });
  };
  CHECK(said("plain").find("tensor \"plain\" must be finite, got -inf in row 1, column 1") != std::string::npos);
  CHECK(said("scale").find("nan in row 0, column 0") != std::string::npos);
}

}  // namespace

TEST_SUITE_END();

}  // namespace gguf_test
