/// @file
/// What methods came to, as tables and as JSON.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>

#include "basis/judgement.hpp"

namespace lowrank::bench {

namespace detail {

inline void print_heading(char const* title, std::vector<index_t> const& ranks, char const* more) {
  std::printf("%-26s", title);
  for (index_t const r : ranks) std::printf("   r = %-9ld", static_cast<long>(r));
  std::printf("%s\n", more);
}
inline void print_pair(distribution const& values) { std::printf("   %.4f/%.4f", values.least(), values.median()); }

[[nodiscard]] inline nlohmann::json to_json(distribution const& values) {
  return {{"min", values.least()}, {"median", values.median()}, {"each", values.each}};
}

}  // namespace detail

/// Which model it is, and what of it is looked at.
inline void print_subject(recorded_training const& training) {
  std::printf("%s, AdamW on all %ld parameters, %ld tokens a step\nwatched:", training.title().c_str(),
              static_cast<long>(training.model().flat().size()), static_cast<long>(training.tokens(batch_kind::whole)));
  for (auto const& matrix : training.watched()) {
    auto const shape = training.shape(matrix);
    std::printf(" %s %ldx%ld", matrix.name, static_cast<long>(shape.rows), static_cast<long>(shape.cols));
  }
  std::printf("\n");
}

inline void print_spectra(judgement const& judged) {
  std::printf("\nspectra (least .. most over matrices and stages)\n");
  std::printf("%-8s%18s%18s%18s%18s%18s\n", "tokens", "rank for 90 %", "for 99 %", "numerical rank", "top 16 hold",
              "top 128 hold");
  std::vector<index_t> batches;
  for (auto const& row : judged.spectra())
    if (std::find(batches.begin(), batches.end(), row.tokens) == batches.end()) batches.push_back(row.tokens);
  for (index_t const tokens : batches) {
    auto const print = [&](auto const& value, char const* format) {
      distribution all;
      for (auto const& row : judged.spectra())
        if (row.tokens == tokens) all.add(static_cast<double>(value(row.shape)));
      char text[32];
      std::snprintf(text, sizeof text, format, all.least(), all.most());
      std::printf("%18s", text);
    };
    std::printf("%-8ld", static_cast<long>(tokens));
    print([](auto const& s) { return s.rank_90; }, "%.0f .. %.0f");
    print([](auto const& s) { return s.rank_99; }, "%.0f .. %.0f");
    print([](auto const& s) { return s.numerical_rank; }, "%.0f .. %.0f");
    print([](auto const& s) { return s.top_16; }, "%.3f .. %.3f");
    print([](auto const& s) { return s.top_128; }, "%.3f .. %.3f");
    std::printf("\n");
  }
}

/// Rows of one method stand together, one for each rank.
inline void print_refreshes(judgement const& judged) {
  auto const& rows = judged.rows();
  auto const& ranks = judged.settings().ranks;
  for (std::size_t i = 0; i < rows.size(); i += ranks.size()) {
    bool const first = i == 0 || rows[i].lag != rows[i - 1].lag || rows[i].tokens != rows[i - 1].tokens;
    if (first) {
      std::printf("\n%ld tokens, P exact %ld step%s before: energy by the best of that rank (min/median)\n",
                  static_cast<long>(rows[i].tokens), static_cast<long>(rows[i].lag), rows[i].lag == 1 ? "" : "s");
      detail::print_heading("", ranks, "   orthonormal to   failures");
    }
    std::printf("%-26s", rows[i].method->title.c_str());
    double worst = 0;
    index_t failures = 0;
    for (std::size_t k = i; k < i + ranks.size(); ++k) {
      detail::print_pair(rows[k].of_best);
      worst = std::max(worst, rows[k].departure.most());
      failures += rows[k].failures;
    }
    std::printf("   %6.2f sqrt(r) eps%8ld\n", worst, static_cast<long>(failures));
  }
}

inline void print_every_step(judgement const& judged) {
  auto const& rows = judged.every_step_rows();
  auto const& settings = judged.settings();
  struct shown_quantity {
    char const* title;
    distribution every_step_row::*values;
  };
  for (std::size_t begin = 0; begin < rows.size();) {
    std::size_t end = begin;
    while (end < rows.size() && rows[end].tokens == rows[begin].tokens) ++end;
    std::printf("\n%ld tokens, P updated every step, mean of updates %ld to %ld (min/median)\n",
                static_cast<long>(rows[begin].tokens), static_cast<long>(settings.settle + 1),
                static_cast<long>(settings.run - 1));
    for (auto const& shown : {shown_quantity{"current, by the best", &every_step_row::current},
                              shown_quantity{"NEXT, by the best", &every_step_row::next},
                              shown_quantity{"NEXT, of all its energy", &every_step_row::next_of_all}}) {
      detail::print_heading(shown.title, settings.ranks, "");
      for (std::size_t i = begin; i < end; i += settings.ranks.size()) {
        std::printf("  %-24s", rows[i].method->title.c_str());
        for (std::size_t k = i; k < i + settings.ranks.size(); ++k) detail::print_pair(rows[k].*shown.values);
        std::printf("\n");
      }
    }
    begin = end;
  }
}

[[nodiscard]] inline nlohmann::json to_json(recorded_training const& training) {
  nlohmann::json out{{"model", training.title()}, {"loss", training.losses()}, {"watched", nlohmann::json::array()}};
  for (auto const& matrix : training.watched()) {
    auto const shape = training.shape(matrix);
    out["watched"].push_back({{"matrix", matrix.name}, {"rows", shape.rows}, {"cols", shape.cols}});
  }
  return out;
}

/// "each" lists stages, and the matrices of a stage, in the order of "samples"; where a method failed it is shorter.
[[nodiscard]] inline nlohmann::json to_json(judgement const& judged) {
  auto const& settings = judged.settings();
  nlohmann::json out{{"stages", settings.stages},          {"run", settings.run},
                     {"settle", settings.settle},          {"samples", nlohmann::json::array()},
                     {"spectra", nlohmann::json::array()}, {"rows", nlohmann::json::array()},
                     {"next", nlohmann::json::array()}};
  for (index_t const stage : settings.stages)
    for (auto const& watched : judged.watched())
      out["samples"].push_back("step" + std::to_string(stage) + "-" + watched.name);
  for (auto const& row : judged.spectra())
    out["spectra"].push_back({{"tokens", row.tokens},
                              {"stage", row.stage},
                              {"matrix", row.matrix},
                              {"rank_90", row.shape.rank_90},
                              {"rank_99", row.shape.rank_99},
                              {"numerical_rank", row.shape.numerical_rank},
                              {"top_16", row.shape.top_16},
                              {"top_128", row.shape.top_128}});
  for (auto const& row : judged.rows()) {
    auto entry = detail::to_json(row.of_best);
    entry.update({{"id", row.id}, {"departure", row.departure.most()}, {"failures", row.failures}});
    out["rows"].push_back(std::move(entry));
  }
  for (auto const& row : judged.every_step_rows())
    out["next"].push_back({{"id", row.id},
                           {"current", detail::to_json(row.current)},
                           {"next", detail::to_json(row.next)},
                           {"current_of_all", detail::to_json(row.current_of_all)},
                           {"next_of_all", detail::to_json(row.next_of_all)},
                           {"departure", row.departure.most()},
                           {"failures", row.failures}});
  return out;
}

}  // namespace lowrank::bench
