/// @file
/// The numbers of a demo as a table and as JSON.
#pragma once

#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "demo_settings.hpp"
#include "run_result.hpp"

namespace llama {

[[nodiscard]] inline std::string mebibytes(index_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f MiB", static_cast<double>(bytes) / 1048576.0);
  return text;
}
[[nodiscard]] inline std::string decimal(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// A young model writes any bytes; a terminal wants ASCII.
[[nodiscard]] inline std::string printable(std::string text) {
  for (char& c : text)
    if (c != '\n' && (c < 32 || c > 126)) c = '?';
  return text;
}

/// One line of the table: a heading and how to fill it for a run.
struct report_row {
  std::string heading;
  std::function<std::string(run_result const&)> value;
};

[[nodiscard]] inline std::vector<report_row> report_rows() {
  return {
      {"learning rate", [](auto const& r) { return decimal(r.learning_rate, 4); }},
      {"validation loss (nats a byte)", [](auto const& r) { return decimal(r.validation_loss, 4); }},
      {"perplexity", [](auto const& r) { return decimal(r.perplexity(), 3); }},
      {"weight bytes, as stored", [](auto const& r) { return mebibytes(r.weight_bytes); }},
      {"optimizer bytes, from the shapes", [](auto const& r) { return mebibytes(r.optimizer_bytes); }},
      {"optimizer bytes, as allocated", [](auto const& r) { return mebibytes(r.optimizer_bytes_counted); }},
      {"weights and optimizer", [](auto const& r) { return mebibytes(r.weight_bytes + r.optimizer_bytes); }},
      {"  optimizer of low-rank matrices",
       [](auto const& r) { return r.low_rank_bytes > 0 ? mebibytes(r.low_rank_bytes) : "-"; }},
      {"  as a share of AdamW's",
       [](auto const& r) {
         return r.low_rank_bytes > 0
                    ? decimal(static_cast<double>(r.low_rank_bytes) / static_cast<double>(r.low_rank_adamw_bytes), 3)
                    : "-";
       }},
      {"gradient bytes", [](auto const& r) { return mebibytes(r.gradient_bytes); }},
      {"peak resident memory", [](auto const& r) { return mebibytes(r.peak_rss); }},
      {"tokens/s", [](auto const& r) { return decimal(r.tokens_per_second(), 0); }},
      {"optimizer's share of the time", [](auto const& r) { return decimal(100 * r.optimizer_share(), 1) + " %"; }},
      {"bases found", [](auto const& r) { return decimal(r.refresh_count(), 0); }},
      {"  seconds they took",
       [](auto const& r) { return r.refresh_count() > 0 ? decimal(r.refresh_seconds(), 2) : "-"; }},
      {"weights with factored gradients", [](auto const& r) { return decimal(static_cast<double>(r.factored), 0); }},
  };
}

/// What "as stored" leaves out, where some run has int8 weights.
[[nodiscard]] inline std::string note_on_weights(std::vector<run_result> const& runs) {
  bool const any = std::any_of(runs.begin(), runs.end(), [](auto const& r) { return r.choice.has_int8_weights(); });
  return any ? "int8 weights: the codes are what is stepped, saved and counted; the model's passes read an fp32 copy "
               "of what "
               "they stand for, which is not counted."
             : "";
}

/// As many runs beside each other as fit a wide terminal; the optimizer over what is particular to the run.
inline void print_table(std::vector<run_result> const& runs) {
  constexpr std::size_t heading = 34, widest_line = 130;
  auto const parts = [](run_result const& run) {
    auto const& name = run.choice.name;
    auto const space = std::min(name.find(' '), name.size());
    return std::pair{name.substr(0, space), name.substr(std::min(space + 1, name.size()))};
  };
  std::size_t width = 16;
  for (auto const& run : runs) width = std::max({width, parts(run).first.size() + 2, parts(run).second.size() + 2});
  std::size_t const together = std::max<std::size_t>(1, (widest_line - heading) / width);
  for (std::size_t begin = 0; begin < runs.size(); begin += together) {
    auto const line = [&](std::string const& first, auto const& value) {
      std::printf("%-*s", static_cast<int>(heading), first.c_str());
      for (std::size_t k = begin; k < std::min(runs.size(), begin + together); ++k)
        std::printf("%*s", static_cast<int>(width), value(runs[k]).c_str());
      std::printf("\n");
    };
    std::printf("\n");
    line("", [&](auto const& run) { return parts(run).first; });
    if (std::any_of(runs.begin(), runs.end(), [&](auto const& run) { return !parts(run).second.empty(); }))
      line("", [&](auto const& run) { return parts(run).second; });
    for (auto const& row : report_rows()) line(row.heading, row.value);
  }
  if (auto const note = note_on_weights(runs); !note.empty()) std::printf("\n%s\n", note.c_str());
}

[[nodiscard]] inline std::string processor_name() {
  std::ifstream info{"/proc/cpuinfo"};
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

[[nodiscard]] inline nlohmann::json to_json(demo_settings const& s, std::vector<run_result> const& runs) {
  std::time_t const today = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&today));
  nlohmann::json out{{"machine", processor_name()},
                     {"cores", std::thread::hardware_concurrency()},
                     {"date", date},
                     {"settings",
                      {{"steps", s.steps},
                       {"batch", s.batch},
                       {"micro_batches", s.micro_batches},
                       {"seed", s.seed},
                       {"threads", s.threads},
                       {"width", s.model.width},
                       {"layers", s.model.layers},
                       {"heads", s.model.heads},
                       {"kv_heads", s.model.kv_heads},
                       {"ffn", s.model.ffn},
                       {"sequence", s.model.sequence},
                       {"rank", s.rank},
                       {"gap", s.gaps},
                       {"scale", s.scale},
                       {"finder", s.finders},
                       {"refresh", s.refreshes},
                       {"transport", s.transports},
                       {"rounding", s.roundings},
                       {"galore_options", s.galore_options},
                       {"warmup", s.warmup},
                       {"floor", s.floor},
                       {"clip", s.clip},
                       {"backend", s.products == backend::blas ? "blas" : "eigen"}}},
                     {"runs", nlohmann::json::array()}};
  for (auto const& r : runs) {
    nlohmann::json run{{"name", r.choice.name},
                       {"optimizer", r.choice.optimizer},
                       {"learning_rate", r.learning_rate},
                       {"validation_loss", r.validation_loss},
                       {"perplexity", r.perplexity()},
                       {"parameters", r.parameters},
                       {"tokens_per_second", r.tokens_per_second()},
                       {"training_seconds", r.training_seconds()},
                       {"optimizer_share", r.optimizer_share()},
                       {"optimizer_bytes", r.optimizer_bytes_counted},
                       {"optimizer_bytes_predicted", r.optimizer_bytes},
                       {"optimizer_bytes_low_rank", r.low_rank_bytes},
                       {"optimizer_bytes_low_rank_adamw", r.low_rank_adamw_bytes},
                       {"weight_bytes", r.weight_bytes},
                       {"gradient_bytes", r.gradient_bytes},
                       {"activation_bytes", r.activation_bytes},
                       {"workspace_bytes", r.workspace_bytes},
                       {"peak_rss", r.peak_rss},
                       {"refreshes", r.refresh_count()},
                       {"refresh_seconds", r.refresh_seconds()},
                       {"factored_weights", r.factored}};
    if (r.choice.is_low_rank()) {
      run["rank"] = s.rank;
      run["finder"] = r.choice.finder;
      run["refresh"] = r.choice.refresh;
      run["transport"] = r.choice.transport;
      if (r.choice.gap > 0) run["gap"] = r.choice.gap;
      if (r.choice.has_int8_weights()) run["rounding"] = r.choice.rounding;
    }
    run_history::visit(r.history,
                       [&](std::string const& name, std::vector<float> const& curve) { run["history"][name] = curve; });
    out["runs"].push_back(std::move(run));
  }
  return out;
}

}  // namespace llama
