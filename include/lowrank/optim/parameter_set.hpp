/// @file
/// A whole model: named parameters, which of them live in a subspace, and the step of all of them.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <unordered_set>

#include "lowrank/optim/matrix_optimizer.hpp"

namespace lowrank {

/// Per-parameter settings of a group.
struct parameter_options {
  double learning_rate_scale{1};  ///< times the learning rate of the step
  float weight_decay{0};
};

/// Parameters that are optimized alike. The first group whose `matches` says yes takes a parameter.
template <executor E>
struct parameter_group {
  std::function<bool(std::string_view name, extents shape)> matches;
  std::function<std::unique_ptr<matrix_optimizer<E>>(E&, extents, std::uint32_t tensor)> make;
  parameter_options options{};
};

/// A predicate for parameter_group: the name contains one of `parts`, and the parameter is a matrix, not a vector.
[[nodiscard]] inline auto matrices_named(std::vector<std::string> parts) {
  return [parts = std::move(parts)](std::string_view name, extents shape) {
    if (shape.rows < 2 || shape.cols < 2) return false;
    return std::any_of(parts.begin(), parts.end(),
                       [&](auto const& part) { return name.find(part) != std::string_view::npos; });
  };
}
/// The predicate of the last group.
[[nodiscard]] inline bool every_parameter(std::string_view, extents) noexcept { return true; }

/// Whether the set keeps the sum of micro-batches: in the subspace where an optimizer does that, else in a full buffer.
enum class micro_batches : std::uint8_t { one, many };

/// What one step of the whole model did.
struct set_report {
  index_t stepped{}, skipped{}, old_basis{};  ///< parameters
  index_t refreshed{};                        ///< bases accepted
  double gradient_norm{-1};                   ///< before clipping; -1 where it was not computed
};

struct set_options {
  float learning_rate{1e-3F};
  float grad_scale{1};  ///< multiplies every gradient
  double clip_norm{0};  ///< global norm to clip the scaled gradients to; 0 does not look at it
};

/// The optimizers of a model over weights that the caller owns. Tensor ids are the order of `add`.
/// One step of everything: `step` (all gradients at hand) or, per layer, `step_one` as each gradient becomes ready, after
/// which it may be freed. Micro-batches: `accumulate` / `accumulate_one`, then `step_accumulated` / `step_one_accumulated`.
template <executor E>
class parameter_set {
 public:
  explicit parameter_set(std::vector<parameter_group<E>> groups, micro_batches batches = micro_batches::one)
      : groups_{std::move(groups)}, batches_{batches} {}

  /// Adds a parameter and makes its state. Throws: argument_error for a name that is taken or that no group matches.
  index_t add(E& exec, std::string name, any_weight<E> weight) {
    extents const shape = shape_of<E>(weight);
    std::visit([&](auto const& w) { detail::check_pointers(exec, w, "parameter_set::add"); }, weight);
    require(names_.insert(name).second, "parameter_set::add", "the name \"", name, "\" is taken");
    auto const group =
        std::find_if(groups_.begin(), groups_.end(), [&](auto const& g) { return g.matches(name, shape); });
    require(group != groups_.end(), "parameter_set::add", "no group matches \"", name, "\" (", shape, ")");
    auto optimizer = group->make(exec, shape, static_cast<std::uint32_t>(parameters_.size()));
    bool const sums = batches_ == micro_batches::many && !optimizer->accumulates();
    parameters_.push_back({std::move(name), weight, std::move(optimizer), group->options,
                           buffer<float, typename E::space>(sums ? shape.size() : 0)});
    return static_cast<index_t>(parameters_.size()) - 1;
  }

  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(parameters_.size()); }
  [[nodiscard]] std::string const& name(index_t i) const { return at(i).name; }
  [[nodiscard]] extents shape(index_t i) const { return shape_of<E>(at(i).weight); }
  [[nodiscard]] matrix_optimizer<E>& optimizer(index_t i) { return *at(i).optimizer; }
  [[nodiscard]] matrix_optimizer<E> const& optimizer(index_t i) const { return *at(i).optimizer; }
  /// Bytes of all states, and of the buffers that sum micro-batches.
  [[nodiscard]] index_t bytes() const {
    index_t sum = 0;
    for (auto const& p : parameters_) sum += p.optimizer->bytes() + p.sum.bytes();
    return sum;
  }
  /// Scratch the largest step takes, with factored gradients over up to `tokens` rows (0: dense only).
  [[nodiscard]] index_t workspace_bytes(index_t tokens = 0) const {
    index_t most = 0;
    for (auto const& p : parameters_) {
      index_t const factored = p.optimizer->takes_factored() ? tokens : 0;
      most =
          std::max({most, p.optimizer->workspace_bytes(p.weight, 0), p.optimizer->workspace_bytes(p.weight, factored),
                    scratch_bytes<double>(1) + gradient_norm_bytes(shape_of<E>(p.weight), tokens)});
    }
    return most;
  }

