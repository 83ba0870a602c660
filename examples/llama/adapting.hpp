/// @file
/// Where adapters take part in a pass.
#pragma once

#include "activations.hpp"

namespace llama {

/// What a pass asks of adapters on its linear weights; this one has none, and costs nothing. Layers are those of the model.
struct no_adapters {
  /// Whether `base_scale` is anything but 1 for some weight.
  [[nodiscard]] static constexpr bool scales_base() noexcept { return false; }
  /// What the base weight's output is multiplied by; at 0 the weight is not read.
  template <class T>
  [[nodiscard]] T base_scale(role, index_t) const noexcept {
    return T{1};
  }
  /// Y += X ΔWᵀ, where Y holds what the base puts out.
  template <class Executor, class T>
  void forward(Executor&, role, index_t, view<T const>, view<T>) const noexcept {}
  /// Gradients of the adapter, and dX += dY ΔW; dX holds the base's part.
  template <class Executor, class T>
  void backward(Executor&, role, index_t, view<T const>, view<T const>, view<T>) const noexcept {}
  /// dS, the gradient of the residual stream that enters layer `l` (or leaves the last one), is complete but for what is
  /// added here.
  template <class Executor, class T>
  void stream_gradient(Executor&, index_t, view<T>) const noexcept {}
};

}  // namespace llama
