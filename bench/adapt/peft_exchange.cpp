// Adapters for a model in Hugging Face's format, written for PEFT and read from it; bench/compare/peft_logits.py holds both
// against PEFT.
//
//   peft_exchange make  --base model.safetensors --method M --adapter FOLDER --merged FILE   random adapters of ours
//   peft_exchange apply --base model.safetensors --adapter FOLDER --merged FILE              those of a directory
//
//   peft_exchange gguf  --adapter FOLDER --heads N --kv-heads N --merged FILE   a directory as llama.cpp's adapter, in FILE
//   peft_exchange nf4   --base model.safetensors --merged FILE   NF4 matrices of bitsandbytes: as we write them, and opened
//
// With make and apply FILE gets all tensors of the model, those with an adapter merged by our own arithmetic.
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "lowrank/adapt/deep_lora.hpp"
#include "lowrank/adapt/gguf_adapter.hpp"
#include "lowrank/adapt/lora_xs.hpp"
#include "lowrank/adapt/nf4_checkpoint.hpp"
#include "lowrank/adapt/nola.hpp"
#include "lowrank/adapt/olora.hpp"
#include "lowrank/adapt/peft.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"

namespace {

using namespace lowrank;
using namespace lowrank::adapt;

struct settings {
  std::string base, adapter, merged, method{"lora"};
  gguf_llama llama;
};

/// The tensors of a model, in fp32.
using weights = std::map<std::string, matrix<float>>;

weights read_weights(std::string const& path) {
  safetensors_reader const file{path};
  weights out;
  for (auto const& t : file.tensors()) out.emplace(t.name, file.read_matrix(t.name));
  return out;
}
void write_weights(std::string const& path, std::string const& like, weights const& model) {
  safetensors_reader const file{like};
  std::vector<tensor_source> sources;
  for (auto const& t : file.tensors()) {
    auto const& w = model.at(t.name);
    sources.push_back({{t.name, dtype::f32, t.shape},
                       std::as_bytes(std::span{w.data(), static_cast<std::size_t>(w.shape().size())})});
  }
  write_safetensors(path, sources, {{"format", "pt"}});
}
adapter_base base_of(weights const& model) {
  adapter_base out;
  for (auto const& [name, w] : model)
    if (name.ends_with(".weight"))
      out.modules[name.substr(0, name.size() - std::string_view{".weight"}.size())] = {w.shape(),
                                                                                       base_fingerprint::of(w.view())};
  return out;
}

/// Away from the initial values, as if it had been trained.
template <class A>
void disturb(A& adapter, float size, std::uint32_t number) {
  std::uint32_t step = 0;
  for (auto const& t : adapter.tensors()) {
    rng_key const key{.seed = 11, .step = step++, .tensor = number, .purpose = rng_purpose::data};
    for (index_t i = 0; i < t.values.rows; ++i)
      for (index_t j = 0; j < t.values.cols; ++j)
        t.values(i, j) += size * gaussian(key, static_cast<std::uint64_t>(i * t.values.cols + j));
  }
}

class maker {
 public:
  explicit maker(settings const& s) : settings_{s}, model_{read_weights(s.base)} {}

  void run() {
    auto const base = base_of(model_);
    out_.config.task_type = "CAUSAL_LM";
    std::uint32_t number = 0;
    for (auto& [name, w] : model_) {
      if (!name.ends_with("_proj.weight")) continue;
      make(name.substr(0, name.size() - std::string_view{".weight"}.size()), w, number++);
    }
    for (auto& m : out_.modules) m.base = base.modules.find(m.name)->second.fingerprint;
    write_peft(settings_.adapter, out_);
    write_weights(settings_.merged, settings_.base, model_);
  }

