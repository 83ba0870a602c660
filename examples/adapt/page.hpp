/// @file
/// The run's page: a table of all trials, and pictures of what they say.
#pragma once

#include "findings.hpp"
#include "llama/demo_page.hpp"
#include "llama/page_parts.hpp"

namespace adapting {

namespace detail {

/// One curve for each method, and for each format of the base and number of samples where there are several.
[[nodiscard]] inline std::vector<llama::curve> curves_of(std::vector<trial_group> const& groups,
                                                         std::function<double(trial_group const&)> const& x,
                                                         std::function<double(trial_result const&)> const& y) {
  bool const bases = std::ranges::any_of(
      groups, [&](auto const& g) { return base_label(g.settings) != base_label(groups.front().settings); });
  bool const samples =
      std::ranges::any_of(groups, [&](auto const& g) { return g.settings.samples != groups.front().settings.samples; });
  bool const rates = std::ranges::any_of(groups, [&](auto const& g) {
    return std::ranges::any_of(groups, [&](auto const& h) {
      return g.settings.method == h.settings.method && g.settings.rate != h.settings.rate;
    });
  });
  struct point {
    double x, y, error;
  };
  std::vector<std::pair<std::string, std::vector<point>>> found;
  for (auto const& g : groups) {
    auto const& t = g.settings;
    std::string title = t.method;
    if (bases) title += " " + base_label(t);
    if (samples) title += ", " + std::to_string(t.samples) + " samples";
    if (rates) title += ", " + llama::decimal(1e4 * t.rate, 1) + "e-4";
    auto at = std::ranges::find_if(found, [&](auto const& c) { return c.first == title; });
    if (at == found.end()) at = found.insert(found.end(), {title, {}});
    at->second.push_back({x(g), g.mean(y), g.error(y)});
  }
  std::vector<llama::curve> out;
  for (auto& [title, points] : found) {
    std::ranges::sort(points, {}, &point::x);
    llama::curve one{title, {}};
    for (auto const& p : points) {
      one.points.emplace_back(p.x, p.y);
      one.errors.push_back(p.error);
    }
    out.push_back(std::move(one));
  }
  return out;
}

inline void write_trials(std::ostream& out, std::vector<trial_group> const& groups) {
  out << "<div>";
  llama::begin_table(out, {"method",        "rank",      "base",      "rule",     "rate",
                           "samples",       "steps",     "seeds",     "before",   "after",
                           "± s.e.",        "best",      "trained",   "on disk",  "frozen linear weights",
                           "whole base",    "gradients", "optimizer", "tokens/s", "learnt rank",
                           "learnt nothing"});
  auto const after = [](auto const& r) { return r.after; };
  for (auto const& g : groups) {
    auto const& t = g.settings;
    auto const& first = *g.trials.front();
    char rate[16];
    std::snprintf(rate, sizeof rate, "%.1e", t.rate);
    std::string const cells[] = {t.method,
                                 std::to_string(t.rank),
                                 base_label(t),
                                 t.rule,
                                 rate,
                                 std::to_string(t.samples),
                                 std::to_string(t.steps),
                                 std::to_string(g.trials.size()),
                                 llama::decimal(g.mean([](auto const& r) { return r.before; }), 3),
                                 llama::decimal(g.mean(after), 3),
                                 llama::decimal(g.error(after), 3),
                                 llama::decimal(g.mean([](auto const& r) { return r.best; }), 3),
                                 std::to_string(first.parameters),
                                 llama::mebibytes(first.file_bytes),
                                 llama::mebibytes(first.linear_bytes),
                                 llama::mebibytes(first.base_bytes),
                                 llama::mebibytes(first.gradient_bytes),
                                 llama::mebibytes(first.optimizer_bytes),
                                 llama::decimal(g.mean([](auto const& r) { return r.tokens_per_second(); }), 0),
                                 llama::decimal(g.mean([](auto const& r) { return r.ranks.mean; }), 2),
                                 llama::decimal(g.mean([](auto const& r) { return r.ranks.zero; }), 1) + " of " +
                                     std::to_string(first.ranks.count)};
    llama::write_row(out, cells);
  }
  out << "</table></div>";
}

}  // namespace detail

inline void write_page(std::filesystem::path const& page, settings const& s, std::vector<trial_result> const& all) {
  if (all.empty()) return;
  auto const folder = page.has_parent_path() ? page.parent_path() : std::filesystem::path{"."};
  std::filesystem::create_directories(folder);
  auto const groups = grouped(all);
  std::vector<llama::detail::figure> figures;
  auto const figure = [&](std::string caption, llama::plot_axes const& axes, std::vector<llama::curve> const& curves,
                          std::string const& file) {
    if (std::ranges::any_of(curves, [](auto const& c) { return c.points.size() > 1; }))
      figures.push_back({std::move(caption), llama::plot(llama::draw(axes, curves), folder, file)});
  };
  auto const after = [](trial_result const& r) { return r.after; };
  auto const rank = [](trial_group const& g) { return static_cast<double>(g.settings.rank); };
  std::string const held_out = "perplexity, held out";
  figure("Held-out perplexity against rank; bars are standard errors over seeds",
         {"rank", held_out, "set logscale x 2\n"}, detail::curves_of(groups, rank, after), "rank");
  figure("Held-out perplexity against what is trained", {"KiB trained", held_out, "set logscale x 10\n"},
         detail::curves_of(
             groups, [](auto const& g) { return static_cast<double>(g.trials.front()->trained_bytes) / 1024; }, after),
         "bytes");
  figure("Directions learnt, in the mean over the matrices, against rank",
         {"rank", "singular values above 1 % of the largest", "set logscale x 2\nset logscale y 2\n"},
         detail::curves_of(groups, rank, [](auto const& r) { return std::max(r.ranks.mean, 0.1); }), "learnt");
  std::vector<llama::curve> curves;
  for (auto const& g : groups)
    if (g.settings.rank == groups.front().settings.rank && g.settings.samples == groups.front().settings.samples)
      curves.push_back({g.settings.method + " " + base_label(g.settings) +
                            (s.rates.size() > 1 ? " " + llama::decimal(1e4 * g.settings.rate, 1) + "e-4" : ""),
                        g.trials.front()->curve});
  figure("Held-out perplexity while training, rank " + std::to_string(groups.front().settings.rank) + ", first seed",
         {"step", held_out}, curves, "steps");

  std::ofstream out{page};
  llama::write_page_head(out, "lowrank: adapters", "SmolLM2-135M fine-tuned by adapters");
  out << "<p>" << s.scored_windows << " windows of " << s.scored_length << " tokens of " << s.scored << " are scored, "
      << s.trained << " trains; perplexity of the model as published " << llama::decimal(all.front().base, 3) << "; "
      << llama::detail::escaped(llama::processor_name()) << ".</p>";
  detail::write_trials(out, groups);
  for (auto const& [caption, svg] : figures)
    if (!svg.empty()) out << "<figure>" << svg << "<figcaption>" << caption << "</figcaption></figure>";
  out << "</html>\n";
}

}  // namespace adapting
