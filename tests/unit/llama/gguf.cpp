#include <doctest/doctest.h>

#include <limits>

#include "../../../examples/llama/load_gguf.hpp"
#include "../io/temporary_folder.hpp"
#include "fixture.hpp"
#include "support/gguf_file.hpp"

namespace gguf_test {

using namespace llama_test;
using llama::rotary_pairs;
using lowrank_test::gguf_file;
using lowrank_test::raw;

namespace {

gguf_file keys_of(llama::config const& c) {
  auto const number = [](index_t value) { return static_cast<std::uint32_t>(value); };
  return gguf_file{}
      .text("general.architecture", "llama")
      .u32("llama.embedding_length", number(c.width))
      .u32("llama.block_count", number(c.layers))
      .u32("llama.attention.head_count", number(c.heads))
      .u32("llama.attention.head_count_kv", number(c.kv_heads))
      .u32("llama.feed_forward_length", number(c.ffn))
      .u32("llama.context_length", number(c.sequence))
      .u32("llama.rope.dimension_count", number(c.head_width()))
      .f32("llama.rope.freq_base", 500)
      .f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
}
/// The weights of a model whose pairs are interleaved, with the tensors of the last first.
gguf_file file_of(llama::parameters<float> const& model) {
  auto file = keys_of(model.config());
  for (index_t i = model.count(); i-- > 0;) {
    auto const& p = model[i];
    auto const w = model.weight(i);
    std::vector<std::uint64_t> shape{static_cast<std::uint64_t>(w.cols)};
    if (!p.is_norm()) shape.push_back(static_cast<std::uint64_t>(w.rows));
    file.tensor(llama::gguf_name(p.what, p.layer), 0, shape, raw(std::vector<float>(w.data, w.data + w.size())));
  }
  return file;
}
llama::config interleaved(llama::output_head head) {
  auto c = tiny(head);
  c.rotary = rotary_pairs::interleaved;
  c.rope_base = 500;
  c.epsilon = static_cast<double>(1e-5F);
  return c;
}
lowrank::gguf_reader reader_of(temporary_folder const& folder, gguf_file const& file) {
  write_content(folder / "f", file.bytes());
  return lowrank::gguf_reader{folder / "f"};
}
double loss_of(llama::parameters<float> const& model) {
  lowrank::host_executor exec{{.threads = 1}};
  batch const text{model.config(), 2, 9};
  llama::activations<float> memory{model.config(), 2, 9, llama::pass::inference};
  return llama::mean_loss(exec, model, text.view(), memory);
}

}  // namespace

TEST_SUITE("llama gguf") {
  TEST_CASE("a model is loaded as it is, and turned for the other kind of pairs") {
    temporary_folder const folder;
    for (auto const head : {llama::output_head::own, llama::output_head::tied}) {
      auto const c = interleaved(head);
      auto const model = weights<float>(c);
      auto const file = reader_of(folder, file_of(model));
      auto const raw_config = llama::config_of(file, 9, rotary_pairs::interleaved);
      CHECK(raw_config == c);
      auto const same = llama::load(file, raw_config);
      CHECK(std::ranges::equal(same.flat(), model.flat()));

      auto const split_config = llama::config_of(file, 7);
      CHECK(split_config.rotary == rotary_pairs::half_split);
      CHECK(split_config.sequence == 7);
      auto const split = llama::load(file, llama::config_of(file, 9));
      // Row 2i + j of a head is row i + j half.
      auto const q = model.weight(llama::role::query, 1), k = model.weight(llama::role::key, 1);
      auto const turned_q = split.weight(llama::role::query, 1), turned_k = split.weight(llama::role::key, 1);
      for (index_t h = 0; h < 4; ++h)
        for (index_t i = 0; i < 3; ++i)
          for (index_t j = 0; j < 2; ++j)
            for (index_t col = 0; col < c.width; ++col) {
              REQUIRE(turned_q(6 * h + 3 * j + i, col) == q(6 * h + 2 * i + j, col));
              if (h < 2) REQUIRE(turned_k(6 * h + 3 * j + i, col) == k(6 * h + 2 * i + j, col));
            }
      for (auto const role : {llama::role::value, llama::role::attention_output, llama::role::gate, llama::role::down})
        CHECK(relative_distance(split.weight(role, 1), model.weight(role, 1)) == 0);

      double const loss = loss_of(model);
      CHECK(loss_of(split) == doctest::Approx(loss).epsilon(1e-6));
      // Rows of one kind under the rotation of the other: no crash, another loss.
      llama::parameters<float> wrong{split.config()};
      std::ranges::copy(model.flat(), wrong.flat().begin());
      CHECK(std::abs(loss_of(wrong) - loss) > 1e-3);
    }
  }

  TEST_CASE("rows moved there and back are where they were") {
    auto const c = tiny();
    auto model = weights<double>(c);
    auto const before = std::vector<double>(model.flat().begin(), model.flat().end());
    auto const w = model.weight(llama::index_of(c, llama::role::query, 0));
    llama::move_rotary_rows(w, c.head_width(), rotary_pairs::half_split, rotary_pairs::interleaved);
    CHECK_FALSE(std::ranges::equal(model.flat(), before));
    llama::move_rotary_rows(w, c.head_width(), rotary_pairs::interleaved, rotary_pairs::half_split);
    CHECK(std::ranges::equal(model.flat(), before));
  }

  TEST_CASE("files of other models are refused") {
    temporary_folder const folder;
    auto const c = interleaved(llama::output_head::tied);
    auto const model = weights<float>(c);
    auto const said = [&](gguf_file const& file, index_t sequence = 9) {
      auto const reader = reader_of(folder, file);
      return message_of<lowrank::error>([&] { (void)llama::load(reader, llama::config_of(reader, sequence)); });
    };
    auto const has = [](std::string const& text, std::string_view part) {
      CAPTURE(text);
      CHECK(text.find(part) != std::string::npos);
    };
    CHECK(said(file_of(model)).empty());
    has(said(file_of(model), 10), "must not exceed the model's context of 9 tokens, got 10");
    has(said(file_of(model), 0), "sequence must be in");
    has(said(gguf_file{}), "there is no key \"general.architecture\"");
    has(said(gguf_file{}.text("general.architecture", "mamba")), "must be llama, got \"mamba\"");
    has(said(keys_of(c)), "there is no tensor \"token_embd.weight\"");
    has(said(file_of(model).text("llama.rope.scaling.type", "yarn")), "key llama.rope.scaling.type is not supported");
    has(said(file_of(model).u32("llama.attention.key_length", 8)),
        "llama.attention.key_length must be the width of a head, 6, got 8");
    has(said(file_of(model).tensor("blk.0.attn_q.bias", 0, {24}, std::string(96, '\0'))),
        "tensor \"blk.0.attn_q.bias\" is no part of the model");
    has(said(file_of(model).tensor("output.weight", 0, {24, 5}, std::string(480, '\0'))), "must be 11x24, got 5x24");
    auto deep = c;
    deep.layers = 3;
    has(said(keys_of(deep).tensor("token_embd.weight", 0, {24, 11}, std::string(1056, '\0'))),
        "it says it has 3 layers, which its 1 tensors cannot be");
    deep.layers = 2'000'000'000;
    has(said(keys_of(deep).tensor("token_embd.weight", 0, {24, 11}, std::string(1056, '\0'))),
        "it says it has 2000000000 layers");
    auto narrow = c;
    narrow.ffn = 12;
    auto other = keys_of(narrow);
    for (index_t i = 0; i < model.count(); ++i) {
      auto const shape = model[i].shape;
      auto const extent = [](index_t x) { return static_cast<std::uint64_t>(x); };
      other.tensor(llama::gguf_name(model[i].what, model[i].layer), 0, {extent(shape.cols), extent(shape.rows)},
                   std::string(static_cast<std::size_t>(4 * shape.size()), '\0'));
    }
    has(said(other), "tensor blk.0.ffn_gate.weight must be 12x24, got 10x24");
    auto damaged = weights<float>(c);
    damaged.weight(3)(1, 2) = std::numeric_limits<float>::quiet_NaN();
    has(said(file_of(damaged)), "tensor \"blk.0.attn_v.weight\" must be finite, got nan in row 1, column 2");
  }
}

}  // namespace gguf_test
