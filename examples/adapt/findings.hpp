/// @file
/// What trials found out, as a table and as JSON that a later run goes on from.
#pragma once

#include <nlohmann/json.hpp>

#include "llama/demo_report.hpp"
#include "llama/save_hugging_face.hpp"
#include "trial_run.hpp"

namespace adapting {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(trial, method, base, embedding, calibration, rule, rule_options, rank,
                                                samples, steps, batch, length, rate, base_bytes, alpha, dropout, seed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(rank_summary, mean, median, most, zero, count)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(trial_result, settings, base, before, after, best, loss, curve,
                                                window_losses, also, passes_seconds, optimizer_seconds, parameters,
                                                trained_bytes, file_bytes, linear_bytes, base_bytes, adapter_bytes,
                                                gradient_bytes, optimizer_bytes, activation_bytes, int8_share, ranks)

/// Mean, and the standard error of it, over the seeds of one combination.
struct trial_group {
  trial settings;  ///< of its first seed
  std::vector<trial_result const*> trials;

  [[nodiscard]] double mean(auto const& value) const {
    double sum = 0;
    for (auto const* one : trials) sum += static_cast<double>(value(*one));
    return sum / static_cast<double>(trials.size());
  }
  [[nodiscard]] double error(auto const& value) const {
    if (trials.size() < 2) return 0;
    double const middle = mean(value);
    double sum = 0;
    for (auto const* one : trials) sum += std::pow(static_cast<double>(value(*one)) - middle, 2);
    auto const n = static_cast<double>(trials.size());
    return std::sqrt(sum / (n - 1) / n);
  }
};

/// Trials that differ in their seeds alone, together.
[[nodiscard]] inline std::vector<trial_group> grouped(std::vector<trial_result> const& all) {
  std::vector<trial_group> out;
  for (auto const& r : all) {
    auto key = r.settings;
    key.seed = 0;
    auto found = std::ranges::find_if(out, [&](auto const& g) { return name(g.settings) == name(key); });
    if (found == out.end()) {
      out.push_back({key, {}});
      found = out.end() - 1;
    }
    found->trials.push_back(&r);
  }
  return out;
}

inline void print_heading() {
  std::printf("\n%-20s %4s %15s %7s %8s %5s %9s %9s %9s %11s %10s %8s %6s\n", "method", "rank", "base", "samples",
              "rate", "seed", "before", "after", "best", "trained", "file", "tokens/s", "learnt");
}
inline void print_row(trial_result const& r) {
  auto const& t = r.settings;
  std::printf("%-20s %4ld %15s %7ld %8.1e %5lu %9.3f %9.3f %9.3f %11ld %10s %8.0f %6.1f\n", t.method.c_str(),
              static_cast<long>(t.rank), base_label(t).c_str(), static_cast<long>(t.samples), t.rate,
              static_cast<unsigned long>(t.seed), r.before, r.after, r.best, static_cast<long>(r.parameters),
              llama::mebibytes(r.file_bytes).c_str(), r.tokens_per_second(), r.ranks.mean);
  std::fflush(stdout);
}

/// What results can only be compared under.
[[nodiscard]] inline nlohmann::json scoring_of(settings const& s) {
  return {{"model", std::filesystem::path{s.model}.filename().string()},
          {"trained", s.trained},
          {"scored", s.scored},
          {"also_scored", s.also_scored},
          {"scored_windows", s.scored_windows},
          {"scored_length", s.scored_length},
          {"scored_stride", s.scored_stride},
          {"measurements", s.measurements}};
}

/// The trials that a file holds; none where there is no file.
/// Throws: io_error for a file that cannot be read, argument_error for trials that were scored in another way.
[[nodiscard]] inline std::vector<trial_result> known_results(std::string const& path, settings const& s) {
  if (path.empty() || !std::filesystem::exists(path)) return {};
  std::ifstream in{path};
  try {
    auto const file = nlohmann::json::parse(in);
    for (auto const& [key, value] : scoring_of(s).items())
      lowrank::require(file.value(key, nlohmann::json{}) == value, "adapting::known_results", path, " has ", key, " ",
                       file.value(key, nlohmann::json{}).dump(), ", asked for ", value.dump());
    return file.at("trials").get<std::vector<trial_result>>();
  } catch (nlohmann::json::exception const& e) {
    throw lowrank::io_error{"adapting::known_results: " + path + ": " + e.what()};
  }
}

/// Trials over each format of the base beside the same over bf16 (of loftq: LoRA): over the seeds, the mean ratio
/// of perplexities, on further texts too, and by how many nats the loss of each window has risen; the ratio of bytes.
[[nodiscard]] inline nlohmann::json base_comparison(std::vector<trial_result> const& all) {
  std::map<std::string, nlohmann::json> rows;
  for (auto const& r : all) {
    if (r.settings.base == "bf16") continue;
    auto const like = std::ranges::find_if(all, [&](trial_result const& other) {
      auto key = r.settings;
      key.base = "bf16", key.embedding = other.settings.embedding;
      if (key.method == "loftq") key.method = "lora";
      return name(other.settings) == name(key);
    });
    if (like == all.end()) continue;
    auto t = r.settings;
    t.seed = 0;
    auto& row = rows[name(t)];
    if (row.is_null()) row = nlohmann::json::object();
    auto ratios = row.value("perplexity_ratios", std::vector<double>{});
    ratios.push_back(r.after / like->after);
    double const n = row.value("pairs", 0.0);
    auto also = row.value("also", nlohmann::json::object());
    for (auto const& [text, perplexity] : r.also)
      if (auto const other = like->also.find(text); other != like->also.end())
        also[text] = (also.value(text, 0.0) * n + perplexity / other->second) / (n + 1);
    auto rise = row.value("window_rise", std::vector<double>(r.window_losses.size(), 0.0));
    for (std::size_t w = 0; w < std::min(rise.size(), like->window_losses.size()); ++w)
      rise[w] = (rise[w] * n + r.window_losses[w] - like->window_losses[w]) / (n + 1);
    row = {{"id", name(t)},
           {"name", t.method + " " + std::to_string(t.rank) + " " + base_label(t)},
           {"pairs", n + 1},
           {"perplexity_ratio", smollm2::mean(ratios)},
           {"perplexity_ratios", ratios},
           {"linear_bytes_ratio", static_cast<double>(r.linear_bytes) / static_cast<double>(like->linear_bytes)},
           {"base_bytes_ratio", static_cast<double>(r.base_bytes) / static_cast<double>(like->base_bytes)},
           {"int8_share", r.int8_share},
           {"window_rise", rise},
           {"also", also}};
  }
  auto out = nlohmann::json::array();
  for (auto& [id, row] : rows) out.push_back(std::move(row));
  return out;
}

[[nodiscard]] inline nlohmann::json to_json(settings const& s, std::vector<trial_result> const& all) {
  std::time_t const today = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&today));
  nlohmann::json out{{"machine", llama::processor_name()},
                     {"cores", std::thread::hardware_concurrency()},
                     {"date", date},
                     {"trials", all},
                     {"over_bf16", base_comparison(all)}};
  out.update(scoring_of(s));
  for (auto const& g : grouped(all)) {
    auto const after = [](auto const& r) { return r.after; };
    out["groups"].push_back({{"id", name(g.settings)},
                             {"method", g.settings.method},
                             {"rank", g.settings.rank},
                             {"base", g.settings.base},
                             {"samples", g.settings.samples},
                             {"seeds", g.trials.size()},
                             {"perplexity", g.mean(after)},
                             {"error", g.error(after)},
                             {"best_perplexity", g.mean([](auto const& r) { return r.best; })},
                             {"parameters", g.trials.front()->parameters},
                             {"file_bytes", g.trials.front()->file_bytes},
                             {"learnt_rank", g.mean([](auto const& r) { return r.ranks.mean; })},
                             {"tokens_per_second", g.mean([](auto const& r) { return r.tokens_per_second(); })}});
  }
  return out;
}

/// Replaces the file when the new one is complete.
inline void write_results(std::string const& path, settings const& s, std::vector<trial_result> const& all) {
  if (path.empty()) return;
  std::filesystem::path const file{path};
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  llama::detail::replace_file(file, to_json(s, all).dump(1) + "\n");
}

}  // namespace adapting
