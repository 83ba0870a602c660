/// @file
/// One of several kinds of adapters, chosen while the program runs.
#pragma once

#include <variant>
#include <vector>

#include "lowrank/adapt/adapter.hpp"

namespace llama {

/// Calls of whichever adapter it holds; all have the same number type.
template <lowrank::adapt::adapter First, lowrank::adapt::adapter... Others>
class any_adapter {
  using index_t = lowrank::index_t;

 public:
  using value_type = typename First::value_type;
  using tensor = lowrank::adapt::tensor<value_type>;
  template <class T>
  using view = lowrank::matrix_view<T>;

  template <class Adapter>
    requires(!std::same_as<std::remove_cvref_t<Adapter>, any_adapter>)
  any_adapter(Adapter&& adapter)  // NOLINT(google-explicit-constructor): a choice of them
      : held_{std::forward<Adapter>(adapter)} {}

  [[nodiscard]] lowrank::extents shape() const {
    return std::visit([](auto const& a) { return a.shape(); }, held_);
  }
  [[nodiscard]] std::vector<tensor> tensors() {
    return std::visit(
        [](auto& a) {
          auto const all = a.tensors();
          return std::vector<tensor>(all.begin(), all.end());
        },
        held_);
  }
  [[nodiscard]] index_t parameter_count() const {
    return std::visit([](auto const& a) { return a.parameter_count(); }, held_);
  }
  [[nodiscard]] index_t bytes() const {
    return std::visit([](auto const& a) { return a.bytes(); }, held_);
  }
  [[nodiscard]] index_t kept_size(index_t tokens) const {
    return std::visit([=](auto const& a) { return a.kept_size(tokens); }, held_);
  }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const {
    return std::visit([=](auto const& a) { return a.workspace_bytes(tokens); }, held_);
  }
  template <class Executor>
  void forward(Executor& exec, view<value_type const> x, std::span<value_type> kept, view<value_type> y,
               lowrank::adapt::pass_info info) const {
    std::visit([&](auto const& a) { a.forward(exec, x, kept, y, info); }, held_);
  }
  template <class Executor>
  void backward(Executor& exec, view<value_type const> x, std::span<value_type const> kept, view<value_type const> dy,
                std::span<view<value_type> const> gradients, view<value_type> dx,
                lowrank::adapt::pass_info info) const {
    std::visit([&](auto const& a) { a.backward(exec, x, kept, dy, gradients, dx, info); }, held_);
  }
  template <class Executor>
  void add_to(Executor& exec, value_type scale, view<value_type> w) const {
    std::visit([&](auto const& a) { a.add_to(exec, scale, w); }, held_);
  }
  /// f(adapter), with its own type.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), held_);
  }

 private:
  std::variant<First, Others...> held_;
};

}  // namespace llama
