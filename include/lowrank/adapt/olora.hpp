/// @file
/// OLoRA: LoRA that starts from an orthonormal factor of the weight itself, which the base gives away.
#pragma once

#include "lowrank/adapt/lora.hpp"

namespace lowrank::adapt {

/// Whether what training started from is remembered: as many numbers again as are trained, but without them nobody can use the
/// adapter on the matrix as it was published.
enum class start_factors : std::uint8_t { kept, dropped };

template <class T>
class olora_adapter;

/// With W = Q R, the columns taken in their order: B = the first r columns of Q, A = the first r rows of R, and W ← W - s B A, so
/// that the layer's outputs stay what they were to rounding. B spans the first r columns of W, not its best subspace.
/// Reference: Büyükakyüz, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models", arXiv 2406.01775, algorithm 1.
struct olora {
  static constexpr bool mutates_base = true;

  index_t rank{8};
  float alpha{8};
  scaling scale{scaling::rank};
  float dropout{0};
  float rate_ratio{1};
  start_factors start{start_factors::kept};

  /// The LoRA it is once it has begun.
  [[nodiscard]] lora as_lora() const noexcept {
    return {.rank = rank, .alpha = alpha, .scale = scale, .dropout = dropout, .rate_ratio = rate_ratio};
  }
  [[nodiscard]] index_t parameter_count(extents shape) const noexcept { return as_lora().parameter_count(shape); }
  void check(extents shape) const { as_lora().check(shape); }
  /// Changes w.
  /// Cost: 4 m n r flops; allocates the factors, and scratch.
  template <class T, class E>
  [[nodiscard]] olora_adapter<T> make(E& exec, matrix_view<T> w, rng_key const& key) const {
    return olora_adapter<T>{exec, *this, w, key};
  }
};

/// A and B of a LoRA, beside a base from which their first values were subtracted.
template <class T>
class olora_adapter {
 public:
  using value_type = T;
  using settings_type = olora;

  template <std::derived_from<host_executor> E>
  olora_adapter(E& exec, olora const& settings, matrix_view<T> w, rng_key const& key)
      : settings_{(settings.check(w.shape()), settings)}, pair_{settings.as_lora(), w.shape(), key} {
    auto const [a, b] = pair_.tensors();
    // The first r columns of Q depend on those of W alone; of R, Qᵀ W has the rows wanted.
    matrix<float> q{b.values.shape()};
    convert(exec, w.col_range(0, settings.rank), q.view());
    exec.reserve(orthonormalize_bytes(q.shape()));
    orthonormal_report report;
    orthonormalize(exec, q.view(), key, &report);
    require(report.failed == 0, "olora", "needs finite weights, got NaN or infinity in a matrix of ", w.shape());
    convert(exec, q.view(), b.values);
    multiply(exec, T{1}, pair_.b().t(), matrix_view<T const>(w), T{0}, a.values);
    if (settings.start == start_factors::kept) {
      first_a_ = matrix<T>{a.values.shape()}, first_b_ = matrix<T>{b.values.shape()};
      copy(exec, a.values, first_a_.view());
      copy(exec, b.values, first_b_.view());
    }
    pair_.add_to(exec, T{-1}, w);
  }

  [[nodiscard]] olora const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return pair_.shape(); }
  [[nodiscard]] index_t rank() const noexcept { return settings_.rank; }
  [[nodiscard]] auto tensors() noexcept { return pair_.tensors(); }
  [[nodiscard]] auto tensors() const noexcept { return pair_.tensors(); }
  [[nodiscard]] index_t parameter_count() const noexcept { return pair_.parameter_count(); }
  [[nodiscard]] index_t bytes() const noexcept { return pair_.bytes() + first_a_.bytes() + first_b_.bytes(); }
  [[nodiscard]] index_t kept_size(index_t tokens) const noexcept { return pair_.kept_size(tokens); }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept { return pair_.workspace_bytes(tokens); }

  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y, pass_info info = {}) const {
    pair_.forward(exec, x, kept, y, info);
  }
  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx, pass_info info = {}) const {
    pair_.backward(exec, x, kept, dy, gradients, dx, info);
  }
  /// W += scale ΔW, for the changed W.
  template <std::derived_from<host_executor> E>
  void add_to(E& exec, T scale, matrix_view<T> w) const {
    pair_.add_to(exec, scale, w);
  }
  /// Relative to the changed base.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] low_rank_factors<T> factors(E& exec) const {
    return pair_.factors(exec);
  }
  /// Relative to the base as it was: s [B, -B₀] and [A; A₀], with the factors of the start.
  /// Shapes: m x 2r and 2r x n.  Throws: state_error where those were not kept.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] low_rank_factors<T> factors_for_original(E& exec) const {
    require<state_error>(settings_.start == start_factors::kept, "olora",
                         "needs start_factors::kept to tell the change of the original matrix");
    return detail::difference_of_pairs(exec, pair_.scale(), pair_.b(), pair_.a(), pair_.scale(),
                                       std::as_const(first_b_).view(), std::as_const(first_a_).view());
  }

 private:
  olora settings_;
  lora_adapter<T> pair_;
  matrix<T> first_a_, first_b_;
};
static_assert(base_changing_adapter<olora_adapter<float>> && adapter_settings<olora> &&
              adapter_settings<olora, double>);

}  // namespace lowrank::adapt