  /// One step of the whole model. Shapes: as many gradients as parameters, in the order of `add`.
  /// With clip_norm, every gradient is scaled by min(1, clip_norm / global norm); a global norm that is not finite skips
  /// all of it.
  set_report step(E& exec, std::span<any_gradient<E> const> gradients, set_options const& options) {
    require<shape_error>(static_cast<index_t>(gradients.size()) == size(), "parameter_set::step", "has ", size(),
                         " parameters, got ", gradients.size(), " gradients");
    check(options);
    for (index_t i = 0; i < size(); ++i)
      check_gradient(exec, i, gradients[static_cast<std::size_t>(i)], "parameter_set::step");
    set_report report;
    float scale = options.grad_scale;
    if (options.clip_norm > 0) {
      report.gradient_norm = std::abs(static_cast<double>(scale)) * global_norm(exec, gradients);
      if (!is_finite(report.gradient_norm)) {
        report.skipped = size();
        return report;
      }
      scale = clipped(scale, report.gradient_norm, options.clip_norm);
    }
    for (index_t i = 0; i < size(); ++i)
      note(report, i, [&](auto& p) {
        return p.optimizer->step(exec, p.weight, gradients[static_cast<std::size_t>(i)], of(p, options, scale));
      });
    return report;
  }
  /// Per-layer mode: one parameter, as soon as its gradient is complete. Clipping by the global norm is the caller's, as
  /// grad_scale: the norm of all gradients is not known yet.
  step_status step_one(E& exec, index_t i, any_gradient<E> const& g, set_options const& options) {
    refuse_clipping(options, "parameter_set::step_one");
    auto& p = at(i);
    check_gradient(exec, i, g, "parameter_set::step_one");
    return p.optimizer->step(exec, p.weight, g, of(p, options, options.grad_scale));
  }

  /// Adds one micro-batch of the whole model. The sum is exact in the subspace, too: projection is linear.
  void accumulate(E& exec, std::span<any_gradient<E> const> gradients) {
    require<shape_error>(static_cast<index_t>(gradients.size()) == size(), "parameter_set::accumulate", "has ", size(),
                         " parameters, got ", gradients.size(), " gradients");
    for (index_t i = 0; i < size(); ++i)
      check_gradient(exec, i, gradients[static_cast<std::size_t>(i)], "parameter_set::accumulate");
    for (index_t i = 0; i < size(); ++i) accumulate_one(exec, i, gradients[static_cast<std::size_t>(i)]);
  }
  void accumulate_one(E& exec, index_t i, any_gradient<E> const& g) {
    require<state_error>(batches_ == micro_batches::many, "parameter_set::accumulate",
                         "make the set with micro_batches::many");
    check_gradient(exec, i, g, "parameter_set::accumulate");
    auto& p = at(i);
    if (p.optimizer->accumulates()) {
      p.optimizer->accumulate(exec, g);
    } else {
      auto const sum = row_major<typename E::space>(p.sum.data(), shape_of<E>(p.weight));
      float const beta = p.pending == 0 ? 0.0F : 1.0F;
      std::visit([&](auto const& gradient) { add(exec, gradient, beta, sum); }, g);
    }
    ++p.pending;
  }
  /// The step of what was accumulated; grad_scale = 1 / micro-batches for their mean.
  /// Clipping by global norm works where every parameter sums in full; with sums in the subspace it is refused.
  set_report step_accumulated(E& exec, set_options const& options) {
    check(options);
    set_report report;
    float scale = options.grad_scale;
    if (options.clip_norm > 0) {
      for (auto const& p : parameters_)
        require(
            !p.optimizer->accumulates(), "parameter_set::step_accumulated", "\"", p.name,
            "\" accumulates in its subspace, so the global norm is not known; pass a grad_scale instead of clip_norm");
      report.gradient_norm = std::abs(static_cast<double>(scale)) * norm_of_sums(exec);
      if (!is_finite(report.gradient_norm)) {
        for (auto& p : parameters_) p.pending = 0;
        report.skipped = size();
        return report;
      }
      scale = clipped(scale, report.gradient_norm, options.clip_norm);
    }
    for (index_t i = 0; i < size(); ++i) note(report, i, [&](auto&) { return step_sum(exec, i, options, scale); });
    return report;
  }
  step_status step_one_accumulated(E& exec, index_t i, set_options const& options) {
    refuse_clipping(options, "parameter_set::step_one_accumulated");
    return step_sum(exec, i, options, options.grad_scale);
  }

  /// Everything a resume needs, each parameter's part under its name.
  template <class F>  // Written out: a CUDA compiler loses the members behind a friend with an `auto` parameter
  friend void visit_state(parameter_set& set, F&& f) {
    for (auto& p : set.parameters_) {
      f(p.name + ".pending", p.pending);
      visit_state(*p.optimizer, prefixed(f, p.name + "."));
      if (p.sum.size() > 0) f(p.name + ".sum", p.sum);
    }
  }

