/// @file
/// How many directions adapters have really learnt.
#pragma once

#include <algorithm>
#include <cmath>

#include "lowrank/adapt/recovered_rank.hpp"
#include "lowrank/linalg/eigenvalue_problem.hpp"
#include "methods.hpp"

namespace adapting {

struct rank_summary {
  double mean{}, median{};
  index_t most{}, zero{}, count{};  ///< zero: matrices where nothing was learnt
};

namespace detail {

/// Of a change that is no product of two narrow factors, from all of it.
template <class Executor>
[[nodiscard]] lowrank::spectrum dense_spectrum(Executor& exec, any_adapter const& a) {
  auto const shape = a.shape();
  lowrank::matrix<float> change{shape}, tall;
  a.add_to(exec, 1.0F, change.view());
  if (shape.rows < shape.cols)
    copy(exec, std::as_const(change).view().t(), (tall = lowrank::matrix<float>{shape.t()}).view());
  index_t const n = std::min(shape.rows, shape.cols);
  lowrank::matrix<double> c{n, n};
  gram(exec, std::as_const(shape.rows < shape.cols ? tall : change).view(), c.view());
  std::vector<double> values(static_cast<std::size_t>(n));
  std::vector<lowrank::eigenvalue_problem> one{{c.view(), values.data()}};
  symmetric_eigenvalues(exec, std::span{one});
  std::ranges::sort(values, std::greater{});
  lowrank::spectrum out{.shape = shape, .values = {}, .whole = 0};
  for (double const energy : values) {
    out.values.push_back(std::sqrt(std::max(energy, 0.0)));
    out.whole += std::max(energy, 0.0);
  }
  return out;
}

}  // namespace detail

/// Singular values of ΔW, of OLoRA and LoftQ its change since the start, that exceed 1 % of the largest one; none where the largest is
/// below 1e-4 of the typical one of W.
template <class Executor>
[[nodiscard]] rank_summary learned_ranks(Executor& exec, adapter_set& set, llama::parameters<float> const& model,
                                         started_adapters const& starts) {
  std::vector<index_t> ranks;
  set.each([&](llama::role what, index_t l, any_adapter const& any) {
    auto const change = any.visit([&](auto const& a) {
      using type = std::remove_cvref_t<decltype(a)>;
      if constexpr (std::same_as<type, adapt::lora_adapter<float>>)
        if (auto const start = starts.find(set.module(what, l)); start != starts.end())
          return adapt::change_spectrum(exec, adapt::change_since(exec, start->second, a));
      if constexpr (adapt::base_changing_adapter<type>)
        return adapt::change_spectrum(exec, a.factors_for_original(exec));
      else if constexpr (adapt::low_rank_adapter<type>) return adapt::change_spectrum(exec, a.factors(exec));
      else return detail::dense_spectrum(exec, any);
    });
    auto const w = model.weight(what, l);
    double energy = 0;
    for (index_t e = 0; e < w.size(); ++e) energy += static_cast<double>(w.data[e]) * static_cast<double>(w.data[e]);
    double const typical = std::sqrt(energy / static_cast<double>(std::min(w.rows, w.cols)));
    ranks.push_back(adapt::recovered_rank(change, {.relative = 1e-2, .absolute = 1e-4 * typical}));
  });
  std::ranges::sort(ranks);
  rank_summary out{.count = static_cast<index_t>(ranks.size())};
  for (auto const r : ranks) {
    out.mean += static_cast<double>(r) / static_cast<double>(ranks.size());
    out.zero += r == 0 ? 1 : 0;
  }
  out.median = static_cast<double>(ranks[ranks.size() / 2]);
  out.most = ranks.back();
  return out;
}

}  // namespace adapting
