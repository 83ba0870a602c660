#include "lowrank/adapt/peft.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "../io/temporary_folder.hpp"
#include "lowrank/adapt/olora.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace peft_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using lowrank_test::copy_of;
using lowrank_test::random_matrix;

peft_module module_of(std::string name, extents shape, index_t rank, double alpha, std::uint64_t seed = 1) {
  return {.name = std::move(name),
          .a = random_matrix({rank, shape.cols}, seed),
          .b = random_matrix({shape.rows, rank}, seed + 1),
          .alpha = alpha};
}
bool equal(matrix<float> const& a, matrix<float> const& b) {
  return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.shape().size(), b.data());
}
bool holds(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// A directory as PEFT 0.21.2 writes it, of which tests spoil one thing.
struct directory {
  temporary_folder folder;
  json_value config = json_value::parse(R"({
    "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
    "base_model_name_or_path": "base", "bias": "none", "corda_config": null, "ensure_weight_tying": false,
    "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
    "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
    "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.05,
    "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
    "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 2,
    "rank_pattern": {}, "revision": null, "target_modules": ["v_proj", "q_proj"], "target_parameters": null,
    "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
    "use_qalora": false, "use_rslora": false, "velora_config": null})");
  std::vector<tensor_spec> specs{
      {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", dtype::f32, {2, 5}},
      {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", dtype::f32, {4, 2}}};
  std::function<float(std::size_t)> number = [](std::size_t i) { return 0.25F * static_cast<float>(i) - 1; };

  void write() const {
    write_content(folder / peft_config_file, config.dump(2));
    std::vector<std::vector<float>> values;
    std::vector<tensor_source> sources;
    for (auto const& spec : specs) {
      index_t size = 1;
      for (index_t const extent : spec.shape) size *= extent;
      auto& x = values.emplace_back(static_cast<std::size_t>(size));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = number(i);
      sources.push_back({spec, std::as_bytes(std::span{x})});
    }
    write_safetensors(folder / peft_tensor_file, sources, {{"format", "pt"}});
  }
  [[nodiscard]] peft_adapter read() const {
    write();
    return read_peft(folder.path());
  }
  /// What a refusal of it says, or "" where it is read.
  [[nodiscard]] std::string refusal() const {
    return message_of<error>([this] { static_cast<void>(read()); });
  }
  [[nodiscard]] std::string refusal(std::string_view field, std::string_view value) const {
    directory copy;
    copy.config[std::string{field}] = json_value::parse(value);
    return copy.refusal();
  }
};

TEST_SUITE_BEGIN("peft");

TEST_CASE("a directory of PEFT is read as it is meant") {
  directory d;
  auto adapter = d.read();
  CHECK(adapter.config.base_model == "base");
  CHECK(adapter.config.task_type == "CAUSAL_LM");
  CHECK(adapter.config.dropout == 0.05);
  REQUIRE(adapter.modules.size() == 1);
  auto const& m = adapter.modules.front();
  CHECK(m.name == "model.layers.0.self_attn.q_proj");
  CHECK(m.shape() == extents{4, 5});
  CHECK(m.rank() == 2);
  CHECK(adapter.scale(m) == 8);
  CHECK(m.a(1, 2) == 0.75F);
  CHECK(m.b(3, 1) == 0.75F);
  d.config["use_rslora"] = true;
  adapter = d.read();
  CHECK(adapter.scale(adapter.modules.front()) == 16 / std::sqrt(2.0));
}

TEST_CASE("patterns: the first in the file's order that fits a whole name, or what follows a dot, counts") {
  directory d;
  d.config["alpha_pattern"] =
      json_value::parse(R"({"proj": 1, "layers\\.[1-9]\\..*": 2, "self_attn.q_proj": 3, "q_proj": 4})");
  auto adapter = d.read();
  CHECK(adapter.modules.front().alpha == 3);
  d.config["alpha_pattern"] = json_value::parse(R"({"q_proj": 4, "self_attn.q_proj": 3})");
  adapter = d.read();
  CHECK(adapter.modules.front().alpha == 4);
  d.config["alpha_pattern"] = json_value::parse(R"({"^model.layers.0.self_attn.q_proj": 5, "q_proj": 4})");
  adapter = d.read();
  CHECK(adapter.modules.front().alpha == 5);
  d.config["alpha_pattern"] = json_value::parse(R"({"^layers.0.self_attn.q_proj": 5, "v_proj|q_proj": 6})");
  adapter = d.read();
  CHECK(adapter.modules.front().alpha == 6);
  d.config["r"] = 64;
  d.config["rank_pattern"] = json_value::parse(R"({".*layers.0.*": 2})");
  adapter = d.read();
  CHECK(adapter.scale(adapter.modules.front()) == 3);
  d.config["target_modules"] = R"(model\.layers\.\d+\.self_attn\.(q|v)_proj)";
  CHECK(d.refusal() == "");
  d.config["target_modules"] = R"(layers\.\d+\.self_attn\.(q|v)_proj)";  // a whole name is asked for
  CHECK(holds(d.refusal(), "target_modules"));
}

TEST_CASE("a pattern that is written to take for ever does not") {
  directory d;
  d.config["alpha_pattern"] = json_value::parse(R"({"(.*.*)*(.*.*)*(.*.*)*z": 1})");
  d.specs[0].name = "base_model.model." + std::string(300, 'a') + ".q_proj.lora_A.weight";
  d.specs[1].name = "base_model.model." + std::string(300, 'a') + ".q_proj.lora_B.weight";
  CHECK(d.refusal() == "");
}

TEST_CASE("settings that mean something else are refused by name") {
  directory const d;
  CHECK(d.refusal() == "");
  CHECK(holds(d.refusal("peft_type", R"("VERA")"), "VERA"));
  CHECK(holds(d.refusal("peft_type", "null"), "peft_type"));
  CHECK(holds(d.refusal("use_dora", "true"), "DoRA"));
  CHECK(holds(d.refusal("bias", R"("all")"), "bias"));
  for (auto const* const init : {"pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga"})
    CHECK(holds(d.refusal("init_lora_weights", '"' + std::string{init} + '"'), "twice the rank"));
  CHECK(holds(d.refusal("init_lora_weights", R"("new_one")"), "new_one"));
  for (auto const* const init : {"false", "null", R"("gaussian")", R"("orthogonal")", R"("eva")"})
    CHECK(d.refusal("init_lora_weights", init) == "");
  for (auto const* const field : {"modules_to_save", "layer_replication", "target_parameters", "some_new_field"})
    CHECK(holds(d.refusal(field, R"(["x"])"), field));
  for (auto const* const field : {"lora_bias", "use_qalora", "some_new_switch"})
    CHECK(holds(d.refusal(field, "true"), field));
  CHECK(d.refusal("some_new_switch", "false") == "");
  CHECK(d.refusal("some_new_list", "[]") == "");
  for (auto const* const value : {"null", "0", "-1", "1.5", R"("8")", "1e300"})
    CHECK(holds(d.refusal("r", value), d.refusal("r", value).find("rank") != std::string::npos ? "rank" : "\"r\""));
  for (auto const* const value : {"null", "0", "-2", R"("8")", "[]"})
    CHECK(holds(d.refusal("lora_alpha", value), "alpha"));
  CHECK(holds(d.refusal("lora_dropout", "1"), "dropout"));
  CHECK(holds(d.refusal("rank_pattern", R"({"q_proj": 0})"), "rank_pattern"));
  CHECK(holds(d.refusal("rank_pattern", R"(["q_proj"])"), "rank_pattern"));
  CHECK(holds(d.refusal("alpha_pattern", R"({"q_(proj": 1})"), "q_(proj"));
  CHECK(holds(d.refusal("alpha_pattern", R"({"q_proj": "1"})"), "alpha_pattern"));
  for (auto const* const value : {"null", "[]", R"(["k_proj", "oj"])", R"("all-linear")", R"([1])", "3"})
    CHECK(holds(d.refusal("target_modules", value), "target_modules"));
}

TEST_CASE("JSON that readers disagree about is refused") {
  directory const d;
  d.write();
  auto const said = [&](std::string const& text) {
    write_content(d.folder / peft_config_file, text);
    return message_of<io_error>([&] { static_cast<void>(read_peft(d.folder.path())); });
  };
  CHECK(holds(said(R"({"r": 2, "r": 4})"), "two members \"r\""));
  CHECK(holds(said(R"({"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]})"), "peft_type"));
  CHECK(holds(said("{"), "byte"));
  CHECK(holds(said(""), "byte"));
  CHECK(holds(said(R"({"r": NaN})"), "byte"));
  CHECK(holds(said(std::string(R"({"r": 2})") + '\0'), "byte 8"));
  CHECK(holds(said("[1]"), "object"));
  CHECK(holds(said(std::string(100, '[') + std::string(100, ']')), "nested"));
  CHECK(holds(said(std::string(1 << 24, ' ') + "{}"), "exceed"));
  CHECK(holds(said("\"\xFF\""), "byte"));
  std::filesystem::remove(d.folder / peft_config_file);
  CHECK_THROWS_AS(static_cast<void>(read_peft(d.folder.path())), io_error);
}

TEST_CASE("tensors that are not the ones of plain LoRA are listed") {
  directory d;
  auto const stem = d.specs[0].name.substr(0, d.specs[0].name.find(".lora_A"));
  auto const with = [&](std::vector<tensor_spec> const& more) {
    directory copy;
    copy.specs.insert(copy.specs.end(), more.begin(), more.end());
    return copy.refusal();
  };
  auto const said =
      with({{stem + ".lora_magnitude_vector", dtype::f32, {4}}, {"other.lora_A.weight", dtype::f32, {2, 5}}});
  CHECK(holds(said, stem + ".lora_magnitude_vector"));
  CHECK(holds(said, "other.lora_A.weight"));
  CHECK(!holds(said, stem + ".lora_A.weight"));
  CHECK(holds(with({{"base_model.model..lora_A.weight", dtype::f32, {2, 5}}}), ": base_model.model..lora_A.weight"));
  CHECK(holds(with({{"base_model.model.lm_head.base_layer.weight", dtype::f32, {9, 2}}}), "save_embedding_layers"));
  CHECK(holds(with({{"base_model.model.v_proj.lora_A.weight", dtype::f32, {2, 5}}}),
              "\"base_model.model.v_proj.lora_B.weight\" is missing"));
  CHECK(holds(with({{"base_model.model.k_proj.lora_A.weight", dtype::f32, {2, 5}},
                    {"base_model.model.k_proj.lora_B.weight", dtype::f32, {5, 2}}}),
              "k_proj.lora_A.weight\" is for a module that target_modules does not name"));
  CHECK(
      holds(with({{stem + ".lora_embedding_A", dtype::f32, {2, 5}}, {stem + ".lora_embedding_B", dtype::f32, {4, 2}}}),
            "embedding"));
  d.specs[1].shape = {4, 3};
  CHECK(holds(d.refusal(), "lora_B.weight\" must be of rank 2, got 4x3"));
  d.specs[1].shape = {4, 2, 1};
  CHECK(holds(d.refusal(), "dimensions"));
  d.specs[1] = {d.specs[1].name, dtype::i32, {4, 2}};
  CHECK(holds(d.refusal(), "F32, F64, F16 or BF16"));
  d.specs.clear();
  CHECK(holds(d.refusal(), "holds no adapter"));
}

TEST_CASE("what is written is read again, patterns, embedding and fingerprint included") {
  temporary_folder const folder;
  auto const path = folder / "new" / std::string{"adapter"};
  auto const w = random_matrix({6, 10}, 77);
  peft_adapter adapter;
  adapter.config = {.base_model = "some/base",
                    .task_type = "CAUSAL_LM",
                    .rank = 99,
                    .dropout = 0.1,
                    .scaling = scaling::rank_root,
                    .fan_in_fan_out = true,
                    .rank_pattern = {{".*", 98}}};
  adapter.modules.push_back(module_of("layers.1.q_proj", {6, 10}, 3, 16));
  adapter.modules.push_back(module_of("layers.11.q_proj", {8, 10}, 2, 16));
  adapter.modules.push_back(module_of("layersx1.q_proj", {8, 10}, 3, 0.5));
  adapter.modules.push_back(module_of("embed_tokens", {7, 20}, 3, 4));
  adapter.modules.back().layer = peft_layer::embedding;
  adapter.modules[0].base = base_fingerprint::of(w.view());
  write_peft(path, adapter);
  CHECK(std::distance(std::filesystem::directory_iterator{path}, std::filesystem::directory_iterator{}) == 2);
  auto const again = read_peft(path);
  CHECK(again.config.base_model == "some/base");
  CHECK(again.config.task_type == "CAUSAL_LM");
  CHECK(again.config.dropout == 0.1);
  CHECK(again.config.fan_in_fan_out);
  CHECK(again.config.rank == 3);
  CHECK(again.config.target_modules.size() == 4);
  REQUIRE(again.modules.size() == 4);
  for (auto const& m : adapter.modules) {
    auto const found = std::ranges::find(again.modules, m.name, &peft_module::name);
    REQUIRE(found != again.modules.end());
    CHECK(equal(found->a, m.a));
    CHECK(equal(found->b, m.b));
    CHECK(found->alpha == m.alpha);
    CHECK(found->layer == m.layer);
    CHECK(again.scale(*found) == m.alpha / std::sqrt(static_cast<double>(m.rank())));
    CHECK(found->base.has_value() == m.base.has_value());
    if (m.base) CHECK(found->base->sums == m.base->sums);
  }
  CHECK(again.modules.front().shape() == extents{20, 7});  // of the embedding's own weight
  auto text = read_json(path / peft_config_file);
  CHECK(text["r"].is_number_integer());
  CHECK(text["lora_alpha"].dump() == "16");
  CHECK(text["init_lora_weights"] == true);
  text.erase("alpha_pattern");                                      // whose order counts
  CHECK(nlohmann::json::parse(text.dump()).dump() == text.dump());  // sorted by name
}

TEST_CASE("what is no LoRA is refused before anything is written, and old files stay") {
  temporary_folder const folder;
  peft_adapter adapter;
  adapter.modules.push_back(module_of("q_proj", {6, 10}, 3, 16));
  write_peft(folder.path(), adapter);
  auto const config = content_of(folder / peft_config_file), tensors = content_of(folder / peft_tensor_file);
  auto const refused = [&](auto&& spoil) {
    peft_adapter bad;
    bad.modules.push_back(module_of("q_proj", {6, 10}, 3, 32));
    bad.modules.push_back(module_of("v_proj", {6, 10}, 3, 32));
    spoil(bad);
    auto const said = message_of<error>([&] { write_peft(folder.path(), bad); });
    CHECK(content_of(folder / peft_config_file) == config);
    CHECK(content_of(folder / peft_tensor_file) == tensors);
    CHECK(folder.entries() == 2);
    return said;
  };
  CHECK(holds(refused([](peft_adapter& a) { a.modules.clear(); }), "module"));
  CHECK(holds(refused([](peft_adapter& a) { a.modules[1].name = "q_proj"; }), "q_proj"));
  CHECK(holds(refused([](peft_adapter& a) { a.modules[1].b = matrix<float>{6, 2}; }), "v_proj.lora_B"));
  CHECK(holds(refused([](peft_adapter& a) { a.modules[1].a = matrix<float>{0, 10}; }), "v_proj.lora_A"));
  CHECK(holds(refused([](peft_adapter& a) { a.modules[1].alpha = 0; }), "v_proj"));
  CHECK(holds(refused([](peft_adapter& a) { a.config.dropout = 1; }), "dropout"));
  CHECK(holds(refused([](peft_adapter& a) { a.config.target_modules = {"q_proj"}; }), "v_proj"));
  CHECK(holds(refused([](peft_adapter& a) { a.config.base_model = "\xFF"; }), "UTF-8"));
  adapter.config.target_pattern = "[qv]_proj";
  write_peft(folder.path(), adapter);
  CHECK(read_peft(folder.path()).config.target_pattern == "[qv]_proj");
  temporary_folder const blocked;
  write_content(blocked / peft_config_file, "old");
  std::filesystem::create_directory(blocked / peft_tensor_file);
  CHECK_THROWS_AS(write_peft(blocked.path(), adapter), io_error);
  CHECK(content_of(blocked / peft_config_file) == "old");
  CHECK(blocked.entries() == 2);
}

TEST_CASE("an adapter of another base is refused with the name of the tensor") {
  temporary_folder const folder;
  auto const w = random_matrix({6, 10}, 77), other = random_matrix({6, 10}, 78);
  peft_adapter adapter;
  adapter.config.base_model = "a";
  adapter.modules.push_back(module_of("q_proj", {6, 10}, 3, 16));
  adapter.modules.push_back(module_of("v_proj", {4, 10}, 3, 16));
  adapter.modules.front().base = base_fingerprint::of(w.view());
  write_peft(folder.path(), adapter);
  auto const said = [&](adapter_base const& base) {
    return message_of<error>([&] { static_cast<void>(read_peft(folder.path(), base)); });
  };
  auto const print = [](matrix<float> const& m) { return base_fingerprint::of(m.view()); };
  CHECK(said({{{"q_proj", {{6, 10}, print(w)}}, {"v_proj", {{4, 10}}}, {"more", {{4, 10}}}}, "a"}) == "");
  CHECK(holds(said({{{"q_proj", {{6, 10}}}, {"v_proj", {{4, 10}}}}, "b"}), "\"a\", not for \"b\""));
  CHECK(holds(said({{{"x", {{6, 10}}}}, {}}), "q_proj, v_proj"));
  CHECK(holds(said({{{"q_proj", {{6, 10}}}, {"v_proj", {{5, 10}}}}, {}}),
              "v_proj.lora_A.weight\" is for a matrix of 4x10"));
  CHECK(holds(said({{{"q_proj", {{6, 10}, print(other)}}, {"v_proj", {{4, 10}}}}, {}}), "q_proj.lora_A.weight"));
}

TEST_CASE("fingerprints tell matrices apart, and a matrix from none of its formats") {
  auto const w = random_matrix({64, 48}, 1), other = random_matrix({64, 48}, 2);
  auto const print = base_fingerprint::of(w.view());
  matrix<float> coarse{w.shape()}, longer{w.shape()};
  for (index_t e = 0; e < w.shape().size(); ++e) {
    coarse.data()[e] = std::round(w.data()[e] * 4) / 4;
    longer.data()[e] = 3 * w.data()[e];
  }
  CHECK(print.distance(base_fingerprint::of(coarse.view())) < 0.15F);
  CHECK(print.distance(base_fingerprint::of(longer.view())) < 1e-5F);
  CHECK(print.distance(base_fingerprint::of(other.view())) > 1);
  CHECK(base_fingerprint::from(print.text())->sums == print.sums);
  CHECK(base_fingerprint::of(matrix<float>{3, 3}.view()).sums == base_fingerprint{}.sums);
  for (auto const* const text : {"", "1", "1,2", "a,b"}) CHECK(!base_fingerprint::from(text).has_value());
  CHECK(!base_fingerprint::from(print.text() + ",1").has_value());
}

/// What x becomes: W xᵀ + ΔW xᵀ.
template <class A>
matrix<float> outputs(host_executor& exec, matrix<float> const& w, A const& adapter, matrix<float> const& x) {
  matrix<float> y{x.shape().rows, w.shape().rows};
  multiply(exec, 1.0F, x.view(), w.view().t(), 0.0F, y.view());
  std::vector<float> kept(static_cast<std::size_t>(adapter.kept_size(x.shape().rows)));
  exec.reserve(adapter.workspace_bytes(x.shape().rows));
  adapter.forward(exec, x.view(), std::span{kept}, y.view(), pass_info{});
  return y;
}

TEST_CASE("a LoRA goes to a file and comes back, and OLoRA goes as LoRA of twice the rank for the base as it was") {
  temporary_folder const folder;
  host_executor exec{{.threads = 1}};
  auto w = random_matrix({12, 9}, 5);
  auto const x = random_matrix({4, 9}, 6);
  rng_key const key{.seed = 3};
  auto made = make_adapter(exec, lora{.rank = 3, .alpha = 7, .scale = scaling::rank_root}, w.view(), key);
  copy(exec, random_matrix({12, 3}, 8).view(), made.tensors()[1].values);
  peft_adapter adapter;
  CHECK_THROWS_AS(static_cast<void>(to_peft_module(exec, "a", made, adapter.config)), argument_error);
  adapter.config.scaling = scaling::rank_root;
  adapter.modules.push_back(to_peft_module(exec, "a", made, adapter.config));
  write_peft(folder.path(), adapter);
  auto const read = read_peft(folder.path());
  auto const again = to_lora(exec, read.config, read.modules.front());
  CHECK(equal(outputs(exec, w, again, x), outputs(exec, w, made, x)));

  auto const original = copy_of(w.view());
  auto trained = make_adapter(exec, olora{.rank = 3, .alpha = 7}, w.view(), key);
  for (auto const& t : trained.tensors())
    for (index_t i = 0; i < t.values.rows; ++i) t.values(i, i % t.values.cols) += 0.5F;
  auto const exported = to_peft_module(exec, "a", trained);
  CHECK(exported.rank() == 6);
  auto const wanted = outputs(exec, w, trained, x), found = outputs(exec, original, to_lora(exec, {}, exported), x);
  CHECK(!equal(w, original));
  for (index_t e = 0; e < wanted.shape().size(); ++e)
    CHECK(static_cast<double>(found.data()[e]) == doctest::Approx(static_cast<double>(wanted.data()[e])).epsilon(1e-5));
}

TEST_CASE("merging adds s B A to the matrix of a linear layer, and s (B A) turned to that of an embedding") {
  host_executor exec{{.threads = 1}};
  for (auto const layer : {peft_layer::linear, peft_layer::embedding}) {
    peft_adapter adapter;
    adapter.config.scaling = scaling::rank_root;
    adapter.modules.push_back(module_of("a", {6, 11}, 4, 3));
    auto& m = adapter.modules.front();
    m.layer = layer;
    auto w = random_matrix(m.shape(), 9);
    auto const before = copy_of(w.view());
    add_to(exec, adapter, m, -2.0F, w.view());
    for (index_t i = 0; i < 6; ++i)
      for (index_t j = 0; j < 11; ++j) {
        double sum = 0;
        for (index_t k = 0; k < 4; ++k) sum += static_cast<double>(m.b(i, k)) * static_cast<double>(m.a(k, j));
        auto const [row, col] = layer == peft_layer::linear ? extents{i, j} : extents{j, i};
        double const expected = static_cast<double>(before(row, col)) - 2 * 1.5 * sum;
        CHECK(static_cast<double>(w(row, col)) == doctest::Approx(expected).epsilon(1e-5));
      }
    matrix<float> turned{m.shape().t()};
    CHECK_THROWS_AS(add_to(exec, adapter, m, 1.0F, turned.view()), shape_error);
    if (layer == peft_layer::embedding)
      CHECK_THROWS_AS(static_cast<void>(to_lora(exec, adapter.config, m)), argument_error);
  }
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("NaN and infinity in a file of PEFT are refused with the name of the tensor") {
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    directory d;
    d.number = [bad](std::size_t i) { return i == 7 ? bad : 1.0F; };
    CHECK(holds(d.refusal(), "q_proj.lora_A.weight\" must be finite"));
    temporary_folder const folder;
    peft_adapter adapter;
    adapter.modules.push_back(module_of("q_proj", {6, 10}, 3, 16));
    adapter.modules.front().b(2, 1) = bad;
    CHECK(holds(message_of<io_error>([&] { write_peft(folder.path(), adapter); }), "q_proj.lora_B.weight"));
    CHECK(folder.entries() == 0);
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace peft_test
