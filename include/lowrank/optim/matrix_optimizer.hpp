/// @file
/// One parameter's optimizer behind an interface, so that parameters with different compositions fit in one list.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <variant>

#include "lowrank/optim/full_rank.hpp"
#include "lowrank/optim/low_rank.hpp"
#include "lowrank/quant/quantized_weight.hpp"

namespace lowrank {

/// A weight or a gradient in any form that optimizers take.
template <executor E>
using any_weight =
    std::variant<fp32_weight<typename E::space>, bf16_weight<typename E::space>, master_weight<bf16, typename E::space>,
                 master_weight<fp16, typename E::space>, quantized_weight<codec::affine<8>, 256, typename E::space>>;
template <executor E>
using any_gradient = std::variant<const_view_of<E>, outer_product<typename E::space>>;

template <executor E>
[[nodiscard]] extents shape_of(any_weight<E> const& weight) {
  return std::visit([](auto const& w) { return w.shape(); }, weight);
}

namespace detail {

/// The values a state may name, as a closed list, so that a state behind an interface can still be walked.
template <memory_space S, class... T>
using state_values = std::variant<T*..., identity_ref<T>..., buffer<float, S>*, buffer<bf16, S>*,
                                  buffer<std::int64_t, S>*, buffer<std::uint8_t, S>*>;
template <memory_space S>
using state_value =
    state_values<S, std::uint8_t, std::uint32_t, std::int64_t, float, double, side, std::array<double, 16>>;

template <class V>
[[nodiscard]] constexpr auto as_state_value(V& value) noexcept {
  if constexpr (is_identity<std::remove_const_t<V>>) return value;
  else return &value;
}

}  // namespace detail

/// Settings and state of one parameter. Made by `make_optimizer` from any composition; sees weights and gradients of any
/// form. A call costs one virtual dispatch over the composition's own.
template <executor E>
class matrix_optimizer {
 public:
  matrix_optimizer() = default;
  matrix_optimizer(matrix_optimizer const&) = delete;
  matrix_optimizer& operator=(matrix_optimizer const&) = delete;
  virtual ~matrix_optimizer() = default;

  virtual step_status step(E& exec, any_weight<E> const& weight, any_gradient<E> const& g, step_options const& o) = 0;
  /// In the subspace, for optimizers that can (`accumulates`).
  virtual void accumulate(E& exec, any_gradient<E> const& g) = 0;
  virtual step_status step_accumulated(E& exec, any_weight<E> const& weight, step_options const& o) = 0;

  [[nodiscard]] virtual bool accumulates() const noexcept = 0;
  [[nodiscard]] virtual bool takes_factored() const noexcept = 0;
  [[nodiscard]] virtual index_t bytes() const = 0;
  [[nodiscard]] virtual index_t workspace_bytes(any_weight<E> const& weight, index_t tokens) const = 0;
  /// Rank of the subspace; 0 where there is none.
  [[nodiscard]] virtual index_t rank() const noexcept = 0;
  /// ‖PᵀG‖² / ‖G‖² of the last step, where it was measured; else -1.
  [[nodiscard]] virtual double captured() const noexcept = 0;
  /// Bases accepted since this object was made; not part of what is saved.
  [[nodiscard]] virtual index_t refreshes() const noexcept = 0;
  /// Whether the next step looks for a new basis.
  [[nodiscard]] virtual bool refresh_due() const = 0;

  template <class F>  // Written out: a CUDA compiler loses the members behind a friend with an `auto` parameter
  friend void visit_state(matrix_optimizer& o, F&& f) {
    o.visit([&](std::string_view name, detail::state_value<typename E::space> value) {
      std::visit(
          [&]<class V>(V held) {
            if constexpr (std::is_pointer_v<V>) f(name, *held);
            else f(name, held);
          },
          value);
    });
  }

 protected:
  using visitor = std::function<void(std::string_view, detail::state_value<typename E::space>)>;
  virtual void visit(visitor const& f) = 0;
};

namespace detail {

/// Any composition with the calls of `low_rank` or `full_rank`.
template <executor E, class Optimizer>
class erased_optimizer final : public matrix_optimizer<E> {
  static constexpr bool has_subspace = requires(Optimizer const& o) { o.rank_of(extents{}); };