 private:
  struct parameter {
    std::string name;
    any_weight<E> weight;
    std::unique_ptr<matrix_optimizer<E>> optimizer;
    parameter_options options;
    buffer<float, typename E::space> sum;
    std::int64_t pending{};
  };

  [[nodiscard]] parameter& at(index_t i) {
    require<shape_error>(i >= 0 && i < size(), "parameter_set", "has ", size(), " parameters, asked for number ", i);
    return parameters_[static_cast<std::size_t>(i)];
  }
  [[nodiscard]] parameter const& at(index_t i) const { return const_cast<parameter_set*>(this)->at(i); }

  static void check(set_options const& o) {
    require(is_finite(o.clip_norm) && o.clip_norm >= 0, "parameter_set", "clip_norm must be finite and >= 0, got ",
            o.clip_norm);
    detail::check_options({.learning_rate = o.learning_rate, .grad_scale = o.grad_scale}, "parameter_set");
  }
  static void refuse_clipping(set_options const& o, char const* caller) {
    check(o);
    require(o.clip_norm == 0, caller, "cannot clip by the global norm of gradients it has not seen; pass a grad_scale");
  }
  /// Of all gradients before any of them is looked at: a bad one must not stop a step half-way through the model.
  void check_gradient(E& exec, index_t i, any_gradient<E> const& g, char const* caller) const {
    extents const given = std::visit([](auto const& gradient) { return gradient.shape(); }, g);
    require<shape_error>(given == shape(i), caller, "\"", at(i).name, "\" is ", shape(i), ", its gradient ", given);
    std::visit([&](auto const& gradient) { detail::check_pointers(exec, gradient, caller); }, g);
  }
  [[nodiscard]] static step_options of(parameter const& p, set_options const& o, float scale) noexcept {
    return {static_cast<float>(static_cast<double>(o.learning_rate) * p.options.learning_rate_scale),
            p.options.weight_decay, scale};
  }
  [[nodiscard]] static float clipped(float scale, double norm, double limit) noexcept {
    return norm > limit ? static_cast<float>(static_cast<double>(scale) * limit / norm) : scale;
  }
  template <class Step>
  void note(set_report& report, index_t i, Step const& step) {
    auto& p = at(i);
    index_t const before = p.optimizer->refreshes();
    auto const status = step(p);
    bool const moved = status == step_status::stepped || status == step_status::stepped_old_basis;
    ++(moved ? report.stepped : report.skipped);
    report.old_basis += status == step_status::stepped_old_basis ? 1 : 0;
    report.refreshed += p.optimizer->refreshes() - before;
  }
  step_status step_sum(E& exec, index_t i, set_options const& options, float scale) {
    auto& p = at(i);
    require<state_error>(p.pending > 0, "parameter_set::step_accumulated", "nothing was accumulated for \"", p.name,
                         "\"");
    p.pending = 0;
    if (p.optimizer->accumulates()) return p.optimizer->step_accumulated(exec, p.weight, of(p, options, scale));
    const_view_of<E> const sum =
        row_major<typename E::space>(static_cast<float const*>(p.sum.data()), shape_of<E>(p.weight));
    return p.optimizer->step(exec, p.weight, sum, of(p, options, scale));
  }
  static void add(E& exec, const_view_of<E> g, float beta, view_of<E> sum) {
    if (beta == 0.0F) copy(exec, g, sum);
    else axpy(exec, 1.0F, g, sum);
  }
  static void add(E& exec, outer_product<typename E::space> const& g, float beta, view_of<E> sum) {
    multiply(exec, 1.0F, g.output_gradient.t(), g.input, beta, sum);
  }
  [[nodiscard]] double global_norm(E& exec, std::span<any_gradient<E> const> gradients) {
    double total = 0;
    for (auto const& g : gradients) total += norm_squared(exec, g);
    return std::sqrt(total);
  }
  [[nodiscard]] double norm_of_sums(E& exec) {
    double total = 0;
    for (auto const& p : parameters_)
      total += norm_squared(exec, const_view_of<E>(row_major<typename E::space>(static_cast<float const*>(p.sum.data()),
                                                                                shape_of<E>(p.weight))));
    return std::sqrt(total);
  }
  /// Synchronises on a device: clipping needs the number.
  [[nodiscard]] static double norm_squared(E& exec, any_gradient<E> const& g) {
    look_scope const looking{exec};
    scratch_scope const scope{exec};
    auto* const sum = exec.arena().template take<double>(1);
    std::visit([&](auto const& gradient) { squared_norm(exec, gradient, sum); }, g);
    return *exec.peek(sum);
  }

  std::vector<parameter_group<E>> groups_;
  micro_batches batches_;
  std::vector<parameter> parameters_;
  std::unordered_set<std::string> names_;
};

}  // namespace lowrank
