// SmolLM2-135M against numbers that another implementation computed: tokenizer, weights, losses, logits, gradients, spectra.
#include <chrono>
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "comparison.hpp"
#include "executor.hpp"
#include "llama/data.hpp"
#include "llama/decode.hpp"
#include "llama/hugging_face.hpp"
#include "llama/load_gguf.hpp"
#include "llama/save_hugging_face.hpp"
#include "llama/tokenizer.hpp"
#include "lowrank/spectrum/model_spectra.hpp"
#include "reference_ranks.hpp"
#include "sha256.hpp"
#include "windows.hpp"

namespace {

using llama::index_t;
using nlohmann::json;
using smollm2::comparison;
using tokens = std::vector<std::int32_t>;

struct settings {
  std::string model{"build/data/SmolLM2-135M-Instruct.Q4_1.gguf"}, texts{"build/data"};
  std::string licence{"/usr/share/common-licenses/GPL-3"}, reference{"tests/reference/smollm2.json"};
  std::string checkpoint;
  int threads{0};
};

class reference_run {
 public:
  explicit reference_run(settings const& s)
      : settings_{s},
        expected_(json::parse(llama::read_bytes(s.reference))),
        exec_{{.threads = s.threads}},
        file_{s.model},
        tokenizer_{file_} {}

  bool run() {
    compare_tokens();
    compare_weights();
    auto model = llama::load(file_, llama::config_of(file_, longest_));
    done("model loaded");
    compare_losses(model);
    compare_logits(model);
    compare_decoding(model);
    if (!settings_.checkpoint.empty()) compare_checkpoint(model);
    compare_gradients(model);
    compare_ranks(model);
    compare_rotary(std::move(model));
    compare_spectra();
    table_.print();
    return table_.passed();
  }

