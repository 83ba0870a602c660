/// @file
/// Ranks that another implementation chose for the model, from its spectra alone.
#pragma once

#include <nlohmann/json.hpp>

#include "comparison.hpp"
#include "lowrank/rank/sensitivity.hpp"
#include "lowrank/rank/uniform.hpp"
#include "lowrank/rank/welore.hpp"
#include "sha256.hpp"
#include "study.hpp"

namespace smollm2 {

namespace detail {

inline constexpr std::array<char const*, llama::linear_roles> gguf_kinds{"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                                         "ffn_gate", "ffn_up", "ffn_down"};

[[nodiscard]] inline std::string hash_of_ranks(std::vector<index_t> const& ranks) {
  std::vector<std::int32_t> const words(ranks.begin(), ranks.end());
  return sha256(std::span<std::int32_t const>{words});
}

}  // namespace detail

/// WeLore's rows: thresholds, ranks, low-rank components by kind, parameters.  `spectra`: of all linear weights, in their order.
inline void compare_welore(comparison& table, nlohmann::json const& rows, std::span<lowrank::spectrum const> spectra) {
  for (auto const& row : rows) {
    auto const rule = row["rule"].get<std::string>();
    lowrank::rank_budget const budget{row["err_requested"].get<double>(), lowrank::budget_unit::rank};
    auto const found = rule == "uniform" ? lowrank::ranks::uniform{}.allocate(spectra, budget)
                                         : lowrank::ranks::welore{.gate = rule == "welore_g0" ? 0.0 : 0.4999}.allocate(
                                               spectra, budget);
    table.equal("ranks of WeLore and uniform (SHA-256)", detail::hash_of_ranks(found.ranks),
                row["ranks_sha256"].get<std::string>());
    table.within("effective rank reductions", found.reached, row["err_reached"].get<double>(), 1e-12);
    if (!row["threshold"].is_null()) table.within("thresholds", found.threshold, row["threshold"].get<double>(), 1e-9);
    table.equal("linear parameters kept", found.parameters, row["linear_params_kept"].get<index_t>());
    std::array<index_t, llama::linear_roles> components{}, cut{};
    for (std::size_t i = 0; i < spectra.size(); ++i) {
      components[i % components.size()] += lowrank::is_low_rank_component(spectra[i].shape, found.ranks[i]) ? 1 : 0;
      cut[i % cut.size()] += found.ranks[i] < spectra[i].length() ? 1 : 0;
    }
    for (std::size_t kind = 0; kind < components.size(); ++kind) {
      auto const* const name = detail::gguf_kinds[kind];
      table.equal("matrices cut, low-rank components by kind", components[kind],
                  row["lrc_per_kind"][name].get<index_t>());
      table.equal("matrices cut, low-rank components by kind", cut[kind], row["cut_per_kind"][name].get<index_t>());
    }
  }
}

/// Budgets in parameters: uniform ranks, and those of recorded sensitivities of the kinds.
inline void compare_parameter_budgets(comparison& table, nlohmann::json const& recorded,
                                      std::span<lowrank::spectrum const> spectra) {
  lowrank::ranks::sensitivity<> by_kind;
  by_kind.table.levels = recorded["kind_sensitivity"]["removal_levels"].get<std::vector<double>>();
  for (auto const* kind : detail::gguf_kinds)
    by_kind.table.increase.push_back(recorded["kind_sensitivity"]["delta_nll"][kind].get<std::vector<double>>());
  for (std::size_t i = 0; i < spectra.size(); ++i)
    by_kind.groups.push_back(static_cast<index_t>(i % detail::gguf_kinds.size()));
  for (auto const& row : recorded["rows"]) {
    lowrank::rank_budget const budget{row["removal"].get<double>(), lowrank::budget_unit::parameters};
    auto const found = row["method"].get<std::string>() == "b" ? lowrank::ranks::uniform{}.allocate(spectra, budget)
                                                               : by_kind.allocate(spectra, budget);
    table.equal("ranks of parameter budgets (SHA-256)", detail::hash_of_ranks(found.ranks),
                row["ranks_sha256"].get<std::string>());
    table.within("parameters they keep, as a share", 1 - found.reached,
                 row["linear_params_kept_fraction"].get<double>(), 1e-12);
  }
}

}  // namespace smollm2
