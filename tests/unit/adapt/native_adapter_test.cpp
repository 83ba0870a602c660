#include "lowrank/adapt/native_adapter.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <string>

#include "../io/temporary_folder.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace native_adapter_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using lowrank_test::random_matrix;
using lowrank_test::same_bits;

bool holds(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// Trained, as far as a file is concerned: every number is another one than at first.
template <class A>
void disturb(A& adapter) {
  float number = 0.01F;
  for (auto const& t : adapter.tensors())
    for (index_t i = 0; i < t.values.rows; ++i)
      for (index_t j = 0; j < t.values.cols; ++j) t.values(i, j) += number *= -1.01F;
}
template <class A>
std::vector<float> change_of(host_executor& exec, A const& adapter) {
  matrix<float> w{adapter.shape()};
  adapter.add_to(exec, 1.0F, w.view());
  return {w.data(), w.data() + w.shape().size()};
}

struct saved_file {
  temporary_folder folder;
  host_executor exec{{.threads = 1}};
  matrix<float> w{random_matrix({20, 14}, 3)};
  rng_key key{.seed = std::uint64_t{1} << 63 | 5, .step = 4000000000U, .tensor = 7};

  template <class A>
  native_adapter through_file(A const& adapter) {
    native_adapter out{.base_model = "base"};
    out.modules.push_back(to_native_module("layers.0.q_proj", adapter, key));
    out.modules.front().base = base_fingerprint::of(w.view());
    write_native(folder.path(), out);
    return read_native(folder.path());
  }
  template <class S>
  void same_again(S const& settings, auto const&... gradient) {
    CAPTURE(settings_text(settings));
    auto adapter = settings.template make<float>(exec, w.view(), key, gradient...);
    disturb(adapter);
    auto const read = through_file(adapter);
    auto const again = from_native_module<S>(exec, read.modules.at(0), w.view());
    CHECK(settings_text(again.settings()) == settings_text(settings));
    CHECK(change_of(exec, again) == change_of(exec, adapter));
  }
};

TEST_SUITE_BEGIN("native_adapter");

TEST_CASE("every method comes back from a file with all bits") {
  saved_file f;
  f.same_again(lora{.rank = 3, .alpha = 7, .scale = scaling::rank_root, .dropout = 0.1F, .rate_ratio = 16});
  f.same_again(mora{.rank = 2, .type = mora_type::grouped});
  f.same_again(nola{.rank = 3, .right_count = 5, .left_count = 6, .alpha = 0.3});
  f.same_again(nola{.rank = 3, .right_count = 5, .left_count = 6, .variant = nola_variant::vision});
  f.same_again(lora_xs{.rank = 4, .deviation = 0.1F, .search = {.oversampling = 3, .power_iterations = 2}});
  f.same_again(deep_lora{.rank = 4, .depth = 3, .init_scale = 0.1});
  auto const gradient = random_matrix({20, 14}, 9);
  f.same_again(deep_lora{.rank = 4, .depth = 4, .gamma = 0, .form = deep_lora_form::compressed}, gradient.view());
}

TEST_CASE("several methods share a file, whose settings say everything") {
  saved_file f;
  native_adapter out;
  auto const mora_adapter = mora{.rank = 1}.make<float>(f.exec, f.w.view(), f.key);
  auto const nola_adapter = nola{.rank = 2, .right_count = 3, .left_count = 4}.make<float>(f.exec, f.w.view(), f.key);
  out.modules.push_back(to_native_module("a.b", mora_adapter, f.key));
  out.modules.push_back(to_native_module("a", nola_adapter, f.key));
  write_native(f.folder.path(), out);
  auto const read = read_native(f.folder.path());
  REQUIRE(read.modules.size() == 2);
  CHECK(read.modules[0].name == "a");
  CHECK(read.modules[0].method == "nola");
  CHECK(read.modules[0].tensors.size() == 2);
  CHECK(read.modules[0].key == f.key);
  CHECK(read.modules[0].shape == extents{20, 14});
  CHECK(read.modules[1].settings == "rank=1, type=6");
  CHECK(read.base_model.empty());
  // PEFT and our reader of its directories must not take it for a LoRA.
  CHECK(holds(message_of<io_error>([&] { static_cast<void>(read_peft(f.folder.path())); }), "LOWRANK"));
}

TEST_CASE("settings are refused that no method has, or that do not fit their types") {
  CHECK(settings_from<mora>("type=2, rank=5").rank == 5);
  CHECK(settings_from<nola>("alpha=0.25").alpha == 0.25);
  CHECK_THROWS_AS(static_cast<void>(settings_from<mora>("rank=5, alpha=1")), argument_error);
  CHECK_THROWS_AS(static_cast<void>(settings_from<mora>("type=258")), argument_error);
  CHECK_THROWS_AS(static_cast<void>(settings_from<mora>("rank=x")), argument_error);
}

TEST_CASE("an adapter is refused where it does not belong") {
  saved_file f;
  auto const made = lora_xs{.rank = 4}.make<float>(f.exec, f.w.view(), f.key);
  auto read = f.through_file(made);
  auto const said = [&] {
    return message_of<error>(
        [&] { static_cast<void>(from_native_module<lora_xs>(f.exec, read.modules[0], f.w.view())); });
  };
  CHECK(said() == "");
  CHECK_THROWS_AS(static_cast<void>(from_native_module<mora>(f.exec, read.modules[0], f.w.view())), argument_error);
  auto other = random_matrix({20, 14}, 4), wide = random_matrix({20, 15}, 4);
  CHECK_THROWS_AS(static_cast<void>(from_native_module<lora_xs>(f.exec, read.modules[0], other.view())), state_error);
  CHECK_THROWS_AS(static_cast<void>(from_native_module<lora_xs>(f.exec, read.modules[0], wide.view())), shape_error);
  auto const with_base = [&](adapter_base const& base) {
    return message_of<error>([&] { static_cast<void>(read_native(f.folder.path(), base)); });
  };
  std::string const name = "layers.0.q_proj";
  CHECK(with_base({{{name, {{20, 14}, base_fingerprint::of(f.w.view())}}}, "base"}) == "");
  CHECK(holds(with_base({{{name, {{20, 14}, base_fingerprint::of(other.view())}}}, {}}), name + ".lora_xs_R"));
  CHECK(holds(with_base({{{name, {{20, 15}}}}, {}}), name));
  CHECK(holds(with_base({{{"x", {{20, 14}}}}, {}}), name));
  CHECK(holds(with_base({{{name, {{20, 14}}}}, "another"}), "another"));
  auto& tensors = read.modules[0].tensors;
  tensors[0].name = "lora_xs_Q";
  CHECK(holds(said(), "lora_xs_Q"));
  tensors.clear();
  CHECK(holds(said(), "lacks the tensor lora_xs_R"));
  tensors.push_back({"lora_xs_R", matrix<float>{4, 5}});
  CHECK(holds(said(), "lora_xs_R must be 4x4"));
}

TEST_CASE("damaged files are refused") {
  saved_file f;
  auto const made = mora{.rank = 1, .type = mora_type::shared}.make<float>(f.exec, f.w.view(), f.key);
  native_adapter good;
  good.modules.push_back(to_native_module("a", made, f.key));
  write_native(f.folder.path(), good);
  std::string const key = "lowrank.module.a";
  auto const text = safetensors_reader{f.folder / peft_tensor_file}.metadata().at(key);
  auto const said = [&](file_metadata const& metadata, std::string const& tensor = "base_model.model.a.mora_M") {
    std::array<float, 4> const values{};
    tensor_source const source{{tensor, dtype::f32, {2, 2}}, std::as_bytes(std::span{values})};
    write_safetensors(f.folder / peft_tensor_file, std::span{&source, 1}, metadata);
    return message_of<io_error>([&] { static_cast<void>(read_native(f.folder.path())); });
  };
  CHECK(said({{key, text}}) == "");
  CHECK(holds(said({}), "base_model.model.a.mora_M"));
  CHECK(holds(said({{key, text}}, "base_model.model.b.mora_M"), "base_model.model.b.mora_M"));
  CHECK(holds(said({{key, text}}, "mora_M"), "mora_M"));
  CHECK(holds(said({{key, "method"}}), "\"a\""));
  CHECK(holds(said({{key, "method=mora"}}), "\"a\""));
  CHECK(holds(said({{key, "method=mora, rows=2, cols=2, key.tensor=16777216"}}), "key.tensor"));
  CHECK(holds(said({{key, text}, {"lowrank.base.a", "1,2"}}), "fingerprint"));
  write_content(f.folder / peft_config_file, R"({"peft_type": "LOWRANK", "version": 2})");
  CHECK(holds(said({{key, text}}), "version"));
  write_content(f.folder / peft_config_file, R"({"peft_type": "LORA", "r": 2, "lora_alpha": 2})");
  CHECK(holds(said({{key, text}}), "peft_type"));
}

TEST_CASE("what cannot be read again is not written") {
  saved_file f;
  auto const made = mora{.rank = 1}.make<float>(f.exec, f.w.view(), f.key);
  native_adapter out;
  CHECK_THROWS_AS(write_native(f.folder.path(), out), argument_error);
  out.modules.push_back(to_native_module("a", made, f.key));
  out.modules.push_back(to_native_module("a", made, f.key));
  CHECK_THROWS_AS(write_native(f.folder.path(), out), argument_error);
  out.modules[1].name = "b";
  out.modules[1].tensors[0].name = "x.y";
  CHECK_THROWS_AS(write_native(f.folder.path(), out), argument_error);
  CHECK(f.folder.entries() == 0);
}

TEST_CASE("NOLA adapters of a 70B model are a file of 573 440 numbers") {
  saved_file f;
  index_t const d = 8192, heads = 1024, wide = 28672;
  std::array<std::pair<char const*, extents>, 7> const layer{{{"q_proj", {d, d}},
                                                              {"k_proj", {heads, d}},
                                                              {"v_proj", {heads, d}},
                                                              {"o_proj", {d, d}},
                                                              {"gate_proj", {wide, d}},
                                                              {"up_proj", {wide, d}},
                                                              {"down_proj", {d, wide}}}};
  nola const settings{.rank = 16, .right_count = 512, .left_count = 512};
  native_adapter out;
  for (int l = 0; l < 80; ++l)
    for (auto const& [name, shape] : layer) {
      rng_key const key{.seed = 1, .tensor = static_cast<std::uint32_t>(out.modules.size())};
      nola_adapter<float> one{settings, shape, key};
      disturb(one);
      out.modules.push_back(to_native_module("layers." + std::to_string(l) + "." + name, one, key));
    }
  write_native(f.folder.path(), out);
  std::size_t const numbers = 4 * 573440, file = std::filesystem::file_size(f.folder / peft_tensor_file);
  CHECK(file >= numbers);
  CHECK(file < numbers + 560 * 512);  // names, settings, keys
  auto const read = read_native(f.folder.path());
  REQUIRE(read.modules.size() == 560);
  index_t count = 0, wrong = 0;
  for (auto const& module : read.modules) {
    auto const written = std::ranges::find(out.modules, module.name, &native_module::name);
    REQUIRE(written != out.modules.end());
    CHECK(module.shape == written->shape);
    CHECK(module.key == written->key);
    REQUIRE(module.tensors.size() == 2);
    for (auto const& tensor : module.tensors) {
      auto const same = std::ranges::find(written->tensors, tensor.name, &native_tensor::name);
      REQUIRE(same != written->tensors.end());
      count += tensor.values.shape().size();
      wrong += same_bits(tensor.values, same->values) ? 0 : 1;
    }
  }
  CHECK(count == 573440);
  CHECK(wrong == 0);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("NaN in our own adapters is refused with the name of the tensor") {
  saved_file f;
  auto const made = mora{.rank = 1}.make<float>(f.exec, f.w.view(), f.key);
  native_adapter out;
  out.modules.push_back(to_native_module("a", made, f.key));
  auto& values = out.modules[0].tensors[0].values;
  values(1, 0) = std::numeric_limits<float>::quiet_NaN();
  auto const said = message_of<io_error>([&] { write_native(f.folder.path(), out); });
  CHECK(holds(said, "base_model.model.a." + out.modules[0].tensors[0].name));
  CHECK(f.folder.entries() == 0);
}

TEST_SUITE_END();

}  // namespace

}  // namespace native_adapter_test
