/// @file
/// The numbers of a demo as a table, as JSON, and as a page with plots.
#pragma once

#include <cstdio>
#include <ctime>
#include <filesystem>
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
      {"optimizer bytes, from the shapes", [](auto const& r) { return mebibytes(r.optimizer_bytes); }},
      {"optimizer bytes, as allocated", [](auto const& r) { return mebibytes(r.optimizer_bytes_counted); }},
      {"  of the low-rank matrices",
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

inline void print_table(std::vector<run_result> const& runs) {
  std::printf("\n%-34s", "");
  for (auto const& run : runs) std::printf("%16s", run.name.c_str());
  std::printf("\n");
  for (auto const& row : report_rows()) {
    std::printf("%-34s", row.heading.c_str());
    for (auto const& run : runs) std::printf("%16s", row.value(run).c_str());
    std::printf("\n");
  }
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
                       {"gap", s.gap},
                       {"scale", s.scale},
                       {"finder", s.finder},
                       {"warmup", s.warmup},
                       {"floor", s.floor},
                       {"clip", s.clip},
                       {"backend", s.products == backend::blas ? "blas" : "eigen"}}},
                     {"runs", nlohmann::json::array()}};
  for (auto const& r : runs) {
    nlohmann::json run{{"name", r.name},
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
    run_history::visit(r.history,
                       [&](std::string const& name, std::vector<float> const& curve) { run["history"][name] = curve; });
    out["runs"].push_back(std::move(run));
  }
  return out;
}

/// A gnuplot picture as SVG text; empty where gnuplot is missing or fails.
[[nodiscard]] inline std::string plot(std::string const& commands, std::filesystem::path const& folder,
                                      std::string const& name) {
  auto const script = folder / (name + ".gp"), picture = folder / (name + ".svg");
  std::ofstream{script} << "set terminal svg size 640,400 font 'sans,12' background '#ffffff' noenhanced\nset output '"
                        << picture.string() << "'\nset grid lc '#dddddd'\nset border 3\nset tics nomirror\n"
                        << commands;
  std::filesystem::remove(picture);
  if (std::system(("gnuplot '" + script.string() + "' 2>/dev/null").c_str()) != 0) return {};
  std::ifstream in{picture};
  std::string svg{std::istreambuf_iterator<char>{in}, {}};
  auto const begin = svg.find("<svg");
  return begin == std::string::npos ? std::string{} : svg.substr(begin);
}

namespace detail {

inline constexpr char const* colours[] = {"#1f5fa8", "#d9541e", "#2f8f4e", "#8a4fa3"};

/// One curve: title, and its points as pairs.
struct curve {
  std::string title;
  std::vector<std::pair<double, double>> points;
};
[[nodiscard]] inline std::string lines(std::vector<curve> const& curves, std::string const& style) {
  std::string data, plotted;
  for (std::size_t k = 0; k < curves.size(); ++k) {
    if (curves[k].points.empty()) continue;
    data += "$c" + std::to_string(k) + " << EOD\n";
    for (auto const& [x, y] : curves[k].points) data += std::to_string(x) + " " + std::to_string(y) + "\n";
    data += "EOD\n";
    plotted += (plotted.empty() ? "plot " : ", ") + std::string{"$c"} + std::to_string(k) + " using 1:2 with " + style +
               " lw 2 lc rgb '" + colours[k % 4] + "' title '" + curves[k].title + "' noenhanced";
  }
  return plotted.empty() ? std::string{} : data + plotted + "\n";
}
[[nodiscard]] inline std::string escaped(std::string const& text) {
  std::string out;
  for (char const c : printable(text)) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else out += c;
  }
  return out;
}

}  // namespace detail

