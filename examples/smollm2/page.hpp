/// @file
/// The run's page: tables, pictures, samples of text.
#pragma once

#include <filesystem>
#include <map>
#include <optional>

#include "findings.hpp"
#include "llama/demo_page.hpp"
#include "llama/page_parts.hpp"

namespace smollm2 {

namespace detail {

/// A colour for each layer (down) and kind (across).
[[nodiscard]] inline llama::drawing heat_map(std::string const& label, index_t layers,
                                             std::function<double(index_t layer, std::size_t kind)> const& value) {
  std::string tics, data = "$m << EOD\n";
  for (std::size_t k = 0; k < kind_names.size(); ++k)
    tics += (k == 0 ? "'" : ", '") + std::string{kind_names[k]} + "' " + std::to_string(k);
  for (index_t l = 0; l < layers; ++l)
    for (std::size_t k = 0; k < kind_names.size(); ++k)
      data += std::to_string(k) + " " + std::to_string(l) + " " + std::to_string(value(l, k)) + "\n";
  data += "EOD\n";
  return {"set cblabel '" + label + "'\nset xtics scale 0 (" + tics +
              ")\nset ylabel 'layer'\nset yrange [-0.5:" + std::to_string(layers) +
              "-0.5] reverse\nset xrange [-0.5:6.5]\nunset grid\nunset key\nset cbrange [0:1]\n"
              "set palette defined (0 '#1f5fa8', 0.5 '#f2f0e6', 1 '#d9541e')\n" +
              data + "plot $m using 1:2:3 with image\n",
          560};
}

/// Perplexity against what is stored, on a logarithmic scale, one curve a method.
[[nodiscard]] inline llama::drawing trade_off(findings const& f) {
  std::vector<llama::curve> curves;
  auto const add = [&](std::vector<compression_row> const& rows) {
    for (auto const& r : rows) {
      auto found = std::ranges::find(curves, r.method, &llama::curve::title);
      if (found == curves.end()) {
        curves.push_back({r.method, {{100.0, f.dense_perplexity}}});
        found = curves.end() - 1;
      }
      if (r.perplexity < 1e4) found->points.emplace_back(100 * r.kept, r.perplexity);
    }
  };
  add(f.by_parameters);
  add(f.by_rank);
  std::erase_if(curves, [](auto const& c) { return c.points.size() < 2; });
  for (auto& c : curves) std::ranges::sort(c.points);
  return llama::draw({"linear parameters kept (%)", "perplexity (below 10 000)", "set logscale y\n"}, curves);
}

/// Runs that differ in the order of the text only, as one curve: means, and standard errors as bars.
[[nodiscard]] inline llama::curve mean_curve(std::string title, std::vector<tuning_result const*> const& orders) {
  llama::curve out{std::move(title), orders.front()->curve};
  auto const count = static_cast<double>(orders.size());
  for (std::size_t k = 0; k < out.points.size(); ++k) {
    double seconds = 0, sum = 0, squares = 0;
    for (auto const* r : orders) seconds += r->curve[k].first / count, sum += r->curve[k].second / count;
    for (auto const* r : orders) squares += (r->curve[k].second - sum) * (r->curve[k].second - sum);
    out.points[k] = {seconds, sum};
    out.errors.push_back(count > 1 ? std::sqrt(squares / (count - 1) / count) : 0);
  }
  return out;
}

/// One curve for each scope, optimizer and batch: at the rate that ends best, in the mean over the orders of the text.
[[nodiscard]] inline llama::drawing tuning_curves(findings const& f) {
  std::vector<llama::curve> curves;
  for (auto const* const all : {&f.tuned, &f.larger_batch, &f.control}) {
    std::map<std::string, std::map<double, std::vector<tuning_result const*>>> kinds;
    for (auto const& r : *all)
      kinds[std::string{all == &f.control ? "dense, " : ""} + name(r.settings.scope) + " " + r.settings.optimizer +
            ", batch " + std::to_string(r.settings.batch)][r.settings.rate]
          .push_back(&r);
    for (auto const& [title, rates] : kinds) {
      std::optional<llama::curve> best;
      for (auto const& [rate, orders] : rates) {
        char text[16];
        std::snprintf(text, sizeof text, ", %.1e", rate);
        auto one = mean_curve(title + text, orders);
        if (!best || one.points.back().second < best->points.back().second) best = std::move(one);
      }
      curves.push_back(std::move(*best));
    }
  }
  return llama::draw({"seconds of training", "perplexity", "set logscale y\n"}, curves);
}

inline void write_rows(std::ostream& out, std::string const& heading, std::vector<compression_row> const& rows) {
  if (rows.empty()) return;
  out << "<h2>" << heading << "</h2><div><table><tr><th>method</th><th>asked</th><th>rank reduction</th><th>kept</th>"
      << "<th>perplexity</th><th>seconds</th>";
  for (auto const* kind : kind_names) out << "<th>" << kind << "</th>";
  out << "</tr>";
  for (auto const& r : rows) {
    char perplexity[32];
    std::snprintf(perplexity, sizeof perplexity, r.perplexity < 1e4 ? "%.2f" : "%.2g", r.perplexity);
    out << "<tr><td>" << r.method << "</td><td>" << llama::decimal(100 * r.budget.removal, 0) << " %</td><td>"
        << llama::decimal(100 * r.rank_reduction, 1) << " %</td><td>" << llama::decimal(100 * r.kept, 1)
        << " %</td><td>" << perplexity << "</td><td>" << llama::decimal(r.seconds, 1) << "</td>";
    for (auto const count : r.low_rank) out << "<td>" << count << "</td>";
    out << "</tr>";
  }
  out << "</table></div>";
}
inline void write_tuned(std::ostream& out, std::string const& heading, std::vector<tuning_result> const& rows) {
  if (rows.empty()) return;
  out << "<h2>" << heading << "</h2><div>";
  llama::begin_table(out, {"scope", "optimizer", "rate", "order", "batch", "before", "after", "tokens/s", "forward s",
                           "backward s", "optimizer s", "trained", "gradients", "states", "activations", "all held"});
  for (auto const& r : rows) {
    char rate[16];
    std::snprintf(rate, sizeof rate, "%.0e", r.settings.rate);
    out << "<tr><td>" << name(r.settings.scope) << "</td><td>" << r.settings.optimizer << "</td><td>" << rate
        << "</td><td>" << r.settings.seed << "</td><td>" << r.settings.batch << "</td><td>"
        << llama::decimal(r.before, 2) << "</td><td>" << llama::decimal(r.after, 2) << "</td><td>"
        << llama::decimal(r.tokens_per_second(), 1) << "</td><td>" << llama::decimal(r.forward_seconds, 1)
        << "</td><td>" << llama::decimal(r.backward_seconds, 1) << "</td><td>" << llama::decimal(r.optimizer_seconds, 1)
        << "</td><td>" << r.trained << "</td><td>" << llama::mebibytes(r.gradient_bytes) << "</td><td>"
        << llama::mebibytes(r.optimizer_bytes) << "</td><td>" << llama::mebibytes(r.activation_bytes) << "</td><td>"
        << llama::mebibytes(r.held_bytes()) << "</td></tr>";
  }
  out << "</table></div>";
}

}  // namespace detail

inline void write_page(std::filesystem::path const& page, settings const& s, findings const& f,
                       linear_weights const& weights) {
  auto const folder = page.has_parent_path() ? page.parent_path() : std::filesystem::path{"."};
  std::filesystem::create_directories(folder);
  index_t layers = 0;
  for (auto const& one : f.spectra) layers = std::max(layers, one.layer + 1);
  std::vector<std::pair<std::string, std::string>> figures;
  auto const figure = [&](std::string caption, llama::drawing const& what, std::string const& file) {
    figures.emplace_back(std::move(caption), llama::plot(what, folder, file));
  };
  auto const of_spectra = [&](double spectrum_summary::*what) {
    return [&f, what](index_t layer, std::size_t kind) {
      for (auto const& one : f.spectra)
        if (one.layer == layer && static_cast<std::size_t>(one.what) == kind) return one.*what;
      return 0.0;
    };
  };
  figure("Perplexity against the share of linear parameters that is stored", detail::trade_off(f), "trade-off");
  figure("Spectra: rank that holds 90 % of the energy, by the shorter side",
         detail::heat_map("rank for 90 % of the energy", layers, of_spectra(&spectrum_summary::share_for_90)),
         "spectra");
  auto const ranks_of = [&](compression_row const& row) {
    return [&weights, &row](index_t layer, std::size_t kind) {
      for (std::size_t i = 0; i < weights.size(); ++i)
        if (weights[i].layer == layer && static_cast<std::size_t>(weights[i].what) == kind)
          return static_cast<double>(row.ranks[i]) /
                 static_cast<double>(std::min(weights[i].shape.rows, weights[i].shape.cols));
      return 0.0;
    };
  };
  for (auto const* const rows : {&f.by_rank, &f.by_parameters})
    if (!rows->empty()) {
      auto const& row = rows->back();
      figure("Ranks that \"" + row.method + "\" chose for " + llama::decimal(100 * row.budget.removal, 0) + " %",
             detail::heat_map("rank kept, by the shorter side", layers, ranks_of(row)),
             rows == &f.by_rank ? "ranks-welore" : "ranks-best");
    }
  figure("Fine-tuning: perplexity over seconds of training, each at its best rate; mean over the orders of the text",
         detail::tuning_curves(f), "tuning");

  std::ofstream out{page};
  llama::write_page_head(out, "lowrank: compressing a language model", "SmolLM2-135M at low rank");
  out << "<p>" << s.scored_windows << " windows of 512 tokens of " << s.scored << " are scored, dense perplexity "
      << llama::decimal(f.dense_perplexity, 2) << "; " << f.calibration_tokens << " tokens of " << s.seen
      << " calibrate, " << s.trained << " trains; " << llama::detail::escaped(llama::processor_name())
      << ". Spectra of " << f.spectra.size() << " matrices: " << llama::decimal(f.spectra_seconds, 1)
      << " s; calibration " << llama::decimal(f.calibration_seconds, 1) << " s.</p>";
  detail::write_rows(out, "Budgets in ranks: without data, and with it", f.by_rank);
  detail::write_rows(out, "Budgets in parameters", f.by_parameters);
  detail::write_tuned(out, "Fine-tuning the compressed model", f.tuned);
  detail::write_tuned(out, "Low-rank components alone, with the batch that the memory of everything holds",
                      f.larger_batch);
  detail::write_tuned(out, "The dense model trained alike", f.control);
  for (auto const& [caption, svg] : figures)
    if (!svg.empty()) out << "<figure>" << svg << "<figcaption>" << caption << "</figcaption></figure>";
  for (auto const& [heading, text] : f.samples)
    out << "<h2>" << heading << "</h2><pre>" << llama::detail::escaped(text) << "</pre>";
  out << "</html>\n";
}

}  // namespace smollm2
