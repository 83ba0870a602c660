/// @file
/// PC-LoRA: while a LoRA learns, the matrix that it is an adapter of fades away. In the end the two factors are the layer.
#pragma once

#include "lowrank/adapt/decay_schedule.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/factor/factor_pair.hpp"
#include "lowrank/linalg/randomized_svd.hpp"

namespace lowrank::adapt {

/// What the factors are at first.
enum class pc_lora_start : std::uint8_t {
  lora,           ///< A uniform, B = 0: all of the matrix has to be learnt again
  truncated_svd,  ///< s B A is the best approximation of the matrix, and only what it lacks fades
};

/// y = λ W x + s B A x + b with λ from 1 to 0 by `decay`. Its adapter is a LoRA, whose base the caller multiplies by λ; the whole
/// layer is `pc_lora_layer`.
/// Reference: Hwang et al., "PC-LoRA: Low-Rank Adaptation for Progressive Model Compression with Knowledge Distillation", arXiv
/// 2406.09117, section 3. The start from an SVD is ours.
struct pc_lora {
  static constexpr bool mutates_base = true;  ///< with the start from an SVD: W ← W - s B A

  index_t rank{8};
  float alpha{8};
  scaling scale{scaling::rank};
  pc_lora_start start{pc_lora_start::lora};
  decay_schedule decay{};
  range_options search{.oversampling = 10, .power_iterations = 4};  ///< for the singular vectors

  [[nodiscard]] lora as_lora() const noexcept { return {.rank = rank, .alpha = alpha, .scale = scale}; }
  [[nodiscard]] index_t parameter_count(extents shape) const noexcept { return as_lora().parameter_count(shape); }
  void check(extents shape) const {
    as_lora().check(shape);
    decay.check();
    require(start <= pc_lora_start::truncated_svd, "pc_lora", "unknown start ", static_cast<int>(start));
  }
  /// The pair; w becomes what is to fade. With the start from an SVD it is a pair for that w, not for the one that was: see
  /// `change_since`.
  /// Throws: shape_error; argument_error for NaN or infinity; w is unchanged then.
  template <class T, class E>
  [[nodiscard]] lora_adapter<T> make(E& exec, matrix_view<T> w, rng_key const& key) const {
    check(w.shape());
    lora_adapter<T> pair{as_lora(), w.shape(), key};
    if (start == pc_lora_start::lora) {
      pair.draw(exec);
      return pair;
    }
    matrix<float> seen{w.shape()}, u{w.rows, rank}, v{w.cols, rank};
    std::vector<double> values(static_cast<std::size_t>(rank));
    convert(exec, w, seen.view());
    exec.reserve(randomized_svd_bytes(w.shape(), rank, search));
    range_report report{};
    randomized_svd(exec, seen.view(), rank, {.u = u.view(), .values = values.data(), .v = v.view()}, search, key,
                   &report);
    require(report.failed == 0, "pc_lora", "needs finite weights, got NaN or infinity in a matrix of ", w.shape());
    pair.set_components(values, std::as_const(u).view(), std::as_const(v).view());
    pair.add_to(exec, T{-1}, w);
    return pair;
  }
};

/// A linear layer that becomes its two factors. It owns copies of what it was made from: the dense layer stays what it was, so
/// that it can be the teacher of a distillation (distillation.hpp).
/// Cost: that of the dense layer and of a LoRA; once the base has gone, 2 T r (m + n) flops and r (m + n) + m numbers.
template <class T>
class pc_lora_layer {
 public:
  using value_type = T;

  /// Shapes: W m x n, bias m or empty.  Throws: shape_error; argument_error for NaN or infinity in W.
  template <std::derived_from<host_executor> E>
  pc_lora_layer(E& exec, pc_lora const& settings, matrix_view<T const> w, std::span<T const> bias, rng_key const& key)
      : settings_{(settings.check(w.shape()), settings)},
        base_{copied(exec, w)},
        bias_{bias.empty() ? 0 : 1, static_cast<index_t>(bias.size())},
        pair_{make_adapter<T>(exec, settings, base_.view(), key)} {
    lowrank::detail::check_bias("pc_lora_layer", bias, w.rows);
    std::copy(bias.begin(), bias.end(), bias_.data());
  }

