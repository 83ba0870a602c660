/// @file
/// The page of a run of PC-LoRA: a table of all trials, and how each way comes down.
#pragma once

#include <limits>

#include "llama/demo_page.hpp"
#include "llama/page_parts.hpp"
#include "pc_lora_trial.hpp"
#include "settings.hpp"

namespace adapting {

namespace detail {

[[nodiscard]] inline std::string share_removed(index_t left, index_t all) {
  return llama::decimal(100 * (1 - static_cast<double>(left) / static_cast<double>(all)), 1) + " %";
}

inline void write_pc_trials(std::ostream& out, std::vector<pc_result> const& all) {
  out << "<div>";
  llama::begin_table(out, {"way", "rank", "seed", "dense", "cut, untrained", "after", "features", "linear removed",
                           "model removed", "forward", "seconds"});
  for (auto const& r : all) {
    std::string const cells[] = {name(r.settings.way),
                                 std::to_string(r.settings.rank),
                                 std::to_string(r.settings.seed),
                                 llama::decimal(r.dense, 3),
                                 llama::decimal(r.before, 1),
                                 llama::decimal(r.after, 3),
                                 llama::decimal(r.features, 4),
                                 share_removed(r.parameters, r.dense_parameters),
                                 share_removed(r.finished_parameters, r.model_parameters),
                                 llama::decimal(r.tokens_per_second / r.dense_tokens_per_second, 2) + "x",
                                 llama::decimal(r.seconds, 0)};
    llama::write_row(out, cells);
  }
  out << "</table></div>";
}

/// A logarithmic axis where one curve is far above another.
[[nodiscard]] inline std::string perplexity_axis(std::vector<llama::curve> const& curves) {
  double least = std::numeric_limits<double>::max(), most = 0;
  for (auto const& c : curves)
    for (auto const& [x, y] : c.points) least = std::min(least, y), most = std::max(most, y);
  return most > 5 * least ? "set logscale y\n" : "";
}

}  // namespace detail

inline void write_pc_page(std::filesystem::path const& page, settings const& s, std::vector<pc_result> const& all) {
  auto const folder = page.has_parent_path() ? page.parent_path() : std::filesystem::path{"."};
  std::filesystem::create_directories(folder);
  std::vector<llama::curve> training, ranks;
  for (auto const& r : all) {
    if (r.settings.seed != all.front().settings.seed) continue;
    if (r.settings.rank == all.front().settings.rank) training.push_back({name(r.settings.way), r.curve});
    auto at = std::ranges::find(ranks, std::string{name(r.settings.way)}, &llama::curve::title);
    if (at == ranks.end()) at = ranks.insert(ranks.end(), {name(r.settings.way), {}});
    at->points.emplace_back(static_cast<double>(r.settings.rank), r.after);
  }
  std::vector<llama::detail::figure> figures{
      {"Held-out perplexity of the pairs and what is left of the base while training, rank " +
           std::to_string(all.front().settings.rank) + ", first seed",
       llama::plot(llama::draw({"step", "perplexity, held out", detail::perplexity_axis(training)}, training), folder,
                   "pc-steps")}};
  if (s.ranks.size() > 1)
    figures.push_back({"Held-out perplexity of the finished pairs against their rank, first seed",
                       llama::plot(llama::draw({"rank", "perplexity, held out", detail::perplexity_axis(ranks)}, ranks),
                                   folder, "pc-ranks")});
  std::ofstream out{page};
  llama::write_page_head(out, "lowrank: PC-LoRA", "Matrices that become narrow pairs");
  out << "<p>" << (s.pc_model == "demo" ? "The demo's model of bytes" : "SmolLM2-135M") << "; "
      << all.front().settings.steps << " steps of " << all.front().settings.batch << " x "
      << all.front().settings.length << " tokens; " << llama::detail::escaped(llama::processor_name()) << ".</p>";
  detail::write_pc_trials(out, all);
  for (auto const& f : figures)
    if (!f.svg.empty()) out << "<figure>" << f.svg << "<figcaption>" << f.caption << "</figcaption></figure>";
  out << "</html>\n";
}

}  // namespace adapting
