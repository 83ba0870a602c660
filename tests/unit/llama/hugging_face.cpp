#include "../../../examples/llama/hugging_face.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "../../../examples/llama/save_hugging_face.hpp"
#include "../io/temporary_folder.hpp"
#include "fixture.hpp"

namespace hugging_face_test {

using namespace llama_test;
using llama::rotary_pairs;

namespace {

llama::parameters<float> loaded(std::filesystem::path const& folder, index_t sequence,
                                rotary_pairs rotary = rotary_pairs::half_split) {
  llama::hugging_face_folder const files{folder};
  return llama::load(files, llama::config_of(files, sequence, rotary));
}
nlohmann::json settings_of(temporary_folder const& folder) {
  return nlohmann::json::parse(content_of(folder / "config.json"));
}
double loss_of(llama::parameters<float> const& model) {
  lowrank::host_executor exec{{.threads = 1}};
  batch const text{model.config(), 2, 9};
  llama::activations<float> memory{model.config(), 2, 9, llama::pass::inference, model.plan()};
  return llama::mean_loss(exec, model, text.view(), memory);
}

}  // namespace

TEST_SUITE("llama hugging face") {
  TEST_CASE("what is written is read back bit for bit") {
    temporary_folder const folder;
    for (auto const head : {llama::output_head::own, llama::output_head::tied})
      for (auto const pairs : {rotary_pairs::half_split, rotary_pairs::interleaved}) {
        auto c = tiny(head);
        c.rotary = pairs;
        c.rope_base = 1e5;
        auto const model = weights<float>(c);
        llama::save(folder / "m", model, {.context = 100, .first_token = 1});
        auto const same = loaded(folder / "m", c.sequence, pairs);
        CHECK(same.config() == c);
        CHECK(std::ranges::equal(same.flat(), model.flat()));
        // The files hold half-split rows, whatever the model had.
        auto const split = loaded(folder / "m", c.sequence);
        CHECK(std::ranges::equal(split.flat(), model.flat()) == (pairs == rotary_pairs::half_split));
        CHECK(loss_of(split) == doctest::Approx(loss_of(model)).epsilon(1e-6));
        auto const said = nlohmann::json::parse(content_of(folder / "m" / "config.json"));
        CHECK(said["max_position_embeddings"] == 100);
        CHECK(said["bos_token_id"] == 1);
        CHECK_FALSE(said.contains("eos_token_id"));
        CHECK(said["attention_bias"] == false);
        lowrank::safetensors_reader const file{folder / "m" / "model.safetensors"};
        CHECK(file.metadata().at("format") == "pt");
        CHECK((file.find("lm_head.weight") != nullptr) == (head == llama::output_head::own));
        CHECK(file.at("model.norm.weight").shape == std::vector<index_t>{c.width});
      }
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("bf16 is the nearest, and biases stay, zeros beside them") {
    temporary_folder const folder;
    auto const c = tiny();
    llama::linear_plan plan;
    plan.set(llama::role::query, 1, {.bias = llama::bias_term::added});
    plan.set(llama::role::down, 0, {.bias = llama::bias_term::added});
    auto const model = weights<float>(c, 0.25, plan);
    llama::save(folder.path(), model);
    auto const same = loaded(folder.path(), 9);
    CHECK(settings_of(folder)["attention_bias"] == true);
    CHECK(settings_of(folder)["mlp_bias"] == true);
    CHECK(loss_of(same) == doctest::Approx(loss_of(model)).epsilon(1e-6));
    auto const bias = [](llama::parameters<float> const& of, llama::role what, index_t l) {
      return of.weight(of.bias_of(what, l));
    };
    CHECK(relative_distance(bias(same, llama::role::query, 1), bias(model, llama::role::query, 1)) == 0);
    REQUIRE(same.bias_of(llama::role::key, 0) >= 0);
    CHECK(bias(same, llama::role::key, 0)(0, 3) == 0);
    CHECK(loss_of(loaded(folder.path(), 9, rotary_pairs::interleaved)) ==
          doctest::Approx(loss_of(model)).epsilon(1e-6));

    llama::save(folder.path(), weights<float>(c), {.type = lowrank::dtype::bf16});
    auto const narrow = loaded(folder.path(), 9), exact = weights<float>(c);
    for (std::size_t i = 0; i < exact.flat().size(); ++i)
      REQUIRE(narrow.flat()[i] == lowrank::to_bf16(exact.flat()[i]).value());
    CHECK(settings_of(folder)["torch_dtype"] == "bfloat16");
  }

  TEST_CASE("tensors in several files are found by the index") {
    temporary_folder const folder;
    auto const c = tiny();
    auto const model = weights<float>(c);
    llama::save(folder.path(), model);
    nlohmann::json index;
    std::array<std::vector<lowrank::tensor_source>, 2> parts;
    for (index_t i = 0; i < model.count(); ++i) {
      auto const w = model.weight(i);
      auto const part = static_cast<std::size_t>(i % 2);
      parts[part].push_back({{model[i].name, lowrank::dtype::f32, {w.rows, w.cols}},
                             std::as_bytes(std::span{w.data, static_cast<std::size_t>(w.size())})});
      index["weight_map"][model[i].name] = part == 0 ? "a.safetensors" : "b.safetensors";
    }
    lowrank::write_safetensors(folder / "a.safetensors", parts[0]);
    lowrank::write_safetensors(folder / "b.safetensors", parts[1]);
    std::filesystem::remove(folder / "model.safetensors");
    write_content(folder / "model.safetensors.index.json", index.dump());
    CHECK(std::ranges::equal(loaded(folder.path(), 9).flat(), model.flat()));

    auto const refused = [&](std::string const& content) {
      write_content(folder / "model.safetensors.index.json", content);
      return message_of<lowrank::io_error>([&] { loaded(folder.path(), 9); });
    };
    auto const with = [&](std::string const& file) {
      auto changed = index;
      changed["weight_map"]["model.norm.weight"] = file;
      return changed.dump();
    };
    CHECK(refused(with("../a.safetensors")).find("must name files beside it") != std::string::npos);
    CHECK(refused(with("/dev/zero")).find("must name files beside it") != std::string::npos);
    CHECK(refused(with("none.safetensors")).find("cannot open") != std::string::npos);
    CHECK(refused(with("b.safetensors") == index.dump() ? with("a.safetensors") : with("b.safetensors"))
              .find("there is no tensor \"model.norm.weight\"") != std::string::npos);
    CHECK(refused(R"({"weight_map":{"a":1}})").find("must name a file for \"a\"") != std::string::npos);
    CHECK(refused(R"({"weight_map":[]})").find("must have a weight_map") != std::string::npos);
    CHECK(refused("[]").find("must be a JSON object") != std::string::npos);
    CHECK(refused(std::string(100'000, '[')).find("must be a JSON object") != std::string::npos);
  }

  TEST_CASE("other models and damaged ones are refused") {
    temporary_folder const folder;
    auto const c = tiny();
    llama::save(folder.path(), weights<float>(c));
    auto const good = settings_of(folder);
    auto const said = [&](char const* key, nlohmann::json const& value) {
      auto changed = good;
      changed[key] = value;
      write_content(folder / "config.json", changed.dump());
      return message_of<lowrank::error>([&] { loaded(folder.path(), 9); });
    };
    auto const has = [](std::string const& text, std::string_view part) {
      CAPTURE(text);
      CHECK(text.find(part) != std::string::npos);
    };
    CHECK(said("rope_scaling", nullptr).empty());
    CHECK(said("rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}}).empty());
    CHECK(said("num_key_value_heads", 2).empty());
    has(said("model_type", "gpt2"), "model_type must be llama");
    has(said("model_type", 3), "model_type must be llama");
    has(said("hidden_act", "gelu"), "hidden_act must be silu");
    has(said("rope_scaling", {{"factor", 2}}), "rope_scaling must be absent");
    has(said("rope_parameters", {{"rope_type", "yarn"}}), "rope_type must be default");
    has(said("quantization_config", {{"bits", 4}}), "quantization_config must be absent");
    has(said("hidden_size", "24"), "hidden_size must be an integer");
    has(said("hidden_size", 25), "width must be a multiple");
    has(said("hidden_size", -24), "width must be in");
    has(said("hidden_size", std::uint64_t{1} << 63), "width must be in");
    has(said("rms_norm_eps", "small"), "rms_norm_eps must be a number");
    has(said("num_hidden_layers", 2'000'000'000), "it says it has 2000000000 layers");
    has(said("num_hidden_layers", 1), "\"model.layers.1.input_layernorm.weight\" is no part of the model");
    has(said("head_dim", 8), "head_dim must be 6, got 8");
    has(said("intermediate_size", 12), "must be 12x24, got 10x24");
    has(said("max_position_embeddings", 8), "must not exceed the model's context of 8 tokens, got 9");
    write_content(folder / "config.json", "{");
    has(message_of<lowrank::io_error>([&] { loaded(folder.path(), 9); }), "must be a JSON object");
    std::filesystem::remove(folder / "config.json");
    has(message_of<lowrank::io_error>([&] { loaded(folder.path(), 9); }), "cannot be read");

    auto damaged = weights<float>(c);
    damaged.weight(4)(0, 1) = std::numeric_limits<float>::infinity();
    llama::save(folder.path(), damaged);
    has(message_of<lowrank::io_error>([&] { loaded(folder.path(), 9); }), "o_proj.weight must be finite");
  }

  TEST_CASE("nothing is written of what cannot be written") {
    temporary_folder const folder;
    auto const c = wide();
    CHECK_THROWS_AS(llama::save(folder / "m", weights<float>(c, 0.25, mixed_plan(c))), lowrank::argument_error);
    CHECK_THROWS_AS(llama::save(folder / "m", weights<float>(c), {.type = lowrank::dtype::f16}),
                    lowrank::argument_error);
    CHECK(folder.entries() == 0);
  }
}

}  // namespace hugging_face_test
