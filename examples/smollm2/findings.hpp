/// @file
/// Everything a run found out, as a table and as JSON.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>

#include "llama/demo_report.hpp"
#include "settings.hpp"
#include "study.hpp"

namespace smollm2 {

/// How the spectra of one matrix look.
struct spectrum_summary {
  std::string name;
  llama::role what{};
  index_t layer{};
  double share_for_90{}, share_for_99{};  ///< rank for that share of the energy, by min(m, n)
  double entropy_rank{};                  ///< by min(m, n)
};

struct findings {
  double dense_perplexity{}, load_seconds{}, spectra_seconds{}, calibration_seconds{};
  double evaluation_tokens_per_second{};
  index_t calibration_bytes{}, calibration_tokens{};
  std::vector<spectrum_summary> spectra;
  std::vector<compression_row> by_rank;        ///< budgets in ERR
  std::vector<compression_row> by_parameters;  ///< budgets in parameters removed
  std::vector<tuning_result> tuned;            ///< low-rank components alone and everything, in turn
  std::vector<tuning_result> larger_batch;     ///< low-rank components alone, in the memory that everything takes
  std::vector<tuning_result> control;          ///< the dense model, trained alike
  std::string file;                            ///< of the compressed model
  index_t file_bytes{};
  double pass_seconds{};
  std::vector<std::pair<std::string, std::string>> samples;  ///< heading, text
};

/// The learning rate at which a scope ends best, in the mean over the orders of the text.
struct best_tuning {
  double rate{}, perplexity{}, tokens_per_second{}, bytes{}, held_bytes{};
  index_t runs{}, batch{};
};
[[nodiscard]] inline best_tuning best_of(std::vector<tuning_result> const& all, tuning_scope scope) {
  best_tuning best;
  for (auto const& candidate : all) {
    if (candidate.settings.scope != scope) continue;
    best_tuning sum{.rate = candidate.settings.rate, .batch = candidate.settings.batch};
    for (auto const& r : all) {
      if (r.settings.scope != scope || r.settings.rate != sum.rate ||
          r.settings.optimizer != candidate.settings.optimizer)
        continue;
      sum.perplexity += r.after;
      sum.tokens_per_second += r.tokens_per_second();
      sum.bytes = static_cast<double>(r.gradient_bytes + r.optimizer_bytes);
      sum.held_bytes = static_cast<double>(r.held_bytes());
      ++sum.runs;
    }
    sum.perplexity /= static_cast<double>(sum.runs);
    sum.tokens_per_second /= static_cast<double>(sum.runs);
    if (best.runs == 0 || sum.perplexity < best.perplexity) best = sum;
  }
  return best;
}

/// An empty heading goes on with the table above.
inline void print_rows(char const* heading, std::vector<compression_row> const& rows) {
  if (rows.empty()) return;
  if (*heading != 0)
    std::printf("\n%-38s %8s %8s %8s %10s  %s\n", heading, "asked", "ERR", "kept", "perplexity",
                "low-rank q/k/v/o/gate/up/down");
  for (auto const& r : rows) {
    std::string kinds;
    for (auto const count : r.low_rank) kinds += (kinds.empty() ? "" : "/") + std::to_string(count);
    std::printf("%-38s %7.1f%% %7.1f%% %7.1f%% %10.4g  %s\n", r.method.c_str(), 100 * r.budget.removal,
                100 * r.rank_reduction, 100 * r.kept, r.perplexity, kinds.c_str());
  }
}
inline void print_tuned(char const* heading, std::vector<tuning_result> const& rows) {
  if (rows.empty()) return;
  if (*heading != 0)
    std::printf("\n%-22s %8s %5s %5s %8s %8s %9s %12s %12s %10s %12s %12s\n", heading, "rate", "order", "batch",
                "before", "after", "tokens/s", "trained", "grad+state", "opt share", "weights", "all held");
  for (auto const& r : rows)
    std::printf("%-22s %8.1e %5lu %5ld %8.2f %8.2f %9.1f %12ld %12s %9.1f%% %12s %12s\n",
                (std::string{name(r.settings.scope)} + " " + r.settings.optimizer +
                 (r.settings.frozen ? " over " + std::string{name(*r.settings.frozen)} : ""))
                    .c_str(),
                r.settings.rate, static_cast<unsigned long>(r.settings.seed), static_cast<long>(r.settings.batch),
                r.before, r.after, r.tokens_per_second(), static_cast<long>(r.trained),
                llama::mebibytes(r.gradient_bytes + r.optimizer_bytes).c_str(), 100 * r.optimizer_seconds / r.seconds(),
                llama::mebibytes(r.weight_bytes).c_str(), llama::mebibytes(r.held_bytes()).c_str());
}

[[nodiscard]] inline nlohmann::json to_json(settings const& s, findings const& f) {
  std::time_t const today = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&today));
  nlohmann::json out{{"machine", llama::processor_name()},
                     {"cores", std::thread::hardware_concurrency()},
                     {"date", date},
                     {"scored_windows", s.scored_windows},
                     {"calibration_windows", s.calibration_windows},
                     {"dense_perplexity", f.dense_perplexity},
                     {"evaluation_tokens_per_second", f.evaluation_tokens_per_second},
                     {"spectra_seconds", f.spectra_seconds},
                     {"calibration_seconds", f.calibration_seconds},
                     {"calibration_bytes", f.calibration_bytes},
                     {"pass_seconds", f.pass_seconds},
                     {"file_bytes", f.file_bytes}};
  auto const rows = [](std::vector<compression_row> const& all) {
    auto list = nlohmann::json::array();
    for (auto const& r : all) {
      nlohmann::json row{{"id", r.method + " " + llama::decimal(100 * r.budget.removal, 0)},
                         {"method", r.method},
                         {"asked", r.budget.removal},
                         {"rank_reduction", r.rank_reduction},
                         {"kept", r.kept},
                         {"perplexity", r.perplexity},
                         {"seconds", r.seconds},
                         {"low_rank", r.low_rank}};
      if (std::isfinite(r.threshold)) row["threshold"] = r.threshold;
      list.push_back(std::move(row));
    }
    return list;
  };
  out["by_rank"] = rows(f.by_rank);
  out["by_parameters"] = rows(f.by_parameters);
  auto const runs = [](std::vector<tuning_result> const& all) {
    auto list = nlohmann::json::array();
    for (auto const& r : all)
      list.push_back({{"scope", name(r.settings.scope)},
                      {"optimizer", r.settings.optimizer},
                      {"rate", r.settings.rate},
                      {"order", r.settings.seed},
                      {"steps", r.settings.steps},
                      {"batch", r.settings.batch},
                      {"before", r.before},
                      {"after", r.after},
                      {"tokens_per_second", r.tokens_per_second()},
                      {"forward_seconds", r.forward_seconds},
                      {"backward_seconds", r.backward_seconds},
                      {"optimizer_seconds", r.optimizer_seconds},
                      {"trained", r.trained},
                      {"frozen", r.settings.frozen ? name(*r.settings.frozen) : "as loaded"},
                      {"weight_bytes", r.weight_bytes},
                      {"gradient_bytes", r.gradient_bytes},
                      {"optimizer_bytes", r.optimizer_bytes},
                      {"activation_bytes", r.activation_bytes},
                      {"losses", r.losses},
                      {"curve", r.curve}});
    return list;
  };
  out["tuned"] = runs(f.tuned);
  out["larger_batch"] = runs(f.larger_batch);
  if (auto const lrc = best_of(f.tuned, tuning_scope::low_rank_components),
      full = best_of(f.tuned, tuning_scope::everything);
      lrc.runs > 0 && full.runs > 0)
    out["best"] = {{"lrc_perplexity", lrc.perplexity},
                   {"full_perplexity", full.perplexity},
                   {"perplexity_ratio", lrc.perplexity / full.perplexity},
                   {"lrc_rate", lrc.rate},
                   {"full_rate", full.rate},
                   {"speed_ratio", lrc.tokens_per_second / full.tokens_per_second},
                   {"bytes_ratio", lrc.bytes / full.bytes},
                   {"orders", lrc.runs}};
  if (auto const wide = best_of(f.larger_batch, tuning_scope::low_rank_components),
      full = best_of(f.tuned, tuning_scope::everything);
      wide.runs > 0 && full.runs > 0)
    out["best"]["same_memory"] = {{"batch", wide.batch},
                                  {"rate", wide.rate},
                                  {"perplexity", wide.perplexity},
                                  {"perplexity_ratio", wide.perplexity / full.perplexity},
                                  {"speed_ratio", wide.tokens_per_second / full.tokens_per_second},
                                  {"held_ratio", wide.held_bytes / full.held_bytes},
                                  {"orders", wide.runs}};
  out["control"] = runs(f.control);
  for (auto const& one : f.spectra)
    out["spectra"].push_back({{"name", one.name},
                              {"rank_for_90", one.share_for_90},
                              {"rank_for_99", one.share_for_99},
                              {"entropy_rank", one.entropy_rank}});
  return out;
}

}  // namespace smollm2
