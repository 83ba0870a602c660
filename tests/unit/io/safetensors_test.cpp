#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "lowrank/io/safetensors.hpp"
#include "temporary_folder.hpp"

namespace safetensors_test {

namespace {

using namespace lowrank;

template <class T>
tensor_source source(std::string name, std::vector<index_t> shape, std::vector<T> const& values) {
  return {{std::move(name), dtype_of<T>, std::move(shape)}, std::as_bytes(std::span{values})};
}

TEST_SUITE_BEGIN("safetensors");

TEST_CASE("what is written is read: types, shapes, bytes, metadata") {
  temporary_folder const folder;
  std::vector<float> const f32{1.5F, -2, 1e-40F, 4, 5, 6};
  std::vector<double> const f64{3.25};
  std::vector<bf16> const half{to_bf16(1), to_bf16(-3)};
  std::vector<std::int64_t> const i64{-1, 1LL << 62};
  std::vector<std::uint8_t> const u8{1, 2, 255};
  std::vector<float> const none;
  std::vector<tensor_source> const sources{source("w", {2, 3}, f32),  source("scalar", {}, f64),
                                           source("half", {2}, half), source("i", {2, 1}, i64),
                                           source("codes", {3}, u8),  source("empty", {0, 7}, none)};
  write_safetensors(folder / "a", sources, {{"key", "value \"with\" quotes\n"}, {"ä", "ö"}});

  safetensors_reader const file{folder / "a"};
  CHECK(file.metadata() == file_metadata{{"key", "value \"with\" quotes\n"}, {"ä", "ö"}});
  REQUIRE(file.tensors().size() == 6);
  // Strictest alignment first, then by name: what the format's own writer does.
  std::vector<std::string> order;
  for (auto const& t : file.tensors()) order.push_back(t.name);
  CHECK(order == std::vector<std::string>{"i", "scalar", "empty", "w", "half", "codes"});
  CHECK(file.at("i").begin == 0);
  CHECK(file.at("empty").bytes() == 0);
  CHECK(file.at("w").shape == std::vector<index_t>{2, 3});
  CHECK(file.at("w").type == dtype::f32);
  CHECK(file.find("nothing") == nullptr);

  for (auto const& s : sources) {
    std::vector<std::byte> bytes(s.bytes.size());
    file.read_into(s.spec.name, bytes);
    CHECK(std::ranges::equal(bytes, s.bytes));
  }
  std::array<std::int64_t, 2> numbers{};
  file.read("i", std::span{numbers});
  CHECK(numbers[1] == 1LL << 62);
  std::array<std::uint8_t, 2> part{};
  file.read_part("codes", 1, std::as_writable_bytes(std::span{part}));
  CHECK(part == std::array<std::uint8_t, 2>{2, 255});

  auto const text = content_of(folder / "a");
  CHECK((8 + static_cast<unsigned char>(text[8 - 8]) + 256 * static_cast<unsigned char>(text[1])) % 8 == 0);
}

TEST_CASE("a header of known text") {
  temporary_folder const folder;
  std::vector<std::uint16_t> const u16{1, 2};
  write_safetensors(folder / "a", std::vector{source("x", {2}, u16)});
  CHECK(content_of(folder / "a") ==
        file_of(R"({"x":{"dtype":"U16","shape":[2],"data_offsets":[0,4]}}  )", std::string_view{"\1\0\2\0", 4}));
  write_safetensors(folder / "b", {});
  CHECK(content_of(folder / "b") == file_of("{}      ", ""));
  CHECK(safetensors_reader{folder / "b"}.tensors().empty());
}

TEST_CASE("every type keeps its name and size") {
  struct row {
    dtype type;
    std::string_view name;
    index_t bits;
  };
  row const rows[] = {{dtype::f64, "F64", 64},
                      {dtype::f32, "F32", 32},
                      {dtype::f16, "F16", 16},
                      {dtype::bf16, "BF16", 16},
                      {dtype::i64, "I64", 64},
                      {dtype::i32, "I32", 32},
                      {dtype::i16, "I16", 16},
                      {dtype::i8, "I8", 8},
                      {dtype::u64, "U64", 64},
                      {dtype::u32, "U32", 32},
                      {dtype::u16, "U16", 16},
                      {dtype::u8, "U8", 8},
                      {dtype::boolean, "BOOL", 8},
                      {dtype::f8_e4m3, "F8_E4M3", 8},
                      {dtype::f8_e5m2, "F8_E5M2", 8},
                      {dtype::f8_e8m0, "F8_E8M0", 8},
                      {dtype::c64, "C64", 64},
                      {dtype::f4, "F4", 4},
                      {dtype::f6_e2m3, "F6_E2M3", 6},
                      {dtype::f6_e3m2, "F6_E3M2", 6},
                      {dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
                      {dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8}};
  CHECK(std::size(rows) == detail::dtype_rows.size());
  temporary_folder const folder;
  for (auto const& [type, spelled, size] : rows) {
    CAPTURE(spelled);
    CHECK(name(type) == spelled);
    CHECK(bits(type) == size);
    CHECK(dtype_named(spelled) == type);
    std::vector<std::byte> const bytes(static_cast<std::size_t>(size));
    std::vector<tensor_source> const one{{{"t", type, {4, 2}}, bytes}};  // 8 elements take `size` bytes
    write_safetensors(folder / "t", one);
    CHECK(safetensors_reader{folder / "t"}.at("t").type == type);
  }
  static_assert(dtype_of<bool> == dtype::boolean && dtype_of<long long> == dtype::i64 &&
                dtype_of<char16_t> == dtype::u16);
  static_assert(dtype_of<std::byte> == dtype::u8 && dtype_of<float const> == dtype::f32 && !storable<void*>);
}

TEST_CASE("matrices come as fp32 from every float type, into any strides") {
  temporary_folder const folder;
  index_t const rows = 3, cols = 2500;  // more than one chunk
  std::vector<float> f32(static_cast<std::size_t>(rows * cols));
  for (std::size_t i = 0; i < f32.size(); ++i) f32[i] = static_cast<float>(i % 2048) / 16 - 50;
  std::vector<double> f64(f32.begin(), f32.end());
  f64[1] = 1.0 / 3;
  std::vector<bf16> b16;
  std::vector<fp16> h16;
  for (float const x : f32) {
    b16.push_back(to_bf16(x));
    h16.push_back(to_fp16(x));
  }
  write_safetensors(folder / "m", std::vector{source("f32", {rows, cols}, f32), source("f64", {rows, cols}, f64),
                                              source("bf16", {rows, cols}, b16), source("f16", {rows, cols}, h16)});
  safetensors_reader const file{folder / "m"};
  auto const element = [&](index_t i, index_t j) { return static_cast<std::size_t>(i * cols + j); };
  auto const a = file.read_matrix("f32"), b = file.read_matrix("f64"), c = file.read_matrix("bf16");
  matrix<float> flipped{cols, rows};
  file.read_matrix("f16", flipped.view().t());
  REQUIRE(a.shape() == extents{rows, cols});
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) {
      REQUIRE(a(i, j) == f32[element(i, j)]);
      REQUIRE(b(i, j) == static_cast<float>(f64[element(i, j)]));
      REQUIRE(c(i, j) == b16[element(i, j)].value());
      REQUIRE(flipped(j, i) == f32[element(i, j)]);
    }
}

TEST_CASE("shapes with fewer dimensions are rows") {
  temporary_folder const folder;
  write_safetensors(folder / "m", std::vector{source<float>("v", {3}, {1, 2, 3}), source<float>("s", {}, {4}),
                                              source<float>("cube", {1, 3, 1}, {1, 2, 3}),
                                              source<std::int32_t>("i", {1}, {1}), source<float>("none", {0, 3}, {})});
  safetensors_reader const file{folder / "m"};
  CHECK(file.read_matrix("v").shape() == extents{1, 3});
  CHECK(file.read_matrix("v")(0, 2) == 3);
  CHECK(file.read_matrix("s")(0, 0) == 4);
  CHECK(file.read_matrix("none").shape() == extents{0, 3});
  CHECK(message_of<shape_error>([&] { (void)file.read_matrix("cube"); })
            .find("\"cube\" must have at most 2 dimensions, got "
                  "[1, 3, 1]") != std::string::npos);
  CHECK(message_of<io_error>([&] { (void)file.read_matrix("i"); }).find("must be F32, F64, F16 or BF16, got I32") !=
        std::string::npos);
}

TEST_CASE("asking wrongly is refused and named") {
  temporary_folder const folder;
  write_safetensors(folder / "m", std::vector{source<float>("v", {3}, {1, 2, 3})});
  safetensors_reader const file{folder / "m"};
  std::array<float, 3> three{9, 9, 9};
  std::array<double, 3> doubles{};
  std::array<std::byte, 4> four{};
  CHECK(message_of<io_error>([&] { (void)file.at("w"); }).find("there is no tensor \"w\"") != std::string::npos);
  CHECK(message_of<io_error>([&] { file.read("v", std::span{doubles}); }).find("must be F64, got F32") !=
        std::string::npos);
  CHECK(message_of<shape_error>([&] {
          file.read("v", std::span{three}.first(2));
        }).find("\"v\" has 12 bytes, the memory to read it into has 8") != std::string::npos);
  CHECK_THROWS_AS(file.read_part("v", 9, four), shape_error);
  CHECK_THROWS_AS(file.read_part("v", -1, four), shape_error);
  CHECK_THROWS_AS(file.read_part("v", std::numeric_limits<index_t>::max(), four), shape_error);
  matrix<float> wrong{3, 1};
  CHECK(message_of<shape_error>([&] {
          file.read_matrix("v", wrong.view());
        }).find("is 1x3, the matrix to read it into 3x1") != std::string::npos);
  CHECK(three[0] == 9);
}

TEST_CASE("a file that shrinks after it was opened is an error") {
  temporary_folder const folder;
  std::vector<float> const values(1000, 1);
  write_safetensors(folder / "m", std::vector{source("v", {1000}, values)});
  safetensors_reader const file{folder / "m"};
  std::filesystem::resize_file(folder / "m", 200);
  std::vector<float> out(1000);
  CHECK(message_of<io_error>([&] { file.read("v", std::span{out}); }).find("ends at byte 200") != std::string::npos);
}

TEST_CASE("what is no regular file is refused") {
  temporary_folder const folder;
  CHECK(message_of<io_error>([&] { safetensors_reader{folder / "nothing"}; }).find("cannot open") != std::string::npos);
  CHECK(message_of<io_error>([&] { safetensors_reader{folder.path()}; }).find("must be a regular file") !=
        std::string::npos);
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(safetensors_reader{folder / "pipe"}, io_error);  // and does not wait for a writer
  CHECK_THROWS_AS((safetensors_writer{folder / "pipe", {}}), io_error);
  CHECK_THROWS_AS((safetensors_writer{folder.path(), {}}), io_error);
  CHECK_THROWS_AS((safetensors_writer{folder / "no/such/folder", {}}), io_error);
  CHECK_THROWS_AS((safetensors_writer{"", {}}), io_error);
  CHECK(folder.entries() == 1);
}

TEST_CASE("a file larger than what is read of it: sparse tail, one part") {
  temporary_folder const folder;
  index_t const size = index_t{1} << 34;  // 16 GiB, never allocated
  write_content(folder / "big",
                file_of(R"({"t":{"dtype":"U8","shape":[17179869184],"data_offsets":[0,17179869184]}})", ""));
  auto const header = static_cast<index_t>(std::filesystem::file_size(folder / "big"));
  std::filesystem::resize_file(folder / "big", static_cast<std::uintmax_t>(header + size));
  safetensors_reader const file{folder / "big"};
  std::array<std::byte, 16> out{std::byte{1}};
  file.read_part("t", size - 16, out);
  CHECK(out[0] == std::byte{0});
}

TEST_CASE("the writer takes bytes in order, in parts, and counts them") {
  temporary_folder const folder;
  std::array<float, 4> const values{1, 2, 3, 4};
  auto const bytes = std::as_bytes(std::span{values});
  safetensors_writer writer{folder / "w", {{"b", dtype::f32, {4}}, {"a", dtype::f32, {4}}, {"e", dtype::f32, {0}}}};
  CHECK(message_of<state_error>([&] { writer.append("b", bytes); }).find("\"b\" is not the next one, which is \"a\"") !=
        std::string::npos);
  writer.append("a", bytes.first(3));
  CHECK(message_of<state_error>([&] { writer.commit(); }).find("bytes of tensor \"a\" are missing") !=
        std::string::npos);
  CHECK(message_of<shape_error>([&] { writer.append("a", bytes); }).find("has 13 bytes left to write, got 16") !=
        std::string::npos);
  writer.append("a", bytes.subspan(3));
  writer.append("b", bytes);
  CHECK_THROWS_AS(writer.append("b", bytes.first(1)), state_error);
  CHECK_FALSE(std::filesystem::exists(folder / "w"));
  writer.commit();
  CHECK(folder.entries() == 1);
  CHECK(safetensors_reader{folder / "w"}.read_matrix("a")(0, 3) == 4);
}

TEST_CASE("tensors that make no file are refused before the disk is touched") {
  temporary_folder const folder;
  auto const refusal = [&](std::vector<tensor_spec> specs, file_metadata const& metadata = {}) {
    return message_of<error>([&] { safetensors_writer{folder / "w", std::move(specs), metadata}; });
  };
  CHECK(refusal({{"a", dtype::f32, {1}}, {"a", dtype::f64, {1}}}).find("two tensors are called \"a\"") !=
        std::string::npos);
  CHECK(refusal({{"__metadata__", dtype::f32, {1}}}).find("must not be called __metadata__") != std::string::npos);
  CHECK(refusal({{"a", dtype::f32, {-1}}}).find("shape [-1]") != std::string::npos);
  CHECK(refusal({{"a", dtype::f32, {1LL << 32, 1LL << 32}}}).find("does not make") != std::string::npos);
  CHECK(refusal({{"a", dtype::u8, {1LL << 59}}, {"b", dtype::u8, {1LL << 59}}}).empty());  // 2^60: still a number
  CHECK(refusal({{"a", dtype::f4, {3}}}).find("whole number of bytes") != std::string::npos);
  CHECK(refusal({{"\xff", dtype::f32, {1}}}).find("must be UTF-8, got \"\\xff\"") != std::string::npos);
  CHECK(refusal({}, {{"key", "\xc3"}}).find("must be UTF-8") != std::string::npos);
  CHECK(folder.entries() == 0);
}

TEST_CASE("a writer that is given up leaves the old file and nothing else") {
  temporary_folder const folder;
  write_content(folder / "w", "old");
  {
    safetensors_writer writer{folder / "w", {{"a", dtype::u8, {4}}}};
    CHECK(folder.entries() == 2);
  }
  CHECK(content_of(folder / "w") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("a disk that takes no more leaves the old file and nothing else") {
  temporary_folder const folder;
  write_content(folder / "w", "old");
  auto* const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
  rlimit const small_files{4096, old.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small_files) == 0);
  std::vector<float> const values(100000);
  auto const message =
      message_of<io_error>([&] { write_safetensors(folder / "w", std::vector{source("v", {100000}, values)}); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
  std::signal(SIGXFSZ, old_handler);
  CHECK(message.find("cannot write") != std::string::npos);
  CHECK(message.find("File too large") != std::string::npos);
  CHECK(content_of(folder / "w") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("replacing keeps the permissions of the old file") {
  temporary_folder const folder;
  write_content(folder / "w", "old");
  std::filesystem::permissions(folder / "w", std::filesystem::perms{0640});
  write_safetensors(folder / "w", {});
  CHECK(std::filesystem::status(folder / "w").permissions() == std::filesystem::perms{0640});
}

TEST_SUITE_END();

}  // namespace

}  // namespace safetensors_test
