/// @file
/// Adapters on linear weights of a model, with the memory that training them takes.
#pragma once

#include <optional>

#include "adapting.hpp"
#include "lowrank/adapt/adapter.hpp"

namespace llama {

/// One trained matrix of the set.
template <class T>
struct trained_tensor {
  std::string name;  ///< module and tensor: model.layers.0.self_attn.q_proj.lora_A
  view<T> values;
  view<T> gradient;  ///< of the last backward pass; empty where the rate is 0
  float rate{1};     ///< times the learning rate
};

/// Up to one adapter for each linear weight of the layers. Passes over the model take the set as their last argument; the
/// model's own weights need no gradients then. `Adapter` is one of the library's, or `any_adapter`.
template <class Adapter>
class adapter_set {
 public:
  using value_type = typename Adapter::value_type;

  explicit adapter_set(config const& c)
      : config_{c}, list_{parameter_list(c)}, places_(static_cast<std::size_t>(linear_roles * c.layers)) {}

  /// Throws: argument_error for a role that is no linear weight of a layer, shape_error for another shape than the weight's.
  void set(role what, index_t layer, Adapter adapter) {
    lowrank::require(static_cast<index_t>(what) < linear_roles && layer >= 0 && layer < config_.layers,
                     "llama::adapter_set", "needs a linear weight of a layer, got role ", static_cast<int>(what),
                     " of layer ", layer);
    auto const wanted = linear_shape(config_, what);
    lowrank::require<lowrank::shape_error>(adapter.shape() == wanted, "llama::adapter_set", "\"", module(what, layer),
                                           "\" is ", wanted, ", its adapter ", adapter.shape());
    place(what, layer).adapter.emplace(std::move(adapter));
  }
  [[nodiscard]] Adapter* find(role what, index_t layer) noexcept {
    auto& at = place(what, layer).adapter;
    return at ? &*at : nullptr;
  }
  [[nodiscard]] bool has(role what, index_t layer) const noexcept {
    return places_[static_cast<std::size_t>(layer * linear_roles + static_cast<index_t>(what))].adapter.has_value();
  }
  /// f(what, layer, adapter) for each, layer by layer.
  template <class F>
  void each(F const& f) {
    for (index_t l = 0; l < config_.layers; ++l)
      for (index_t i = 0; i < linear_roles; ++i)
        if (auto* const adapter = find(static_cast<role>(i), l)) f(static_cast<role>(i), l, *adapter);
  }
  [[nodiscard]] config const& model_config() const noexcept { return config_; }
  /// The weight's name without ".weight".
  [[nodiscard]] std::string module(role what, index_t layer) const {
    auto const& name = list_[static_cast<std::size_t>(index_of(config_, what, layer))].name;
    return name.substr(0, name.size() - std::string_view{".weight"}.size());
  }
  [[nodiscard]] index_t parameter_count() {
    index_t sum = 0;
    each([&](role, index_t, Adapter const& a) { sum += a.parameter_count(); });
    return sum;
  }
  [[nodiscard]] index_t bytes() {
    index_t sum = 0;
    each([&](role, index_t, Adapter const& a) { sum += a.bytes(); });
    return sum;
  }