 private:
  void make(std::string name, matrix<float>& w, std::uint32_t number) {
    auto const& method = settings_.method;
    if (method == "lora") plain(name, w, number, {.rank = 4, .alpha = 6});
    else if (method == "gaussian") plain(name, w, number, {.rank = 4, .alpha = 6, .start = lora_start::gaussian});
    else if (method == "orthogonal") plain(name, w, number, {.rank = 4, .alpha = 6, .start = lora_start::orthogonal});
    else if (method == "rslora") plain(name, w, number, {.rank = 5, .alpha = 6, .scale = scaling::rank_root});
    else if (method == "patterns")
      plain(name, w, number, {.rank = 1 + number % 7, .alpha = 1.0F + 0.5F * static_cast<float>(number % 5)});
    else if (method == "rslora_patterns")
      plain(
          name, w, number,
          {.rank = 1 + number % 7, .alpha = 1.0F + 0.5F * static_cast<float>(number % 5), .scale = scaling::rank_root});
    else if (method == "olora") exported(name, w, number, olora{.rank = 4, .alpha = 6}, 0.05F);
    else if (method == "lora_xs") exported(name, w, number, lora_xs{.rank = 4, .alpha = 4}, 0.3F);
    else if (method == "nola") exported(name, w, number, nola{.rank = 4, .right_count = 12, .left_count = 12}, 0.3F);
    else if (method == "nola_vision")
      exported(name, w, number, nola{.rank = 4, .right_count = 12, .left_count = 12, .variant = nola_variant::vision},
               0.3F);
    else if (method == "deep_lora") exported(name, w, number, deep_lora{.rank = 4}, 0.2F);
    else throw argument_error{"peft_exchange: unknown method " + method};
  }
  void plain(std::string const& name, matrix<float>& w, std::uint32_t number, lora const& what) {
    auto adapter = make_adapter(exec_, what, w.view(), key(number));
    disturb(adapter, 0.1F, number);
    out_.config.scaling = what.scale;
    out_.modules.push_back(to_peft_module(exec_, name, adapter, out_.config));
    adapter.add_to(exec_, 1.0F, w.view());
  }
  template <class S>
  void exported(std::string const& name, matrix<float>& w, std::uint32_t number, S const& what, float size) {
    auto adapter = make_adapter(exec_, what, w.view(), key(number));
    disturb(adapter, size, number);
    out_.modules.push_back(to_peft_module(exec_, name, adapter));
    adapter.add_to(exec_, 1.0F, w.view());
  }
  static rng_key key(std::uint32_t number) { return {.seed = 5, .tensor = number}; }

  settings const& settings_;
  host_executor exec_{{.threads = 1}};
  weights model_;
  peft_adapter out_;
};

void apply(settings const& s) {
  host_executor exec{{.threads = 1}};
  auto model = read_weights(s.base);
  auto const adapter = read_peft(s.adapter, base_of(model));
  for (auto const& m : adapter.modules) add_to(exec, adapter, m, 1.0F, model.at(m.name + ".weight").view());
  write_weights(s.merged, s.base, model);
}

/// Every NF4 matrix "x" of a checkpoint is written again, and its numbers as "x.opened".
void exchange_nf4(settings const& s) {
  constexpr std::string_view ending = ".quant_state.bitsandbytes__nf4";
  host_executor exec{{.threads = 1}};
  safetensors_reader const file{s.base};
  std::vector<stored_tensor> tensors;
  for (auto const& t : file.tensors()) {
    if (!t.name.ends_with(ending)) continue;
    auto const name = t.name.substr(0, t.name.size() - ending.size());
    auto const w = from_bitsandbytes(file, name);
    for (auto& stored : to_bitsandbytes(name, w, dtype::f32)) tensors.push_back(std::move(stored));
    matrix<float> opened{w.shape()};
    exec.reserve(w.workspace_bytes());
    w.dense(exec, opened.view());
    auto const bytes = std::as_bytes(std::span{opened.data(), static_cast<std::size_t>(w.shape().size())});
    tensors.push_back({{name + ".opened", dtype::f32, {w.shape().rows, w.shape().cols}}, {bytes.begin(), bytes.end()}});
  }
  std::vector<tensor_source> sources;
  for (auto const& t : tensors) sources.push_back(t.source());
  write_safetensors(s.merged, sources);
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Writes and reads adapters of PEFT."};
  app.require_subcommand(1);
  auto* const make = app.add_subcommand("make", "random adapters, written for PEFT and merged by us");
  auto* const apply_command = app.add_subcommand("apply", "the adapters in a directory, merged by us");
  auto* const gguf = app.add_subcommand("gguf", "the adapters in a directory as a GGUF file");
  auto* const nf4 = app.add_subcommand("nf4", "the NF4 matrices of a checkpoint, written again and opened");
  for (auto* const command : {make, apply_command, gguf, nf4}) {
    if (command != gguf) command->add_option("--base", s.base, "the model's tensors")->required();
    if (command != nf4) command->add_option("--adapter", s.adapter, "the directory")->required();
    command->add_option("--merged", s.merged, "the file to write")->required();
  }
  gguf->add_option("--heads", s.llama.heads)->required();
  gguf->add_option("--kv-heads", s.llama.kv_heads)->required();
  make->add_option(
      "--method", s.method,
      "lora, gaussian, orthogonal, rslora, patterns, rslora_patterns, olora, lora_xs, nola, nola_vision or deep_lora");
  CLI11_PARSE(app, argc, argv);
  try {
    if (make->parsed()) maker{s}.run();
    else if (gguf->parsed()) write_gguf_adapter(s.merged, read_peft(s.adapter), s.llama);
    else if (nf4->parsed()) exchange_nf4(s);
    else apply(s);
    return 0;
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