 private:
  /// Says what was done, and how long it took.
  void done(char const* what) {
    auto const now = std::chrono::steady_clock::now();
    std::printf("%6.2f s  %s\n", std::chrono::duration<double>(now - last_).count(), what);
    std::fflush(stdout);
    last_ = now;
  }
  [[nodiscard]] tokens text_tokens(json const& of) const {
    auto const name = std::filesystem::path{of["file"].get<std::string>()}.filename().string();
    return tokenizer_.encode(llama::read_bytes(settings_.texts + "/" + name));
  }
  void compare_tokens() {
    for (auto const& one : expected_["token_ids"]) {
      auto const text = one["text"].get<std::string>();
      auto const ids = tokenizer_.encode(text);
      table_.equal("tokens of short texts", ids, one["ids"].get<tokens>());
      table_.equal("texts of their tokens", tokenizer_.decode(ids), text);
    }
    for (auto const* const name : {"eval", "calib_file", "train_file"}) {
      auto const ids = text_tokens(expected_[name]);
      table_.equal("tokens of whole plays (SHA-256)", smollm2::sha256(ids),
                   expected_[name]["all_ids_sha256"].get<std::string>());
      if (std::string_view{name} == "eval") play_ = ids;
    }
    auto const& eval = expected_["eval"];
    for (std::size_t w = 0; w < eval["offsets"].size(); ++w)
      table_.equal("tokens of windows (SHA-256)",
                   smollm2::sha256(std::span<std::int32_t const>{play_}.subspan(eval["offsets"][w].get<std::size_t>(),
                                                                                eval["length"].get<std::size_t>())),
                   eval["window_ids_sha256"][w].get<std::string>());
    done("texts tokenized");
  }
  void compare_weights() {
    for (auto const& [name, numbers] : expected_["dequant"].items()) {
      auto const w = file_.read_matrix(name);
      double sum = 0, squares = 0;
      for (index_t i = 0; i < w.shape().size(); ++i) {
        auto const x = static_cast<double>(w.data()[i]);
        sum += x;
        squares += x * x;
      }
      for (std::size_t i = 0; i < 4; ++i)
        table_.equal("first weights", static_cast<double>(w.data()[i]), numbers["row0_first4"][i].get<double>());
      double const norm = numbers["frobenius"].get<double>();
      table_.within_share("norms of weights, relative", std::sqrt(squares), norm, norm, 1e-9);
      table_.within_share("sums of weights, relative to the norm", sum, numbers["sum"].get<double>(), norm, 1e-10);
    }
    done("weights decoded");
  }
  /// Mean loss of one text predicted from its first token on.
  [[nodiscard]] double loss_of(llama::parameters<float> const& model, tokens const& text) {
    auto const length = static_cast<index_t>(text.size());
    llama::activations<float> memory{model.config(), 1, length, llama::pass::inference};
    smollm2::windows const whole{"the text", text, {.count = 1, .length = length, .first = 0, .stride = 0}};
    return llama::mean_loss(exec_, model, whole.batch(0, 1), memory);
  }
  void compare_losses(llama::parameters<float> const& model) {
    auto const& eval = expected_["eval"];
    llama::activations<float> memory{model.config(), 1, longest_, llama::pass::inference};
    auto const offsets = eval["offsets"].get<std::vector<index_t>>();
    smollm2::windows const text{"the play",
                                play_,
                                {.count = static_cast<index_t>(offsets.size()),
                                 .length = longest_,
                                 .first = offsets[0],
                                 .stride = offsets[1] - offsets[0]}};
    auto const losses = smollm2::window_losses(exec_, model, text, memory);
    for (std::size_t w = 0; w < losses.size(); ++w)
      table_.within("losses of windows", losses[w], eval["window_nll"][w].get<double>(), 1e-4);
    table_.within("mean of them", smollm2::mean(losses), eval["mean_nll"].get<double>(), 1e-5);
    double const perplexity = std::exp(smollm2::mean(losses));
    table_.within_share("perplexity, relative", perplexity, expected_["dense_ppl"].get<double>(), perplexity, 1e-4);
    done("losses of eight windows");
    if (!read_licence()) return;
    table_.within("loss of the licence", loss_of(model, licence_), expected_["gpl3"]["mean_nll_fp32"].get<double>(),
                  1e-4);
    auto with_first = licence_;
    with_first.insert(with_first.begin(), tokenizer_.first().value());
    with_first.pop_back();
    table_.within("the same after the first token", loss_of(model, with_first),
                  expected_["gpl3"]["mean_nll_with_bos_first"].get<double>(), 1e-4);
    done("losses of the licence");
  }
  [[nodiscard]] bool read_licence() {
    auto const& gpl = expected_["gpl3"];
    std::string text;
    if (std::filesystem::exists(settings_.licence)) text = llama::read_bytes(settings_.licence);
    if (smollm2::sha256(text) != gpl["sha256"].get<std::string>()) {
      table_.skip("loss of the licence", settings_.licence + " is not the text that was used");
      return false;
    }
    auto const ids = tokenizer_.encode(text);
    table_.equal("number of tokens of the licence", ids.size(), gpl["tokens_total"].get<std::size_t>());
    licence_.assign(ids.begin(), ids.begin() + gpl["n"].get<std::ptrdiff_t>());
    table_.equal("tokens of the licence (SHA-256)", smollm2::sha256(licence_), gpl["ids_sha256"].get<std::string>());
    return true;
  }
  void compare_logits(llama::parameters<float> const& model) {
    auto const& prompt = expected_["prompt_logits"];
    auto const ids = tokenizer_.encode(prompt["prompt"].get<std::string>());
    table_.equal("tokens of short texts", ids, prompt["ids"].get<tokens>());
    auto const length = static_cast<index_t>(ids.size());
    llama::activations<float> memory{model.config(), 1, length, llama::pass::inference};
    llama::forward(exec_, model, {ids, 1, length}, memory);
    auto const last = memory.logits().row_range(length - 1, length);
    for (index_t i = 0; i < 10; ++i)
      table_.within("logits", last(0, i), prompt["first10_fp64"][static_cast<std::size_t>(i)].get<double>(), 1e-3);
    tokens order(static_cast<std::size_t>(last.cols));
    std::iota(order.begin(), order.end(), 0);
    auto const top = prompt["top5_ids"].get<tokens>();
    std::ranges::partial_sort(order, order.begin() + 5, std::greater<>{}, [&](std::int32_t id) { return last(0, id); });
    table_.equal("the five likeliest tokens", tokens(order.begin(), order.begin() + 5), top);
    for (std::size_t i = 0; i < top.size(); ++i)
      table_.within("logits", last(0, top[i]), prompt["top5_logits"][i].get<double>(), 1e-3);
    double sum = 0;
    for (index_t i = 0; i < last.cols; ++i) sum += std::exp(static_cast<double>(last(0, i)));
    table_.within("log of the sum of exp(logits)", std::log(sum), prompt["logsumexp"].get<double>(), 1e-4);
  }
  /// One token after the other from the cache, against the forward pass over all of them.
  void compare_decoding(llama::parameters<float> const& model) {
    constexpr index_t length = 100, prefix = 70;  // more than the cache takes at once
    std::span<std::int32_t const> const text = std::span{play_}.subspan(4096, static_cast<std::size_t>(length));
    llama::activations<float> memory{model.config(), 1, length, llama::pass::inference};
    llama::forward(exec_, model, {text, 1, length}, memory);
    llama::kv_cache<float> cache{model.config(), 256};
    auto const whole = memory.logits();
    for (index_t t = prefix - 1; t < length; ++t) {
      auto const logits = llama::advance(
          exec_, model, cache,
          text.subspan(static_cast<std::size_t>(cache.length()), static_cast<std::size_t>(t + 1 - cache.length())));
      for (std::size_t i = 0; i < logits.size(); i += 97)
        table_.within("logits from the cache", logits[i], whole(t, static_cast<index_t>(i)), 1e-3);
    }
    done("decoding with a cache of keys and values");
    cache.cut(0);
    auto answer = tokenizer_.encode("<|im_start|>user\nWhere is Hamlet's castle?<|im_end|>\n<|im_start|>assistant\n");
    auto const begin = std::chrono::steady_clock::now();
    auto const before = answer.size();
    llama::generate(exec_, model, cache, answer, {.draw = {.count = 40, .temperature = 0}, .stop = *tokenizer_.last()});
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("%s\n", tokenizer_.decode(answer).c_str());
    std::printf("%.1f tokens a second, reading %zu included\n", static_cast<double>(answer.size()) / seconds, before);
    done("text generated");
  }
  /// Written for transformers and read back, with a window of the play and its loss beside it.
  void compare_checkpoint(llama::parameters<float> const& model) {
    auto const context = file_.metadata().at<index_t>("llama.context_length");
    llama::save(settings_.checkpoint, model,
                {.context = context, .first_token = tokenizer_.first(), .last_token = tokenizer_.last()});
    llama::hugging_face_folder const folder{settings_.checkpoint};
    auto const back = llama::load(folder, llama::config_of(folder, longest_));
    table_.equal("weights of a checkpoint read back", std::ranges::equal(back.flat(), model.flat()), true);
    tokens const window{play_.begin() + 2048, play_.begin() + 2048 + longest_};
    std::ofstream{settings_.checkpoint + "/window.json"} << json{{"tokens", window}, {"loss", loss_of(model, window)}};
    done("a checkpoint for transformers written, and read back");
  }
  void compare_gradients(llama::parameters<float> const& model) {
    auto const& numbers = expected_["gradients"];
    constexpr index_t length = 128;
    smollm2::windows const text{
        "the play",
        play_,
        {.count = 1, .length = length, .first = expected_["eval"]["offsets"][0].get<index_t>(), .stride = 0}};
    table_.equal("tokens of windows (SHA-256)", smollm2::sha256(text.batch(0, 1).inputs.tokens),
                 numbers["ids_sha256"].get<std::string>());
    llama::activations<float> memory{model.config(), 1, length, llama::pass::training};
    llama::gradients<float> gradients{model};
    double const loss = llama::loss_and_gradients(exec_, model, text.batch(0, 1), memory, gradients);
    table_.within("loss of 128 tokens", loss, numbers["loss"].get<double>(), 1e-4);
    double all = 0;
    for (index_t i = 0; i < model.count(); ++i) {
      auto const g = gradients.dense(i);
      double squares = 0;
      for (index_t e = 0; e < g.size(); ++e) squares += static_cast<double>(g.data[e]) * static_cast<double>(g.data[e]);
      all += squares;
      auto const name = llama::gguf_name(model[i].what, model[i].layer);
      auto const norm = [&](double expected) {
        table_.within_share("norms of gradients, relative", std::sqrt(squares), expected, expected, 1e-4);
      };
      if (model[i].what == llama::role::embedding) norm(numbers["token_embd_tied"].get<double>());
      if (model[i].what == llama::role::final_norm) norm(numbers["output_norm"].get<double>());
      if (!numbers["frobenius"].contains(name)) continue;
      norm(numbers["frobenius"][name].get<double>());
      auto const spectrum = lowrank::singular_values(exec_, lowrank::matrix_view<float const>(g));
      for (std::size_t k = 0; k < 3; ++k)
        table_.within_share("singular values of gradients, share of the first", spectrum.values[k],
                            numbers["top3_singular"][name][k].get<double>(), spectrum.values[0], 1e-5);
      table_.equal("ranks of gradients for 90 % of the energy", spectrum.rank_for_energy(0.9),
                   numbers["rank90_energy"][name].get<index_t>());
    }
    double const expected = numbers["global_norm_all"].get<double>();
    table_.within_share("norms of gradients, relative", std::sqrt(all), expected, expected, 1e-4);
    done("gradients and their singular values");
  }
  /// Rows for one kind of rotation under the other give a loss that is wrong, and no other sign of it.
  void compare_rotary(llama::parameters<float> model) {
    if (licence_.empty()) return;
    double const half_split = loss_of(model, licence_);
    auto const raw = llama::load(file_, llama::config_of(file_, longest_, llama::rotary_pairs::interleaved));
    table_.within("interleaved against half-split rotation", loss_of(raw, licence_), half_split, 2e-5);
    std::ranges::copy(raw.flat(), model.flat().begin());
    table_.within("loss with the wrong pairs", loss_of(model, licence_),
                  expected_["gpl3"]["nll_without_qk_unpermute"].get<double>(), 1e-3);
    done("both ways to rotate, and the wrong one");
  }
  void compare_ranks(llama::parameters<float> const& model) {
    smollm2::linear_weights const weights{model};
    std::vector<lowrank::matrix_source> sources;
    for (std::size_t i = 0; i < weights.size(); ++i)
      sources.push_back({weights[i].name, [&weights, i] { return weights.weight(i); }});
    auto const spectra = lowrank::model_spectra(exec_, std::span<lowrank::matrix_source const>{sources});
    smollm2::compare_welore(table_, expected_["welore"]["rows"], spectra);
    smollm2::compare_parameter_budgets(table_, expected_["activation_aware"], spectra);
    done("spectra of all linear weights, and ranks");
  }
  void compare_spectra() {
    for (auto const& [name, numbers] : expected_["spectra"].items()) {
      auto const w = file_.read_matrix(name);
      auto const spectrum = lowrank::singular_values(exec_, lowrank::matrix_view<float const>(w.view()));
      for (std::size_t k = 0; k < 5; ++k)
        table_.within_share("singular values of weights, share of the first", spectrum.values[k],
                            numbers["top5"][k].get<double>(), spectrum.values[0], 1e-9);
      table_.within_share("smallest of them, share of the first", spectrum.values.back(),
                          numbers["smallest"].get<double>(), spectrum.values[0], 1e-9);
      table_.equal("ranks of weights for 90 and 99 % of the energy", spectrum.rank_for_energy(0.9),
                   numbers["rank90"].get<index_t>());
      table_.equal("ranks of weights for 90 and 99 % of the energy", spectrum.rank_for_energy(0.99),
                   numbers["rank99"].get<index_t>());
    }
    done("singular values of weights");
  }

