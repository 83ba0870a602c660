/// @file
/// What a step in codes takes, line by line: planned before anything is allocated, and counted in what was.
#pragma once

#include "layer_optimizer.hpp"
#include "lowrank/optim/memory_plan.hpp"

namespace llama {

namespace detail {

inline constexpr char const* codes_line = "INT8 codes and scales";
inline constexpr char const* narrow_line = "bf16 embedding, head";
inline constexpr char const* norms_line = "fp32 norms";
inline constexpr char const* basis_line = "INT4 codes and scales";
inline constexpr char const* moments_line = "moments of matrices";
inline constexpr char const* row_moments_line = "moments of embedding, head";
inline constexpr char const* norm_moments_line = "moments of norms";
inline constexpr char const* inputs_line = "inputs of all layers";
inline constexpr char const* layer_line = "one layer, logits";
inline constexpr char const* arena_line = "arena";
inline constexpr char const* packing_line = "packing of threads";

}  // namespace detail

/// Scratch of the largest moment of forward pass, backward pass and updates.
template <class Optimizer>
[[nodiscard]] index_t arena_bytes(config const& c, optimizer_settings const& settings, index_t tokens) {
  bool const dense = settings.gradient == matrix_gradient::dense;
  index_t most = 0;
  for (auto const& p : parameter_list(c)) {
    if (!is_coded(p)) continue;
    coded_weight const weight{{}, p.shape};
    auto const optimizer = Optimizer::of_layer(settings, p.layer);
    index_t const step = optimizer.workspace_bytes(tall_panels{weight}, dense ? 0 : tokens);
    most = std::max(
        {most, coded_product_bytes(weight), step + (dense ? lowrank::scratch_bytes<float>(p.shape.size()) : 0)});
  }
  lowrank::extents const block{std::min(settings.block_rows, c.vocabulary), c.width};
  typename Optimizer::on_rows const rows;
  most = std::max(most,
                  lowrank::scratch_bytes<float>(block.size()) +
                      rows.workspace_bytes(lowrank::bf16_weight<>{{nullptr, block.rows, block.cols, block.cols, 1}}));
  most = std::max(most, coded_product_bytes(lowrank::bf16_weight<>{{nullptr, c.vocabulary, c.width, c.width, 1}}));
  typename Optimizer::on_norms const norms;
  lowrank::fp32_weight<> const gain{{nullptr, 1, c.width, c.width, 1}};
  return std::max(most, lowrank::scratch_bytes<float>(c.width) + norms.workspace_bytes(gain));
}

/// Activations of one layer, with the logits.
[[nodiscard]] inline index_t layer_passes_bytes(config c, index_t tokens) noexcept {
  c.layers = 1;
  return activations<float>::bytes_for(c, 1, tokens, pass::training).total();
}

/// Everything alive at the peak of a step over one sequence of `tokens`.
template <class Optimizer>
[[nodiscard]] lowrank::memory_plan plan_memory(config const& c, optimizer_settings const& settings, index_t tokens,
                                               index_t packing_bytes) {
  using lowrank::memory_kind;
  lowrank::memory_plan plan;
  typename Optimizer::on_rows const rows;
  typename Optimizer::on_norms const norms;
  for (auto const& p : parameter_list(c)) {
    if (p.is_norm()) {
      plan.add(memory_kind::weights, detail::norms_line, p.shape.size() * 4);
      plan.add(memory_kind::state, detail::norm_moments_line, norms.rule.bytes(p.shape));
    } else if (is_coded(p)) {
      plan.add(memory_kind::weights, detail::codes_line,
               lowrank::blockwise_bytes<weight_codec, weight_block>({1, p.shape.size()}));
      auto const optimizer = Optimizer::of_layer(settings, p.layer);
      plan.add(memory_kind::basis, detail::basis_line, optimizer.basis_bytes(p.shape));
      plan.add(memory_kind::state, detail::moments_line, optimizer.rule_bytes(p.shape));
    } else {
      plan.add(memory_kind::weights, detail::narrow_line, p.shape.size() * 2);
      for (index_t b = 0; b < Optimizer::row_blocks(settings, c); ++b) {
        auto const [begin, end] = Optimizer::row_block(settings, c, b);
        plan.add(memory_kind::state, detail::row_moments_line, rows.rule.bytes({end - begin, c.width}));
      }
    }
  }
  plan.add(memory_kind::activations, detail::inputs_line, (c.layers + 1) * tokens * c.width * 4);
  plan.add(memory_kind::activations, detail::layer_line, layer_passes_bytes(c, tokens));
  plan.add(memory_kind::workspace, detail::arena_line, arena_bytes<Optimizer>(c, settings, tokens));
  plan.add(memory_kind::workspace, detail::packing_line, packing_bytes);
  return plan;
}

/// The same lines, counted in what there is.
template <class Executor, class Optimizer>
[[nodiscard]] lowrank::memory_plan count_memory(Executor const& exec, coded_model& model,
                                                layer_passes<Executor> const& passes, Optimizer& optimizer) {
  using lowrank::memory_kind;
  lowrank::memory_plan found;
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    if (p.is_norm()) found.add(memory_kind::weights, detail::norms_line, model.gain(i).size() * 4);
    else if (is_coded(p)) found.add(memory_kind::weights, detail::codes_line, model.codes(i).bytes());
    else found.add(memory_kind::weights, detail::narrow_line, model.narrow(p.what).values.size() * 2);
  }
  optimizer.each_buffer([&](std::string_view whose, std::string_view name, index_t bytes) {
    if (name.starts_with("basis.")) found.add(memory_kind::basis, detail::basis_line, bytes);
    else if (name.starts_with("rule."))
      found.add(memory_kind::state,
                whose == "matrices" ? detail::moments_line
                : whose == "rows"   ? detail::row_moments_line
                                    : detail::norm_moments_line,
                bytes);
  });
  found.add(memory_kind::activations, detail::inputs_line, passes.checkpoint_bytes());
  found.add(memory_kind::activations, detail::layer_line, passes.activation_bytes());
  found.add(memory_kind::workspace, detail::arena_line, exec.arena().peak());
  found.add(memory_kind::workspace, detail::packing_line, exec.bytes() - exec.arena().reserved());
  return found;
}

}  // namespace llama