  /// Memory for training passes over up to `trained` tokens, with gradients, and for others over up to `evaluated`.
  void reserve(index_t trained, index_t evaluated) {
    index_t kept = 0, most = 0, gradients = 0;
    each([&](role what, index_t l, Adapter& a) {
      auto& at = place(what, l);
      at.kept = std::exchange(kept, kept + a.kept_size(trained));
      most = std::max(most, a.kept_size(evaluated));
      for (auto const& t : a.tensors()) gradients += t.rate != 0 ? t.values.size() : 0;
    });
    kept_ = lowrank::buffer<value_type>{std::max(kept, most)};
    gradients_ = lowrank::buffer<value_type>{gradients};
    auto* next = gradients_.data();
    each([&](role what, index_t l, Adapter& a) {
      auto& at = place(what, l);
      at.gradients.clear();
      for (auto const& t : a.tensors())
        at.gradients.push_back(t.rate == 0
                                   ? view<value_type>{}
                                   : lowrank::row_major(std::exchange(next, next + t.values.size()), t.values.shape()));
    });
    trained_tokens_ = trained, evaluated_tokens_ = evaluated;
  }
  /// What the next passes are for. Only those for training can be followed by a backward pass.
  void begin(lowrank::adapt::pass_info info) noexcept { info_ = info; }
  /// Tensors in the order of the weights.  Requires: `reserve`.
  [[nodiscard]] std::vector<trained_tensor<value_type>> tensors() {
    std::vector<trained_tensor<value_type>> out;
    each([&](role what, index_t l, Adapter& a) {
      std::size_t i = 0;
      for (auto const& t : a.tensors())
        out.push_back(
            {module(what, l) + "." + std::string{t.name}, t.values, place(what, l).gradients.at(i++), t.rate});
    });
    return out;
  }
  /// Scratch that passes over up to `tokens` take for adapters.
  [[nodiscard]] index_t workspace_bytes(index_t tokens) {
    index_t most = 0;
    each([&](role, index_t, Adapter const& a) { most = std::max(most, a.workspace_bytes(tokens)); });
    return most;
  }
  [[nodiscard]] index_t gradient_bytes() const noexcept { return gradients_.bytes(); }
  [[nodiscard]] index_t kept_bytes() const noexcept { return kept_.bytes(); }

  // What a pass calls: see no_adapters.
  [[nodiscard]] static constexpr bool scales_base() noexcept { return false; }
  template <class T>
  [[nodiscard]] T base_scale(role, index_t) const noexcept {
    return T{1};
  }
  template <class Executor>
  void forward(Executor& exec, role what, index_t l, view<value_type const> x, view<value_type> y) {
    auto* const adapter = find(what, l);
    if (adapter == nullptr) return;
    index_t const most = is_training() ? trained_tokens_ : evaluated_tokens_;
    lowrank::require<lowrank::state_error>(x.rows <= most, "llama::adapter_set", "has memory for ", most,
                                           " tokens, got ", x.rows);
    adapter->forward(exec, x, kept(what, l, x.rows), y, info_);
  }
  template <class Executor>
  void backward(Executor& exec, role what, index_t l, view<value_type const> x, view<value_type const> dy,
                view<value_type> dx) {
    auto* const adapter = find(what, l);
    if (adapter == nullptr) return;
    lowrank::require<lowrank::state_error>(is_training(), "llama::adapter_set",
                                           "needs a forward pass for training before a backward pass");
    adapter->backward(exec, x, std::span<value_type const>{kept(what, l, x.rows)}, dy,
                      std::span<view<value_type> const>{place(what, l).gradients}, dx, info_);
  }
  template <class Executor>
  void stream_gradient(Executor&, index_t, view<value_type>) const noexcept {}

 private:
  struct entry {
    std::optional<Adapter> adapter;
    index_t kept{};
    std::vector<view<value_type>> gradients;
  };
  [[nodiscard]] bool is_training() const noexcept { return info_.mode == lowrank::adapt::pass::training; }
  [[nodiscard]] entry& place(role what, index_t layer) noexcept {
    return places_[static_cast<std::size_t>(layer * linear_roles + static_cast<index_t>(what))];
  }
  /// Without a backward pass nothing is read again, and all share one place.
  [[nodiscard]] std::span<value_type> kept(role what, index_t l, index_t tokens) noexcept {
    auto& at = place(what, l);
    return {kept_.data() + (is_training() ? at.kept : 0), static_cast<std::size_t>(at.adapter->kept_size(tokens))};
  }

  config config_;
  std::vector<parameter> list_;
  std::vector<entry> places_;
  index_t trained_tokens_{}, evaluated_tokens_{};
  lowrank::adapt::pass_info info_{};
  lowrank::buffer<value_type> kept_, gradients_;
};

}  // namespace llama
