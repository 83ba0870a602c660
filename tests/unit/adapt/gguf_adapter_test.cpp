#include "lowrank/adapt/gguf_adapter.hpp"

#include <doctest/doctest.h>

#include <string>

#include "../io/temporary_folder.hpp"
#include "lowrank/io/gguf.hpp"
#include "support/gguf_file.hpp"
#include "support/matrices.hpp"

namespace gguf_adapter_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using lowrank_test::random_matrix;

constexpr gguf_llama heads{.heads = 4, .kv_heads = 2};

peft_module module_of(std::string name, extents shape, index_t rank, double alpha, std::uint64_t seed = 1) {
  return {.name = std::move(name),
          .a = random_matrix({rank, shape.cols}, seed),
          .b = random_matrix({shape.rows, rank}, seed + 1),
          .alpha = alpha};
}

TEST_SUITE_BEGIN("gguf_adapter");

TEST_CASE("a written GGUF file is the one that the format describes, byte for byte") {
  temporary_folder const folder;
  gguf_metadata keys;
  keys.add("a", std::uint32_t{7});
  keys.add("b", std::string{"text"});
  keys.add("c", gguf_array{std::vector<bool>{true, false}});
  keys.add("d", gguf_array{std::vector<std::string>{"x", "yz"}});
  keys.add("e", true);
  keys.add("f", -0.5F);
  gguf_writer out{folder / "f", {{"first", ggml_type::f32, {2, 3}}, {"second", ggml_type::f16, {5}}}, keys};
  std::string const first(24, 'p'), second(10, 'q');
  out.append("first", std::as_bytes(std::span{first}.first(10)));
  out.append("first", std::as_bytes(std::span{first}.subspan(10)));
  out.append("second", std::as_bytes(std::span{second}));
  CHECK(folder.entries() == 1);
  CHECK(!std::filesystem::exists(folder / "f"));
  out.commit();
  using lowrank_test::gguf_kind;
  using lowrank_test::raw;
  auto expected = lowrank_test::gguf_file{}
                      .u32("a", 7)
                      .text("b", "text")
                      .array("c", gguf_kind::boolean, 2, std::string("\1\0", 2))
                      .texts("d", {"x", "yz"})
                      .key("e", gguf_kind::boolean, raw(std::uint8_t{1}))
                      .f32("f", -0.5F)
                      .tensor("first", 0, {3, 2}, first)
                      .tensor("second", 1, {5}, second)
                      .bytes();
  expected.resize(expected.size() + 22);  // the padding behind the last tensor
  CHECK(content_of(folder / "f") == expected);
}

