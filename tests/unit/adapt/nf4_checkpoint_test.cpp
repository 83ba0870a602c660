#include "lowrank/adapt/nf4_checkpoint.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>

#include "../io/temporary_folder.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace nf4_checkpoint_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;

bool holds(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// 210 numbers in four blocks, the last of them short.
matrix<float> numbers() {
  matrix<float> out{3, 70};
  for (index_t e = 0; e < 210; ++e) out.data()[e] = static_cast<float>((e * 37 % 101 - 50) * (1 + e / 7)) / 64;
  return out;
}
std::vector<float> dense_of(host_executor& exec, frozen_matrix const& w) {
  matrix<float> out{w.shape()};
  exec.reserve(w.workspace_bytes());
  w.dense(exec, out.view());
  return {out.data(), out.data() + out.shape().size()};
}
std::string text_of(stored_tensor const& t) { return {reinterpret_cast<char const*>(t.bytes.data()), t.bytes.size()}; }

/// Tensors of one matrix "w", of which tests spoil one.
struct checkpoint {
  temporary_folder folder;
  host_executor exec{{.threads = 1}};
  frozen_matrix matrix{exec, numbers().view(), frozen_format::nf4};
  std::vector<stored_tensor> tensors{to_bitsandbytes("w", matrix, dtype::f32)};

  stored_tensor& at(std::string_view name) {
    return *std::ranges::find(
        tensors, name, [](stored_tensor const& t) -> auto& { return t.spec.name; });
  }
  [[nodiscard]] frozen_matrix read() const {
    std::vector<tensor_source> sources;
    for (auto const& t : tensors) sources.push_back(t.source());
    write_safetensors(folder / "f", sources);
    return from_bitsandbytes(safetensors_reader{folder / "f"}, "w");
  }
  [[nodiscard]] std::string refusal() const {
    return message_of<error>([this] { static_cast<void>(read()); });
  }
  void replace_state(std::string_view what, std::string_view by) {
    auto& t = at("w.quant_state.bitsandbytes__nf4");
    auto text = text_of(t);
    REQUIRE(text.find(what) != std::string::npos);
    text.replace(text.find(what), what.size(), by);
    auto const bytes = std::as_bytes(std::span{text});
    t.bytes.assign(bytes.begin(), bytes.end());
    t.spec.shape = {static_cast<index_t>(text.size())};
  }
};

TEST_SUITE_BEGIN("nf4_checkpoint");

TEST_CASE("the tensors are those of bitsandbytes, byte for byte") {
  // Recorded from bitsandbytes 0.50.2: quantize_4bit(compress_statistics=True), QuantState.as_dict(packed=True).
  checkpoint c;
  REQUIRE(c.tensors.size() == 6);
  CHECK(c.at("w").spec.shape == std::vector<index_t>{105, 1});
  CHECK(text_of(c.at("w")).substr(0, 12) == "\147\206\170\147\226\205\171\107\245\213\151\066");
  CHECK(text_of(c.at("w.absmax")) == std::string("\0\61\337\354", 4));
  CHECK(text_of(c.at("w.nested_absmax")) == std::string("\0\320\20\101", 4));  // 9.05078125
  CHECK(c.at("w.quant_map").spec.shape == std::vector<index_t>{16});
  CHECK(c.at("w.nested_quant_map").spec.shape == std::vector<index_t>{256});
  std::array<float, 256> map{};
  std::memcpy(map.data(), c.at("w.nested_quant_map").bytes.data(), sizeof(map));
  CHECK(map[0] == -0.992968738079071F);
  CHECK(map[5] == -0.922656238079071F);
  CHECK(nlohmann::json::parse(text_of(c.at("w.quant_state.bitsandbytes__nf4"))) == nlohmann::json::parse(R"(
    {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [3, 70], "nested_blocksize": 256,
     "nested_dtype": "float32", "nested_offset": 15.94140625})"));
  auto const values = dense_of(c.exec, c.matrix);
  CHECK(values[0] == -0.6331859827041626F);
  CHECK(values[207] == 16.365985870361328F);
  CHECK(values[209] == 3.643068552017212F);
}

TEST_CASE("a matrix comes back with all bits") {
  checkpoint const c;
  host_executor exec{{.threads = 1}};
  CHECK(dense_of(exec, c.read()) == dense_of(exec, c.matrix));
}

TEST_CASE("what is another format, or damaged, is refused with its name") {
  auto const with_state = [](std::string_view what, std::string_view by) {
    checkpoint c;
    c.replace_state(what, by);
    return c.refusal();
  };
  CHECK(holds(with_state("\"nf4\"", "\"fp4\""), "quant_type"));
  CHECK(holds(with_state(":64,", ":128,"), "blocksize"));
  CHECK(holds(with_state(":256,", ":512,"), "nested_blocksize"));
  CHECK(holds(with_state("\"nested_blocksize\":256,", ""), "quantized again"));
  CHECK(holds(with_state("[3,70]", "[3,70,1]"), "shape"));
  CHECK(holds(with_state("[3,70]", "[0,70]"), "shape"));
  CHECK(holds(with_state("[3,70]", "[3.5,70]"), "shape"));
  CHECK(holds(with_state("[3,70]", "[3,72]"), "\"w\" must have 108 numbers"));
  CHECK(holds(with_state("[3,70]", "[2147483647,2147483647]"), "\"w\" must have"));
  CHECK(holds(with_state("15.94140625", "null"), "nested_offset"));
  CHECK(holds(with_state("{", "["), "byte"));
  for (auto const* const name :
       {"w", "w.absmax", "w.nested_absmax", "w.quant_map", "w.nested_quant_map", "w.quant_state.bitsandbytes__nf4"}) {
    checkpoint missing, typed, other;
    std::erase_if(missing.tensors, [&](stored_tensor const& t) { return t.spec.name == name; });
    CHECK(holds(missing.refusal(), name));
    typed.at(name).spec.type = dtype::i8;
    typed.at(name).spec.shape = {static_cast<index_t>(typed.at(name).bytes.size())};
    CHECK(holds(typed.refusal(), name));
    if (std::string_view{name}.ends_with("map")) {
      other.at(name).bytes[0] ^= std::byte{1};
      CHECK(holds(other.refusal(), "another map"));
    }
  }
}

TEST_CASE("only NF4 is written as NF4") {
  checkpoint c;
  frozen_matrix const coarse{c.exec, numbers().view(), frozen_format::int8};
  CHECK_THROWS_AS(static_cast<void>(to_bitsandbytes("w", coarse)), argument_error);
  CHECK_THROWS_AS(static_cast<void>(to_bitsandbytes("w", c.matrix, dtype::i8)), argument_error);
  CHECK_THROWS_AS((frozen_matrix{frozen_matrix::nf4_codes{9}, {2, 5}}), shape_error);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("NaN among the scales of a checkpoint is refused with the name of the tensor") {
  checkpoint c;
  float const bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(c.at("w.nested_absmax").bytes.data(), &bad, sizeof(bad));
  CHECK(holds(c.refusal(), "w.nested_absmax"));
}

TEST_SUITE_END();

}  // namespace

}  // namespace nf4_checkpoint_test
