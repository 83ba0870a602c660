/// @file
/// A model whose frozen weights are kept in codes.
#pragma once

#include <string_view>

#include "parameters.hpp"

namespace llama {

/// What a weight becomes; nothing: it stays as it is.
using frozen_choice = std::optional<lowrank::adapt::frozen_format>;

/// The same model with those whole linear weights of the layers frozen, and the embedding, for which `format_of(parameter)`
/// gives a format, as what `freeze(parameter, weight, format)` makes of them. Everything else is copied.
/// Cost: memory of the new model beside the old one.
template <class FormatOf, class Freeze>
[[nodiscard]] parameters<float> frozen_in(parameters<float> const& model, FormatOf const& format_of,
                                          Freeze const& freeze) {
  auto const can = [](parameter const& p) {
    return p.part == linear_part::whole && (p.what == role::embedding || (p.is_linear() && p.what != role::head));
  };
  auto plan = model.plan();
  for (auto const& p : model.list()) {
    if (!can(p)) continue;
    frozen_choice const format = format_of(p);
    if (!format) continue;
    index_t const layer = std::max<index_t>(p.layer, 0);
    plan.set(p.what, layer, {linear_form::frozen, 0, plan.at(p.what, layer).bias, *format});
  }
  parameters<float> out{model.config(), std::move(plan)};
  for (index_t i = 0; i < out.count(); ++i) {
    auto const& p = out[i];
    index_t const layer = std::max<index_t>(p.layer, 0);
    auto const from = model.weight(i);
    if (p.part == linear_part::frozen) {
      lowrank::require(model[i].part == linear_part::whole, "llama::frozen_in", "\"", p.name, "\" is in codes already");
      out.freeze(p.what, layer, freeze(p, from, out.plan().at(p.what, layer).format));
      continue;
    }
    std::copy(from.data, from.data + from.size(), out.weight(i).data);
    if (p.part == linear_part::left)
      std::ranges::copy(model.linear(p.what, layer).order, out.order(p.what, layer).begin());
  }
  return out;
}
/// The same, each rounded once to its format.
template <class Executor, class FormatOf>
[[nodiscard]] parameters<float> frozen_in(Executor& exec, parameters<float> const& model, FormatOf const& format_of) {
  return frozen_in(model, format_of, [&](parameter const&, view<float const> w, lowrank::adapt::frozen_format format) {
    return lowrank::adapt::frozen_matrix{exec, w, format};
  });
}

}  // namespace llama