TEST_CASE("the writer of GGUF files refuses what makes none") {
  temporary_folder const folder;
  auto const path = folder / "f";
  write_content(path, "old");
  auto const writer = [&](std::vector<gguf_spec> specs) { gguf_writer{path, std::move(specs)}; };
  CHECK_THROWS_AS(writer({{"a", ggml_type::f32, {1}}, {"a", ggml_type::f32, {1}}}), argument_error);
  CHECK_THROWS_AS(writer({{std::string(64, 'a'), ggml_type::f32, {1}}}), argument_error);
  CHECK_THROWS_AS(writer({{"a", ggml_type::q8_0, {2, 33}}}), shape_error);
  CHECK_THROWS_AS(writer({{"a", ggml_type::f32, {1, 1, 1, 1, 1}}}), shape_error);
  CHECK_THROWS_AS(writer({{"a", ggml_type::f32, {-1}}}), shape_error);
  {
    gguf_writer out{path, {{"a", ggml_type::f32, {2}}}};
    std::string const bytes(9, 'x');
    CHECK_THROWS_AS(out.append("b", std::as_bytes(std::span{bytes}.first(8))), state_error);
    CHECK_THROWS_AS(out.append("a", std::as_bytes(std::span{bytes})), shape_error);
    CHECK_THROWS_AS(out.commit(), state_error);
  }
  CHECK(content_of(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("scales are folded into B, and the file says so") {
  temporary_folder const folder;
  peft_adapter adapter;
  adapter.config.scaling = scaling::rank_root;
  adapter.config.base_model = "base";
  adapter.modules.push_back(module_of("model.layers.0.mlp.down_proj", {6, 10}, 4, 3));
  adapter.modules.push_back(module_of("model.layers.12.self_attn.o_proj", {6, 6}, 4, 5, 9));
  write_gguf_adapter(folder / "f", adapter, heads);
  gguf_reader const file{folder / "f"};
  CHECK(file.metadata().at<std::string>("general.type") == "adapter");
  CHECK(file.metadata().at<std::string>("general.architecture") == "llama");
  CHECK(file.metadata().at<std::string>("adapter.type") == "lora");
  CHECK(file.metadata().at<float>("adapter.lora.alpha") == 4);
  REQUIRE(file.tensors().size() == 4);
  std::array<std::string, 2> const names{"blk.0.ffn_down.weight", "blk.12.attn_output.weight"};
  for (std::size_t i = 0; i < 2; ++i) {
    auto const& m = adapter.modules[i];
    auto const a = file.read_matrix(names[i] + ".lora_a"), b = file.read_matrix(names[i] + ".lora_b");
    REQUIRE(a.shape() == m.a.shape());
    REQUIRE(b.shape() == m.b.shape());
    double const scale = m.alpha / 2;
    for (index_t e = 0; e < a.shape().size(); ++e) REQUIRE(a.data()[e] == m.a.data()[e]);
    for (index_t e = 0; e < b.shape().size(); ++e)
      REQUIRE(b.data()[e] == static_cast<float>(scale * static_cast<double>(m.b.data()[e])));
  }
  adapter.modules.push_back(module_of("lm_head", {20, 6}, 2, 5));
  write_gguf_adapter(folder / "f", adapter, heads);
  gguf_reader const mixed{folder / "f"};
  CHECK(mixed.metadata().at<float>("adapter.lora.alpha") == 0);
  CHECK(mixed.find("output.weight.lora_a") != nullptr);
}

TEST_CASE("rows of queries and keys are where GGUF has those of the weights") {
  temporary_folder const folder;
  peft_adapter adapter;
  adapter.modules.push_back(module_of("model.layers.3.self_attn.q_proj", {24, 5}, 2, 2));  // heads of 6
  adapter.modules.push_back(module_of("model.layers.3.self_attn.k_proj", {12, 5}, 2, 2));
  adapter.modules.push_back(module_of("model.layers.3.self_attn.v_proj", {12, 5}, 2, 2));
  write_gguf_adapter(folder / "f", adapter, heads);
  gguf_reader const file{folder / "f"};
  std::array<index_t, 6> const source{0, 3, 1, 4, 2, 5};  // of the rows of a head
  for (std::size_t i = 0; i < 3; ++i) {
    auto const& b = adapter.modules[i].b;
    auto const out = file.read_matrix(
        std::array{"blk.3.attn_q.weight.lora_b", "blk.3.attn_k.weight.lora_b", "blk.3.attn_v.weight.lora_b"}[i]);
    for (index_t row = 0; row < b.shape().rows; ++row) {
      index_t const from = i == 2 ? row : row / 6 * 6 + source[static_cast<std::size_t>(row % 6)];
      for (index_t j = 0; j < 2; ++j) REQUIRE(out(row, j) == b(from, j));
    }
  }
}

TEST_CASE("what llama.cpp would not understand is refused by name, and an older file stays") {
  temporary_folder const folder;
  write_content(folder / "f", "old");
  auto const said = [&]<class Error>(Error const*, peft_module m) {
    peft_adapter adapter;
    adapter.modules.push_back(module_of("model.layers.0.mlp.up_proj", {6, 10}, 2, 3));
    adapter.modules.push_back(std::move(m));
    return message_of<Error>([&] { write_gguf_adapter(folder / "f", adapter, heads); });
  };
  argument_error const* const argument = nullptr;
  shape_error const* const shape = nullptr;
  io_error const* const io = nullptr;
  auto const holds = [](std::string const& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  };
  for (auto const* const name : {"model.layers.x.mlp.up_proj", "model.layers.0.mlp.other", "model.layers.0", "h.0.mlp",
                                 "model.layers.-1.mlp.up_proj", "model.norm"})
    CHECK(holds(said(argument, module_of(name, {6, 10}, 2, 3)), name));
  auto embedding = module_of("model.embed_tokens", {6, 10}, 2, 3);
  embedding.layer = peft_layer::embedding;
  CHECK(holds(said(argument, std::move(embedding)), "model.embed_tokens"));
  CHECK(holds(said(shape, module_of("model.layers.0.self_attn.q_proj", {12, 10}, 2, 3)), "q_proj"));  // heads of 3
  auto broken = module_of("model.layers.1.mlp.up_proj", {6, 10}, 2, 3);
  broken.b(5, 1) = std::numeric_limits<float>::infinity();
  CHECK(holds(said(io, std::move(broken)), "blk.1.ffn_up.weight.lora_b"));
  CHECK_THROWS_AS(write_gguf_adapter(folder / "f", peft_adapter{}, heads), argument_error);
  CHECK_THROWS_AS(gguf_llama{}.check(), argument_error);
  CHECK(content_of(folder / "f") == "old");
  CHECK(folder.entries() == 1);
}

TEST_SUITE_END();

}  // namespace

}  // namespace gguf_adapter_test
