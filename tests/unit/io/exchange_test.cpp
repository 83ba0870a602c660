// Files for the Python package `safetensors`, and from it: python_roundtrip.py stands between the two tests, with
// LOWRANK_EXCHANGE naming the folder. Without it the second test reads what the first one wrote.
#include <doctest/doctest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "lowrank/io/checkpoint.hpp"
#include "temporary_folder.hpp"

namespace exchange_test {

namespace {

using namespace lowrank;

std::array const exchanged{dtype::boolean, dtype::u8,  dtype::i8,  dtype::f8_e5m2, dtype::f8_e4m3,
                           dtype::i16,     dtype::u16, dtype::f16, dtype::bf16,    dtype::i32,
                           dtype::u32,     dtype::f32, dtype::f64, dtype::i64,     dtype::u64};

std::vector<std::byte> pattern(std::size_t tensor, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 37 + tensor * 11) % 2);
  return bytes;
}
struct run {
  std::int64_t step{12};
  float loss{0.1F};
  matrix<float> moment{2, 3};

  run() {
    for (index_t i = 0; i < 6; ++i) moment.data()[i] = static_cast<float>(i) / 3;
  }
  template <class F>
  friend void visit_state(run& r, F&& f) {
    f("step", r.step);
    f("loss", r.loss);
    f("moment", r.moment);
  }
};

void write_files(std::filesystem::path const& folder) {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<tensor_source> sources;
  for (std::size_t i = 0; i < exchanged.size(); ++i) {
    bytes.push_back(pattern(i, static_cast<std::size_t>(bits(exchanged[i]) / 8 * 6)));
    sources.push_back({{"t" + std::to_string(i), exchanged[i], {2, 3}}, bytes.back()});
  }
  sources.push_back({{"scalar", dtype::u8, {}}, std::span{bytes[1]}.first(1)});
  sources.push_back({{"empty \"name\" ä", dtype::f32, {3, 0}}, {}});
  write_safetensors(folder / "all.safetensors", sources, {{"made by", "lowrank"}});
  run const r;
  checkpoint_writer writer;
  writer.add("run", r);
  writer.add_metadata("options", "--steps 12");
  writer.write(folder / "checkpoint.safetensors");
}
void read_files(std::filesystem::path const& folder) {
  safetensors_reader const file{folder / "all.safetensors"};
  CHECK(file.tensors().size() == exchanged.size() + 2);
  CHECK(file.metadata().at("made by") == "lowrank");
  for (std::size_t i = 0; i < exchanged.size(); ++i) {
    auto const& info = file.at("t" + std::to_string(i));
    CHECK(info.type == exchanged[i]);
    CHECK(info.shape == std::vector<index_t>{2, 3});
    std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes()));
    file.read_into(info.name, bytes);
    CHECK(bytes == pattern(i, bytes.size()));
  }
  CHECK(file.at("scalar").shape.empty());
  CHECK(file.at("empty \"name\" ä").shape == std::vector<index_t>{3, 0});
  run const expected;
  run loaded;
  loaded.step = 0;
  loaded.moment(0, 1) = 7;
  checkpoint_reader checkpoint{folder / "checkpoint.safetensors"};
  checkpoint.load("run", loaded);
  CHECK(states_equal(expected, loaded));
}

TEST_SUITE_BEGIN("exchange");

TEST_CASE("files are written for other programs") {
  if (auto const* const folder = std::getenv("LOWRANK_EXCHANGE"); folder != nullptr) return write_files(folder);
  temporary_folder const own;
  write_files(own.path());
  read_files(own.path());
}

TEST_CASE("files of other programs are read") {
  if (auto const* const folder = std::getenv("LOWRANK_EXCHANGE"); folder != nullptr) return read_files(folder);
  temporary_folder const own;
  write_files(own.path());
  read_files(own.path());
}

TEST_SUITE_END();

}  // namespace

}  // namespace exchange_test
