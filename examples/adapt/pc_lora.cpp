// PC-LoRA on SmolLM2 or on the demo's model, against the same ranks cut at once and trained for as many steps.
#include "pc_lora.hpp"

#include <nlohmann/json.hpp>

#include "llama/data.hpp"
#include "llama/demo_report.hpp"
#include "llama/hugging_face.hpp"
#include "llama/load_gguf.hpp"
#include "llama/save_hugging_face.hpp"
#include "llama/tokenizer.hpp"
#include "pc_lora_page.hpp"
#include "pc_lora_trial.hpp"
#include "smollm2/executor.hpp"

namespace adapting {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(pc_trial, rank, steps, batch, length, samples, layers, rate, decay_share, task_share,
                                   seed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(pc_result, settings, dense, before, after, features, seconds, dense_parameters,
                                   parameters, model_parameters, finished_parameters, dense_tokens_per_second,
                                   tokens_per_second, curve)

namespace {

using executor_type = smollm2::executor_type;
using tokens = std::vector<std::int32_t>;

/// A model, and the texts that train and score it.
struct subject {
  llama::parameters<float> model;
  tokens trains, scores;
};

[[nodiscard]] tokens bytes_of(std::string_view text) {
  tokens out;
  for (char const byte : text) out.push_back(static_cast<unsigned char>(byte));
  return out;
}

[[nodiscard]] subject published_model(settings const& s) {
  lowrank::gguf_reader const file{s.model};
  llama::tokenizer const tokenizer{file};
  auto const read = [&](std::string const& name) {
    return tokenizer.encode(llama::read_bytes((std::filesystem::path{s.texts} / name).string()));
  };
  return {llama::load(file, llama::config_of(file, std::max(s.length, s.scored_length))), read(s.trained),
          read(s.scored)};
}

/// The demo's model: bytes of plays, trained here unless its folder has it already. The last tenth of the text scores.
[[nodiscard]] subject demo_model(executor_type& exec, settings const& s) {
  llama::corpus const text{llama::read_bytes((std::filesystem::path{s.texts} / "shakespeare.txt").string())};
  subject out{llama::parameters<float>{llama::config{}}, bytes_of(text.training()), bytes_of(text.validation())};
  if (std::filesystem::exists(std::filesystem::path{s.pc_demo_folder()} / "model.safetensors")) {
    llama::hugging_face_folder const folder{s.pc_demo_folder()};
    out.model = llama::load(folder, llama::config_of(folder, out.model.config().sequence));
    return out;
  }
  auto const c = out.model.config();
  llama::initialise(exec, out.model, {.seed = 1});
  constexpr index_t batch = 8;
  llama::windows drawn{batch, c.sequence};
  llama::activations<float> memory{c, batch, c.sequence, llama::pass::training};
  llama::gradients<float> gradients{out.model};
  lowrank::parameter_set<executor_type> optimizer{
      {{lowrank::every_parameter, [](executor_type& e, lowrank::extents shape, std::uint32_t tensor) {
          return lowrank::make_optimizer(e, lowrank::adamw{}, shape, tensor);
        }}}};
  std::vector<lowrank::any_gradient<executor_type>> all;
  for (index_t i = 0; i < out.model.count(); ++i) {
    optimizer.add(exec, out.model[i].name, lowrank::fp32_weight<>{out.model.weight(i)});
    all.push_back(lowrank::matrix_view<float const>(gradients.dense(i)));
  }
  exec.reserve(optimizer.workspace_bytes());
  index_t const steps = s.pc_demo_steps;
  lowrank::schedule::warmup_cosine const rate{.warmup = steps / 10, .total = steps, .floor = 0.1};
  llama::progress bar{"the model", steps};
  double const began = llama::now();
  for (index_t step = 0; step < steps; ++step) {
    text.training_windows(1, static_cast<std::uint32_t>(step), drawn);
    double const loss = llama::loss_and_gradients(exec, out.model, drawn.view(), memory, gradients);
    optimizer.step(exec, all, {.learning_rate = static_cast<float>(2e-3 * rate.factor(step))});
    double const seconds = llama::now() - began;
    bar.show(step + 1, loss, static_cast<double>((step + 1) * batch * c.sequence) / seconds,
             seconds / static_cast<double>(step + 1) * static_cast<double>(steps - step - 1));
  }
  llama::save(s.pc_demo_folder(), out.model);
  return out;
}

void print_heading() {
  std::printf("\n%-22s %5s %7s %9s %10s %9s %9s %9s %9s %9s %9s\n", "matrices become pairs", "rank", "layers", "dense",
              "cut", "after", "features", "removed", "of all", "tokens/s", "seconds");
}
void print_row(pc_result const& r, index_t layers) {
  auto const share = [](index_t left, index_t all) {
    return 100 * (1 - static_cast<double>(left) / static_cast<double>(all));
  };
  std::printf("%-22s %5ld %7ld %9.3f %10.4g %9.3f %9.4f %8.1f%% %8.1f%% %8.2fx %9.0f\n", name(r.settings.way),
              static_cast<long>(r.settings.rank), static_cast<long>(layers), r.dense, r.before, r.after, r.features,
              share(r.parameters, r.dense_parameters), share(r.finished_parameters, r.model_parameters),
              r.tokens_per_second / r.dense_tokens_per_second, r.seconds);
  std::fflush(stdout);
}

}  // namespace

void run_pc_lora(settings const& s) {
  executor_type exec{{.threads = s.threads, .worker_bytes = index_t{8} << 20}};
  auto const what = s.pc_model == "demo" ? demo_model(exec, s) : published_model(s);
  index_t const length = std::min(s.scored_length, what.model.config().sequence), most = 12;
  index_t const stride = s.pc_model == "demo" ? static_cast<index_t>(what.scores.size()) / (most + 1) : s.scored_stride;
  smollm2::windows const scored{"the scored text", what.scores, {s.scored_windows, length, 2048, stride}};
  auto out = nlohmann::json::object({{"machine", llama::processor_name()}, {"model", s.pc_model}});
  std::vector<pc_result> all;
  print_heading();
  for (index_t const rank : s.ranks)
    for (auto const seed : s.seeds)
      for (auto const way : {pc_way::cut, pc_way::fading, pc_way::fading_rest}) {
        pc_trial t{.way = way, .rank = rank, .steps = s.steps, .batch = s.batch};
        t.length = std::min(s.length, what.model.config().sequence);
        t.samples = s.samples.front();
        t.layers = s.pc_layers;
        if (!s.rates.empty()) t.rate = s.rates.front();
        t.task_share = s.pc_share;
        t.seed = seed;
        auto const& r = all.emplace_back(run_pc_trial(exec, t, what.model, what.trains, scored));
        print_row(r, s.pc_layers == 0 ? what.model.config().layers : s.pc_layers);
        nlohmann::json row = r;
        row["way"] = name(way);
        row["linear_removed"] = 1 - static_cast<double>(r.parameters) / static_cast<double>(r.dense_parameters);
        // Two flops a parameter and token: the same share.
        row["id"] = std::string{name(way)} + " r" + std::to_string(rank) + " s" + std::to_string(seed);
        out["trials"].push_back(std::move(row));
      }
  if (!s.html.empty()) {
    write_pc_page(s.html, s, all);
    std::printf("plots: %s\n", s.html.c_str());
  }
  if (!s.report.empty()) llama::detail::replace_file(s.report, out.dump(1) + "\n");
}

}  // namespace adapting