  static constexpr index_t longest_ = 512;
  settings settings_;
  json expected_;
  smollm2::executor_type exec_;
  lowrank::gguf_reader file_;
  llama::tokenizer tokenizer_;
  comparison table_;
  tokens play_, licence_;
  std::chrono::steady_clock::time_point last_{std::chrono::steady_clock::now()};
};

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"SmolLM2-135M against the numbers of another implementation"};
  app.add_option("--model", s.model, "the GGUF file")->capture_default_str();
  app.add_option("--texts", s.texts, "folder of the plays")->capture_default_str();
  app.add_option("--licence", s.licence, "the text of GPL-3")->capture_default_str();
  app.add_option("--reference", s.reference, "the numbers")->capture_default_str();
  app.add_option("--checkpoint", s.checkpoint, "folder to write the model to, as transformers keeps it");
  app.add_option("--threads", s.threads, "0: one per core")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  // Test drivers are told so by their own number: there is nothing to test without the model, and nothing has passed.
  if (!std::filesystem::exists(s.model)) {
    std::printf("skipped: there is no %s (./run smollm2 fetches it)\n", s.model.c_str());
    return 77;
  }
  try {
    return reference_run{s}.run() ? 0 : 1;
  } catch (std::exception const& problem) {
    std::fprintf(stderr, "%s\n", problem.what());
    return 1;
  }
}
