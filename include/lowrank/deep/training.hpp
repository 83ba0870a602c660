/// @file
/// Training of a deep matrix by any rule of the library.
#pragma once

#include "lowrank/deep/gradient.hpp"
#include "lowrank/deep/wide_rule.hpp"
#include "lowrank/rule/sgd.hpp"

namespace lowrank::deep {

/// Steps of the loss ½ Σ (W - Φ)² + ½ λ Σ decay_l ‖X_l‖². Each layer's update is multiplied by its rate, and one whose rate
/// is 0 has no gradient and no moments.
/// Rule: in fp32 any update rule (rule/*.hpp), in fp64 any elementwise one.
template <class T, class Rule = rule::plain_sgd>
class trainer {
  static constexpr bool wide = std::same_as<T, double>;
  static_assert(!wide || wide_formula<Rule>, "lowrank: in fp64, deep matrices are trained by elementwise rules");

 public:
  template <class E>
  trainer(E& exec, deep_matrix<T> const& w, Rule rule = {}) : rule_{rule} {
    rule_.check();
    for (std::size_t l = 0; l < w.layer_count(); ++l) {
      extents const shape = w.at(l).values.shape();
      bool const trained = w.at(l).trained();
      gradients_.push_back(matrix<T>{trained ? shape : extents{}});
      if constexpr (wide) states_.push_back(state_type{trained ? shape.size() : 0});
      else states_.push_back(rule_.init(exec, trained ? shape : extents{}));
    }
    for (auto& g : gradients_) views_.push_back(g.view());
  }

  /// What a trainer of `w` holds: gradients and moments of what is trained.
  [[nodiscard]] static index_t bytes(deep_matrix<T> const& w, Rule const& rule = {}) {
    index_t sum = 0;
    for (std::size_t l = 0; l < w.layer_count(); ++l) {
      extents const shape = w.at(l).trained() ? w.at(l).values.shape() : extents{};
      sum += shape.size() * index_t{sizeof(T)};
      if constexpr (wide) sum += state_type::bytes(shape.size());
      else sum += rule.bytes(shape);
    }
    return sum;
  }
  /// Scratch of `step`.
  template <target_of<T> Target>
  [[nodiscard]] static index_t workspace_bytes(deep_matrix<T> const& w, Target const& target, Rule const& rule = {}) {
    index_t most = gradients_bytes(w, target);
    if constexpr (!wide)
      for (std::size_t l = 0; l < w.layer_count(); ++l)
        most = std::max(most, rule.workspace_bytes(w.at(l).values.shape()));
    return most;
  }

  /// One step of gradient descent by the rule; says ½ Σ (W - Φ)² before it. Where that is not finite nothing is changed.
  /// Requires: the matrix this was made for, or one like it.
  /// Cost: of `gradients`, and the rule's; allocates nothing.
  /// Throws: shape_error; argument_error for a learning rate or decay that is negative or not finite.
  template <class E, target_of<T> Target>
  double step(E& exec, deep_matrix<T>& w, Target const& target, double learning_rate, double weight_decay = 0) {
    constexpr auto* caller = "deep::trainer";
    require(is_finite(learning_rate) && learning_rate >= 0 && is_finite(weight_decay) && weight_decay >= 0, caller,
            "learning rate and weight decay must be finite and not negative, got ", learning_rate, " and ",
            weight_decay);
    double const value = gradients(exec, w, target, std::span<matrix_view<T> const>(views_));
    if (!is_finite(value)) return value;
    for (std::size_t l = 0; l < w.layer_count(); ++l)
      if (w.at(l).trained()) step_layer(exec, w.at(l), l, learning_rate, weight_decay);
    return value;
  }
  [[nodiscard]] std::span<matrix_view<T> const> gradient() const noexcept { return views_; }

 private:
  static auto state_of_rule() {
    if constexpr (wide) return std::type_identity<wide_state<Rule>>{};
    else return std::type_identity<typename Rule::template state<host_space>>{};
  }
  using state_type = typename decltype(state_of_rule())::type;

  template <class E>
  void step_layer(E& exec, layer<T>& one, std::size_t l, double learning_rate, double weight_decay) {
    auto const x = one.values.view();
    auto const g = views_[l];
    if (weight_decay != 0) add(exec, static_cast<T>(weight_decay * static_cast<double>(one.decay)), x, g);
    if constexpr (wide) {
      states_[l].turn(exec, rule_, learning_rate, static_cast<double>(one.rate), g);
    } else {
      step_record record{.learning_rate = static_cast<float>(learning_rate)};
      rule_.begin(exec, states_[l], &record);
      record.direction_scale = record.rate * one.rate;
      rule_.update(exec, states_[l], matrix_view<float const>(g), g, &record);
    }
    add(exec, T{-1}, g, x);
  }
  /// B += alpha A.
  template <class E>
  static void add(E& exec, T alpha, matrix_view<T> a, matrix_view<T> b) {
    constexpr index_t together = 4096;
    exec.parallel((a.size() + together - 1) / together, [&](index_t task) {
      for (index_t e = task * together; e < std::min(a.size(), (task + 1) * together); ++e)
        b.data[e] += alpha * a.data[e];
    });
  }

  Rule rule_;
  std::vector<matrix<T>> gradients_;
  std::vector<matrix_view<T>> views_;
  std::vector<state_type> states_;
};

}  // namespace lowrank::deep