  [[nodiscard]] pc_lora const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return pair_.shape(); }
  /// λ.
  [[nodiscard]] double share() const noexcept { return share_; }
  [[nodiscard]] bool has_base() const noexcept { return base_.data() != nullptr; }
  /// lora_A, lora_B, and the bias where there is one, which never fades.
  [[nodiscard]] std::vector<tensor<T>> tensors() noexcept {
    auto const [a, b] = pair_.tensors();
    std::vector<tensor<T>> out{a, b};
    if (!bias_.view().empty()) out.push_back({"bias", bias_.view()});
    return out;
  }
  [[nodiscard]] std::vector<tensor<T const>> tensors() const noexcept {
    auto const [a, b] = pair_.tensors();
    std::vector<tensor<T const>> out{a, b};
    if (!bias_.view().empty()) out.push_back({"bias", bias_.view()});
    return out;
  }
  [[nodiscard]] index_t parameter_count() const noexcept { return pair_.parameter_count() + bias_.shape().size(); }
  /// Everything it holds now: m n numbers less once the base has gone.
  [[nodiscard]] index_t bytes() const noexcept { return base_.bytes() + bias_.bytes() + pair_.bytes(); }
  [[nodiscard]] index_t kept_size(index_t tokens) const noexcept { return pair_.kept_size(tokens); }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept { return pair_.workspace_bytes(tokens); }

  /// λ after so many updates of the optimizer. Where it is 0, the base is given back, and there is no way back.
  /// Throws: state_error when the base has gone and would be needed.
  void advance(index_t updates) {
    double const next = settings_.decay.share(updates);
    require<state_error>(next == 0 || has_base(), "pc_lora_layer::advance", "the base went at update ",
                         settings_.decay.updates, ", there is no share of it after ", updates);
    share_ = next;
    if (next == 0) base_ = matrix<T>{};
  }

  /// Y = λ X Wᵀ + s (X Aᵀ) Bᵀ + b.
  /// Shapes: X T x n, kept kept_size(T), Y T x m, which may hold anything.
  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y) const {
    detail::check_forward("pc_lora_layer", shape(), x, kept.size(), kept_size(x.rows), y);
    if (has_base()) multiply(exec, static_cast<T>(share_), x, base_.view().t(), T{0}, y);
    else fill(exec, y, T{0});
    lowrank::detail::add_to_rows<E, T>(exec, bias(), y);
    pair_.forward(exec, x, kept, y);
  }
  /// Gradients of `tensors()`, and dX = dY (λ W + s B A) unless it is empty: all overwritten. The base has none.
  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx) const {
    detail::check_backward("pc_lora_layer", shape(), tensors(), x, kept.size(), kept_size(x.rows), dy, gradients, dx);
    if (auto const d_bias = detail::wanted(gradients, 2); !d_bias.empty()) sum_rows(exec, dy, d_bias);
    if (!dx.empty() && has_base()) multiply(exec, static_cast<T>(share_), dy, base_.view(), T{0}, dx);
    else if (!dx.empty()) fill(exec, dx, T{0});
    pair_.backward(exec, x, kept, dy, gradients.first(std::min<std::size_t>(gradients.size(), 2)), dx);
  }

  /// The layer without its base: U = s B, V = A and the bias.
  /// Throws: state_error before the base has gone.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] factor_pair finish(E& exec) const {
    require<state_error>(!has_base(), "pc_lora_layer::finish", "the base still has a share of ", share_,
                         ": advance to update ", settings_.decay.updates, " first");
    factor_pair out{shape(), settings_.rank};
    auto const pair = pair_.factors(exec);
    convert(exec, pair.left.view(), out.u.view());
    convert(exec, pair.right.view(), out.v.view());
    for (T const b : bias()) out.bias.push_back(static_cast<float>(b));
    return out;
  }

 private:
  template <class E>
  static matrix<T> copied(E& exec, matrix_view<T const> w) {
    matrix<T> out{w.shape()};
    copy(exec, w, out.view());
    return out;
  }
  [[nodiscard]] std::span<T const> bias() const noexcept {
    return {bias_.data(), static_cast<std::size_t>(bias_.shape().size())};
  }
  template <class E>
  static void sum_rows(E& exec, matrix_view<T const> dy, matrix_view<T> out) {
    std::vector<T> sums(static_cast<std::size_t>(out.size()));
    lowrank::detail::sum_rows<E, T>(exec, dy, T{0}, sums);
    for (index_t j = 0; j < out.cols; ++j) out(0, j) = sums[static_cast<std::size_t>(j)];
  }

  pc_lora settings_;
  double share_{1};
  matrix<T> base_;
  matrix<T> bias_;
  lora_adapter<T> pair_;
};
static_assert(adapter_settings<pc_lora>);

}  // namespace lowrank::adapt