/// report.html: the table, plots of the curves and of the memory, and a sample of text from each run.
inline void write_page(std::filesystem::path const& page, demo_settings const& s, std::vector<run_result> const& runs) {
  std::vector<detail::curve> by_step, by_second, captured;
  for (auto const& r : runs) {
    auto const& h = r.history;
    by_step.push_back({r.name, {}});
    by_second.push_back({r.name, {}});
    captured.push_back({r.name, {}});
    for (std::size_t k = 0; k < h.validation_loss.size(); ++k) {
      by_step.back().points.emplace_back(h.validation_step[k], h.validation_loss[k]);
      by_second.back().points.emplace_back(h.validation_seconds[k], h.validation_loss[k]);
    }
    for (std::size_t k = 0; k < h.captured.size(); ++k)
      if (h.captured[k] >= 0) captured.back().points.emplace_back(static_cast<double>(k), h.captured[k]);
  }
  std::string bars = "$memory << EOD\n";
  for (auto const& r : runs)
    bars += r.name + " " + std::to_string(static_cast<double>(r.weight_bytes) / 1048576.0) + " " +
            std::to_string(static_cast<double>(r.gradient_bytes) / 1048576.0) + " " +
            std::to_string(static_cast<double>(r.optimizer_bytes_counted) / 1048576.0) + "\n";
  bars +=
      "EOD\nset style data histograms\nset style histogram cluster gap 1\nset style fill solid 0.9 border -1\nset "
      "boxwidth 0.9\n"
      "set ylabel 'MiB'\nset yrange [0:*]\nplot $memory using 2:xtic(1) lc rgb '#8c9bab' title 'weights', "
      "'' using 3 lc rgb '#d9541e' title 'gradients', '' using 4 lc rgb '#1f5fa8' title 'optimizer'\n";
  auto const folder = page.has_parent_path() ? page.parent_path() : std::filesystem::path{"."};
  std::filesystem::create_directories(folder);
  auto const loss_axes = [](char const* x) {
    return std::string{"set xlabel '"} + x + "'\nset ylabel 'validation loss (nats a byte)'\n";
  };
  struct figure {
    std::string caption, svg;
  };
  std::vector<figure> const figures{
      {"Validation loss over steps",
       plot(loss_axes("step") + detail::lines(by_step, "linespoints pt 7 ps 0.4"), folder, "loss-steps")},
      {"Validation loss over seconds of training",
       plot(loss_axes("seconds") + detail::lines(by_second, "linespoints pt 7 ps 0.4"), folder, "loss-seconds")},
      {"Memory by component", plot(bars, folder, "memory")},
      {"Energy of the gradient captured by each new basis, mean over the matrices",
       plot("set xlabel 'step'\nset ylabel 'captured energy'\nset yrange [*:1]\n" +
                detail::lines(captured, "linespoints pt 7 ps 0.5"),
            folder, "captured")}};

  std::ofstream out{page};
  out << "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>lowrank: training side by "
         "side</title><style>body{font:15px/1.5 sans-serif;"
         "max-width:1340px;margin:2em auto;padding:0 1em;color:#222}table{border-collapse:collapse}td,th{padding:.25em "
         "1em;border-bottom:1px solid "
         "#ddd;text-align:right}td:first-child{text-align:left}figure{display:inline-block;margin:1em 1em 1em "
         "0}figcaption{font-weight:600}"
         "pre{background:#f6f6f4;padding:1em;white-space:pre-wrap}</style><h1>The same model, trained side by "
         "side</h1><p>"
      << runs.front().parameters << " parameters: width " << s.model.width << ", " << s.model.layers
      << " layers, feed-forward " << s.model.ffn << ", sequence " << s.model.sequence << "; " << s.steps << " steps of "
      << runs.front().tokens_per_step << " bytes of "
      << detail::escaped(std::filesystem::path{s.text}.filename().string()) << "; seed " << s.seed << "; "
      << detail::escaped(processor_name()) << ".</p><table><tr><th></th>";
  for (auto const& r : runs) out << "<th>" << detail::escaped(r.name) << "</th>";
  out << "</tr>";
  for (auto const& row : report_rows()) {
    out << "<tr><td>" << row.heading << "</td>";
    for (auto const& r : runs) out << "<td>" << row.value(r) << "</td>";
    out << "</tr>";
  }
  out << "</table>";
  for (auto const& f : figures)
    if (!f.svg.empty()) out << "<figure>" << f.svg << "<figcaption>" << f.caption << "</figcaption></figure>";
  if (figures.front().svg.empty()) out << "<p>No plots: gnuplot is not installed.</p>";
  for (auto const& r : runs)
    out << "<h2>Text from " << detail::escaped(r.name) << "</h2><pre>" << detail::escaped(r.sample) << "</pre>";
  out << "</html>\n";
}

}  // namespace llama
