/// @file
/// What the parameters of a model and their optimizers are going to take, asked from the functions that size them.
#pragma once

#include <functional>

#include "lowrank/optim/full_rank.hpp"
#include "lowrank/optim/low_rank.hpp"
#include "lowrank/optim/memory_plan.hpp"
#include "lowrank/quant/quantized_weight.hpp"

namespace lowrank {

/// A parameter that need not exist.
struct planned_parameter {
  std::string name;
  extents shape;
};

/// Which dense fp32 gradients are alive together. Factored ones have no memory of their own: the factors are activations.
enum class gradients_alive : std::uint8_t { all, one, none };

struct plan_options {
  gradients_alive gradients{gradients_alive::all};
  index_t tokens{0};  ///< T of factored gradients, for the optimizers that take them; 0: every gradient is dense
};

/// Parameters that are stored and optimized alike. As in a parameter_set, the first group whose `matches` says yes takes a
/// parameter. Made by `planned`.
struct plan_group {
  std::function<bool(std::string_view name, extents shape)> matches;
  std::function<void(memory_plan& plan, extents shape, plan_options const& options)> add;
};

namespace detail {

/// Weights stored as the view W sees them: what they take, and a W of no memory to ask sizes of.
template <class W>
struct planned_weight;

template <class T, memory_space S = host_space>
[[nodiscard]] constexpr matrix_view<T, S> view_of_nothing(extents shape) noexcept {
  return row_major<S>(static_cast<T*>(nullptr), shape);
}
template <class T>
void add_values(memory_plan& plan, std::string const& group, extents shape) {
  char const* const format = std::same_as<T, float> ? ": fp32" : std::same_as<T, bf16> ? ": bf16" : ": fp16";
  plan.add(memory_kind::weights, group + format, shape.size() * index_t{sizeof(T)});
}

template <memory_space S>
struct planned_weight<fp32_weight<S>> {
  [[nodiscard]] static fp32_weight<S> view(extents shape) noexcept { return {view_of_nothing<float, S>(shape)}; }
  static void add(memory_plan& plan, std::string const& group, extents shape) { add_values<float>(plan, group, shape); }
};
template <memory_space S>
struct planned_weight<bf16_weight<S>> {
  [[nodiscard]] static bf16_weight<S> view(extents shape) noexcept { return {view_of_nothing<bf16, S>(shape)}; }
  static void add(memory_plan& plan, std::string const& group, extents shape) { add_values<bf16>(plan, group, shape); }
};
template <class T, memory_space S>
struct planned_weight<master_weight<T, S>> {
  [[nodiscard]] static master_weight<T, S> view(extents shape) noexcept {
    return {view_of_nothing<T, S>(shape), view_of_nothing<float, S>(shape)};
  }
  static void add(memory_plan& plan, std::string const& group, extents shape) {
    add_values<T>(plan, group, shape);
    add_values<float>(plan, group, shape);
  }
};
/// Flat: blocks run over row ends.
template <block_codec Codec, int Block, memory_space S>
struct planned_weight<quantized_weight<Codec, Block, S>> {
  [[nodiscard]] static quantized_weight<Codec, Block, S> view(extents shape) noexcept {
    return {.codes = {.layout = {1, shape.size()}}, .logical = shape};
  }
  static void add(memory_plan& plan, std::string const& group, extents shape) {
    index_t const codes = code_bytes<Codec::bits>(shape.size());
    plan.add(memory_kind::weights, group + ": codes", codes);
    plan.add(memory_kind::weights, group + ": scales", blockwise_bytes<Codec, Block>({1, shape.size()}) - codes);
  }
};

/// Sizes are sums of a few products of two of these numbers, times at most 16 bytes.
inline void check_plannable(std::string_view name, extents shape, index_t tokens) {
  constexpr index_t most = std::numeric_limits<index_t>::max() >> 12;
  auto const fits = [](index_t a, index_t b) { return a >= 0 && b >= 0 && (b == 0 || a <= most / b); };
  require<shape_error>(fits(shape.rows, shape.cols), "plan", "\"", name, "\" is ", shape,
                       ": the bytes of its training are negative or do not fit 64 bits");
  bool const counted = tokens == narrow_gradient || fits(tokens, std::max({shape.rows, shape.cols, tokens}));
  require<shape_error>(counted, "plan", "\"", name, "\" is ", shape, ", its gradient has ", tokens,
                       " tokens: their bytes are negative or do not fit 64 bits");
}

template <class Optimizer>
[[nodiscard]] constexpr bool takes_factors() noexcept {
  if constexpr (requires { Optimizer::takes_factored; }) return Optimizer::takes_factored;
  else return false;
}

}  // namespace detail

/// The group of the parameters that `matches`, stored as the weight view W sees them (fp32_weight<>, bf16_weight<>,
/// quantized_weight<>, ...) and trained by `settings`, any low_rank or full_rank; a step may open it as something made from
/// such a view.
/// Lines: weights; the basis; moments (what the rule keeps); "other" (what else the state holds: records, the finder's
/// state, sums of micro-batches); dense gradients; scratch of the largest step, which all groups share.
template <class W, class Opened = W, class Optimizer>
[[nodiscard]] plan_group planned(std::string name, Optimizer settings,
                                 std::function<bool(std::string_view, extents)> matches) {
  settings.check();
  auto const add = [name = std::move(name), settings](memory_plan& plan, extents shape, plan_options const& options) {
    using stored = detail::planned_weight<W>;
    index_t basis = 0, moments = 0;
    if constexpr (requires { settings.basis_bytes(shape); })
      basis = settings.basis_bytes(shape), moments = settings.rule_bytes(shape);
    else moments = settings.rule.bytes(shape);
    stored::add(plan, name, shape);
    if (basis > 0) plan.add(memory_kind::basis, name + ": basis", basis);
    plan.add(memory_kind::state, name + ": moments", moments);
    plan.add(memory_kind::state, name + ": other", settings.bytes(shape) - basis - moments);
    bool const narrow = options.tokens == narrow_gradient;
    index_t const tokens = narrow || detail::takes_factors<Optimizer>() ? options.tokens : 0;
    index_t const gradient = tokens > 0 ? 0 : shape.size() * (narrow ? index_t{sizeof(bf16)} : index_t{sizeof(float)});
    if (gradient > 0 && options.gradients == gradients_alive::all)
      plan.add(memory_kind::gradients, name + ": dense", gradient);
    if (gradient > 0 && options.gradients == gradients_alive::one)
      plan.widen(memory_kind::gradients, "one dense", gradient);
    plan.widen(memory_kind::workspace, "largest step", settings.workspace_bytes(Opened{stored::view(shape)}, tokens));
  };
  return {std::move(matches), add};
}

/// Adds what the parameters take. Pure: the same functions that size states and scratch are asked, nothing is allocated.
/// Throws: argument_error where no group matches; shape_error for sizes that do not fit 64 bits.
inline void add_parameters(memory_plan& plan, std::span<planned_parameter const> parameters,
                           std::span<plan_group const> groups, plan_options const& options = {}) {
  for (auto const& p : parameters) {
    detail::check_plannable(p.name, p.shape, options.tokens);
    auto const group =
        std::find_if(groups.begin(), groups.end(), [&](auto const& g) { return g.matches(p.name, p.shape); });
    require(group != groups.end(), "plan", "no group matches \"", p.name, "\" (", p.shape, ")");
    group->add(plan, p.shape, options);
  }
}
[[nodiscard]] inline memory_plan plan_of(std::span<planned_parameter const> parameters,
                                         std::span<plan_group const> groups, plan_options const& options = {}) {
  memory_plan out;
  add_parameters(out, parameters, groups, options);
  return out;
}

}  // namespace lowrank