 public:
  erased_optimizer(E& exec, Optimizer settings, extents weight, std::uint32_t tensor)
      : settings_{std::move(settings)}, state_{settings_.init(exec, weight, tensor)} {}

  step_status step(E& exec, any_weight<E> const& weight, any_gradient<E> const& g, step_options const& o) override {
    auto const status = std::visit(
        [&](auto const& w, auto const& gradient) -> step_status {
          using given = std::remove_cvref_t<decltype(gradient)>;
          if constexpr (is_dense_gradient<given> || accepts_factored)
            return settings_.step(exec, state_, w, gradient, o);
          else throw argument_error{"lowrank::matrix_optimizer::step: this optimizer needs the dense gradient"};
        },
        weight, g);
    count(status);
    return status;
  }
  void accumulate(E& exec, any_gradient<E> const& g) override {
    if constexpr (has_subspace) {
      std::visit(
          [&](auto const& gradient) {
            using given = std::remove_cvref_t<decltype(gradient)>;
            if constexpr (is_dense_gradient<given> || accepts_factored) settings_.accumulate(exec, state_, gradient);
            else throw argument_error{"lowrank::matrix_optimizer::accumulate: this optimizer needs the dense gradient"};
          },
          g);
    } else {
      throw argument_error{
          "lowrank::matrix_optimizer::accumulate: a full-rank optimizer has no subspace to accumulate in"};
    }
  }
  step_status step_accumulated(E& exec, any_weight<E> const& weight, step_options const& o) override {
    if constexpr (has_subspace) {
      auto const status = std::visit([&](auto const& w) { return settings_.step(exec, state_, w, o); }, weight);
      count(status);
      return status;
    } else {
      throw argument_error{"lowrank::matrix_optimizer::step: a full-rank optimizer has no subspace to accumulate in"};
    }
  }
  [[nodiscard]] bool accumulates() const noexcept override {
    if constexpr (has_subspace) return settings_.accumulate_in == accumulation::projected;
    else return false;
  }
  [[nodiscard]] bool takes_factored() const noexcept override { return has_subspace && accepts_factored; }
  [[nodiscard]] index_t bytes() const override { return settings_.bytes(state_.weight); }
  [[nodiscard]] index_t workspace_bytes(any_weight<E> const& weight, index_t tokens) const override {
    return std::visit([&](auto const& w) { return settings_.workspace_bytes(w, tokens); }, weight);
  }
  [[nodiscard]] index_t rank() const noexcept override {
    if constexpr (has_subspace) return state_.rank;
    else return 0;
  }
  [[nodiscard]] double captured() const noexcept override {
    if constexpr (has_subspace) return state_.captured;
    else return -1;
  }
  [[nodiscard]] index_t refreshes() const noexcept override { return refreshes_; }
  [[nodiscard]] bool refresh_due() const override {
    if constexpr (has_subspace) return settings_.refresh_due(state_);
    else return false;
  }

 private:
  static constexpr bool accepts_factored = [] {
    if constexpr (has_subspace) return Optimizer::takes_factored;
    else return false;
  }();

  void visit(typename matrix_optimizer<E>::visitor const& f) override {
    visit_state(state_, [&](std::string_view name, auto&& value) { f(name, as_state_value(value)); });
  }
  void count(step_status) noexcept {
    if constexpr (has_subspace) refreshes_ += state_.report.attempted != 0 && state_.report.accepted != 0 ? 1 : 0;
  }

  Optimizer settings_;
  state_of<Optimizer, typename E::space> state_;
  index_t refreshes_{};
};

}  // namespace detail

/// One parameter's optimizer from any composition; the state is made here. `tensor` tells parameters apart in everything
/// random.
template <executor E, class Optimizer>
[[nodiscard]] std::unique_ptr<matrix_optimizer<E>> make_optimizer(E& exec, Optimizer settings, extents weight,
                                                                  std::uint32_t tensor) {
  return std::make_unique<detail::erased_optimizer<E, Optimizer>>(exec, std::move(settings), weight, tensor);
}

}  // namespace lowrank
