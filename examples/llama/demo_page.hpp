/// @file
/// The demo's page: tables, plots and samples of text.
#pragma once

#include "demo_plots.hpp"
#include "demo_report.hpp"
#include "page_parts.hpp"

namespace llama {

namespace detail {

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

/// Names for keys and tics: without the optimizer where all runs in a subspace have the same.
[[nodiscard]] inline std::vector<std::string> short_names(std::vector<run_result> const& runs) {
  std::vector<std::string> out;
  for (auto const& run : runs) {
    auto const& name = run.choice.name;
    bool const differ = std::any_of(runs.begin(), runs.end(), [&](auto const& other) {
      return other.choice.is_low_rank() && other.choice.optimizer != run.choice.optimizer;
    });
    auto const space = name.find(' ');
    out.push_back(differ || space == std::string::npos ? name : name.substr(space + 1));
  }
  return out;
}

struct figure {
  std::string caption, svg;
};

/// Three curves over the training, and bars of memory and time.
[[nodiscard]] inline std::vector<figure> figures(std::filesystem::path const& folder,
                                                 std::vector<run_result> const& runs) {
  std::vector<curve> by_step, by_second, captured;
  auto const names = short_names(runs);
  std::vector<bar_series> memory{
      {"weights", "#8c9bab", {}}, {"gradients", "#d9541e", {}}, {"optimizer", "#1f5fa8", {}}};
  std::vector<bar_series> time{{"model", "#8c9bab", {}}, {"optimizer", "#1f5fa8", {}}, {"new bases", "#d9541e", {}}};
  for (auto const& r : runs) {
    auto const& h = r.history;
    auto const& name = names[by_step.size()];
    for (auto* const each : {&by_step, &by_second, &captured}) each->push_back({name, {}});
    for (std::size_t k = 0; k < h.validation_loss.size(); ++k) {
      by_step.back().points.emplace_back(h.validation_step[k], h.validation_loss[k]);
      by_second.back().points.emplace_back(h.validation_seconds[k], h.validation_loss[k]);
    }
    for (std::size_t k = 0; k < h.captured.size(); ++k)
      if (h.captured[k] >= 0) captured.back().points.emplace_back(static_cast<double>(k), h.captured[k]);
    index_t const bytes[] = {r.weight_bytes, r.gradient_bytes, r.optimizer_bytes_counted};
    double const seconds[] = {r.training_seconds() - r.optimizer_seconds(), r.optimizer_seconds() - r.refresh_seconds(),
                              r.refresh_seconds()};
    for (std::size_t k = 0; k < 3; ++k) {
      memory[k].values.push_back(static_cast<double>(bytes[k]) / 1048576.0);
      time[k].values.push_back(seconds[k]);
    }
  }
  std::string const loss = "validation loss (nats a byte)";
  return {
      {"Validation loss over steps", plot(draw({"step", loss}, by_step), folder, "loss-steps")},
      {"Validation loss over seconds of training", plot(draw({"seconds", loss}, by_second), folder, "loss-seconds")},
      {"Memory by component", plot(draw_bars("MiB", names, memory, bar_layout::beside), folder, "memory")},
      {"Where the time of training went: passes through the model, the optimizer, and what new bases added to it",
       plot(draw_bars("seconds", names, time, bar_layout::stacked), folder, "time")},
      {"Energy of the gradient captured by the basis: when one is found, or in every step where the policy looks at "
       "it; mean over the matrices. More than 1 where a basis in codes is orthonormal only roughly",
       plot(draw({"step", "captured energy"}, captured), folder, "captured")}};
}

/// A table of the runs with bases: what each found, and what that cost.
inline void write_bases(std::ostream& out, demo_settings const& s, std::vector<run_result> const& runs) {
  if (std::none_of(runs.begin(), runs.end(), [](auto const& r) { return r.choice.is_low_rank(); })) return;
  out << "<h2>Bases and what they cost</h2>";
  begin_table(out, {"", "finder", "refresh", "moments", "rank", "bases found", "seconds", "ms each", "of the training",
                    "validation loss"});
  for (auto const& r : runs) {
    auto const& c = r.choice;
    if (!c.is_low_rank()) continue;
    double const count = r.refresh_count(), seconds = r.refresh_seconds(), all = r.training_seconds();
    std::string const cells[] = {escaped(c.name),
                                 c.finder,
                                 c.refresh + (c.gap > 0 ? " " + std::to_string(c.gap) : ""),
                                 c.transport,
                                 std::to_string(s.rank),
                                 decimal(count, 0),
                                 decimal(seconds, 2),
                                 count > 0 ? decimal(1000 * seconds / count, 2) : "-",
                                 all > 0 ? decimal(100 * seconds / all, 1) + " %" : "-",
                                 decimal(r.validation_loss, 4)};
    write_row(out, cells);
  }
  out << "</table>";
}

}  // namespace detail

/// report.html: the tables, plots of the curves, of the memory and of the time, and a sample of text from each run.
inline void write_page(std::filesystem::path const& page, demo_settings const& s, std::vector<run_result> const& runs) {
  auto const folder = page.has_parent_path() ? page.parent_path() : std::filesystem::path{"."};
  std::filesystem::create_directories(folder);
  auto const figures = detail::figures(folder, runs);
  std::ofstream out{page};
  write_page_head(out, "lowrank: training side by side", "The same model, trained side by side");
  out << "<p>" << runs.front().parameters << " parameters: width " << s.model.width << ", " << s.model.layers
      << " layers, feed-forward " << s.model.ffn << ", sequence " << s.model.sequence << "; " << s.steps << " steps of "
      << runs.front().tokens_per_step << " bytes of "
      << detail::escaped(std::filesystem::path{s.text}.filename().string()) << "; seed " << s.seed << "; "
      << detail::escaped(processor_name()) << ".</p><div><table><tr><th></th>";
  for (auto const& r : runs) out << "<th>" << detail::escaped(r.choice.name) << "</th>";
  out << "</tr>";
  for (auto const& row : report_rows()) {
    out << "<tr><td>" << row.heading << "</td>";
    for (auto const& r : runs) out << "<td>" << row.value(r) << "</td>";
    out << "</tr>";
  }
  out << "</table>";
  if (auto const note = note_on_weights(runs); !note.empty()) out << "<p>" << note << "</p>";
  detail::write_bases(out, s, runs);
  out << "</div>";
  for (auto const& f : figures)
    if (!f.svg.empty()) out << "<figure>" << f.svg << "<figcaption>" << f.caption << "</figcaption></figure>";
  if (figures.front().svg.empty()) out << "<p>No plots: gnuplot is not installed.</p>";
  for (auto const& r : runs)
    out << "<h2>Text from " << detail::escaped(r.choice.name) << "</h2><pre>" << detail::escaped(r.sample) << "</pre>";
  out << "</html>\n";
}

}  // namespace llama
