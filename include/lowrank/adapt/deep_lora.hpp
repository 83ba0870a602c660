/// @file
/// Deep LoRA: ΔW as a product of three or more factors. What is learnt from few examples then has fewer directions than there
/// is room for, so that a rank chosen too large does no harm.
#pragma once

#include <cmath>
#include <ostream>

#include "lowrank/adapt/detail/factor_chain.hpp"
#include "lowrank/adapt/scaling.hpp"
#include "lowrank/linalg/randomized_svd.hpp"

namespace lowrank::adapt {

enum class deep_lora_form : std::uint8_t {
  /// W_L ... W_1 of sizes m x r, r x r ..., r x n, each init_scale times orthonormal: what the published runs use.
  narrow_chain,
  /// left W_L ... W_1 right with r x r inner factors init_scale · I between orthonormal outer ones that come from one gradient
  /// of the layer and learn at `gamma` times the rate: the dynamics of a chain of full width. Of even rank.
  compressed,
  /// B W_{L-1} ... W_2 A with B = 0, inner factors I, A as LoRA begins with and the scale alpha / r^(L - 1): as in a fork of PEFT.
  scaled_chain,
};
inline std::ostream& operator<<(std::ostream& out, deep_lora_form form) {
  return out << (form == deep_lora_form::narrow_chain ? "narrow_chain"
                 : form == deep_lora_form::compressed ? "compressed"
                                                      : "scaled_chain");
}

template <class T>
class deep_lora_adapter;

/// Reference: Yaras, Wang, Balzano, Qu, "Compressible Dynamics in Deep Overparameterized Low-Rank Learning & Adaptation", arXiv
/// 2406.04112, sections 3 and 4. The compressed form streams: where its algorithm forms factors of full width, only their
/// product matters, and random orthonormal complements of the gradient's singular vectors give such a product without any.
struct deep_lora {
  static constexpr bool mutates_base = false;

  index_t rank{8};
  index_t depth{3};         ///< L: factors of a chain; inner factors of the compressed form
  float init_scale{1e-3F};  ///< ΔW is of the size init_scale^L at first, not 0; not of `scaled_chain`
  float gamma{1e-2F};       ///< of the outer factors of `compressed`; 0 freezes them
  float alpha{8};           ///< of `scaled_chain`
  deep_lora_form form{deep_lora_form::narrow_chain};

  /// Whether `make` has to be told a gradient of the layer.
  [[nodiscard]] bool needs_gradient() const noexcept { return form == deep_lora_form::compressed; }
  /// Factors between the first and the last.
  [[nodiscard]] index_t inner_count() const noexcept { return needs_gradient() ? depth : depth - 2; }
  [[nodiscard]] index_t parameter_count(extents shape) const noexcept {
    index_t const outer = needs_gradient() && gamma == 0 ? 0 : rank * (shape.rows + shape.cols);
    return outer + inner_count() * rank * rank;
  }
  [[nodiscard]] double scale() const noexcept {
    if (form != deep_lora_form::scaled_chain) return 1;
    return static_cast<double>(alpha) / std::pow(static_cast<double>(rank), static_cast<double>(depth - 1));
  }

  void check(extents shape) const {
    detail::check_rank("deep_lora", rank, shape);
    detail::check_alpha("deep_lora", alpha);
    require(form <= deep_lora_form::scaled_chain, "deep_lora", "unknown form ", static_cast<int>(form));
    require<shape_error>(!needs_gradient() || rank % 2 == 0, "deep_lora",
                         "the compressed form needs an even rank, half of which is that of the gradient, got ", rank);
    require(depth >= 2 && depth <= detail::most_factors, "deep_lora", "depth must be in [2, ", detail::most_factors,
            "], got ", depth);
    require(is_finite(init_scale) && init_scale > 0, "deep_lora", "init_scale must be positive and finite, got ",
            init_scale);
    require(is_finite(gamma) && gamma >= 0, "deep_lora", "gamma must be finite and >= 0, got ", gamma);
  }
  /// The chains. Throws: argument_error for the compressed form.
  template <class T, class E>
  [[nodiscard]] deep_lora_adapter<T> make(E& exec, matrix_view<T> w, rng_key const& key) const {
    check(w.shape());
    require(!needs_gradient(), "deep_lora",
            "the compressed form needs a gradient of the layer: make(exec, w, key, gradient)");
    deep_lora_adapter<T> out{*this, w.shape(), key};
    out.draw(exec);
    return out;
  }
  /// Any form; `gradient` is dL/dW of the layer over one batch, dense or as its two factors (core/gradient.hpp). The chains do not
  /// look at it.
  /// Cost: one randomized SVD of rank r / 2 and two orthonormalisations; the executor's scratch grows as they need it.
  /// Throws: shape_error; argument_error for a gradient with NaN or infinity.
  template <class T, class E, gradient_argument G>
  [[nodiscard]] deep_lora_adapter<T> make(E& exec, matrix_view<T> w, rng_key const& key, G const& gradient) const {
    check(w.shape());
    require<shape_error>(gradient.shape() == w.shape(), "deep_lora", "needs a gradient of ", w.shape(), ", got ",
                         gradient.shape());
    deep_lora_adapter<T> out{*this, w.shape(), key};
    if (needs_gradient()) out.compress(exec, as_gradient(gradient));
    else out.draw(exec);
    return out;
  }
};

/// The factors, from the inputs to the outputs.
/// Cost: that of LoRA; the r x r factors are multiplied with each other first, 2 r³ flops each. Kept: r numbers a token.
template <class T>
class deep_lora_adapter {
 public:
  using value_type = T;
  using settings_type = deep_lora;

  /// All factors 0: to be drawn, or filled with what a file holds.
  deep_lora_adapter(deep_lora const& settings, extents shape, rng_key const& key = {})
      : settings_{(settings.check(shape), settings)}, key_{key}, chain_{shape, settings.rank, settings.inner_count()} {}

  [[nodiscard]] deep_lora const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return chain_.shape(); }
  /// Chains: W1 (next to the inputs) to WL. The compressed form: right (r x n), W1 to WL, left (m x r).
  [[nodiscard]] std::vector<tensor<T>> tensors() noexcept { return chain_.tensors(names(), outer_rate()); }
  [[nodiscard]] std::vector<tensor<T const>> tensors() const noexcept { return chain_.tensors(names(), outer_rate()); }
  [[nodiscard]] index_t parameter_count() const noexcept { return settings_.parameter_count(shape()); }
  [[nodiscard]] index_t bytes() const noexcept { return chain_.bytes(); }
  [[nodiscard]] index_t kept_size(index_t tokens) const noexcept { return tokens * settings_.rank; }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept { return chain_.workspace_bytes(tokens); }

  /// The numbers that training of a chain starts from.
  template <std::derived_from<host_executor> E>
  void draw(E& exec) {
    if (settings_.form == deep_lora_form::scaled_chain) {
      T const bound = static_cast<T>(1 / std::sqrt(static_cast<double>(shape().cols)));
      random_basis const uniform{stream(0), 1, chain_.first.shape()};
      fill(exec, chain_.first.view(), T{0});
      combine<E, T>(exec, uniform, std::span<T const>{&bound, 1}, T{1}, chain_.first.view());
      set_inner(exec, T{1});
      fill(exec, chain_.last.view(), T{0});
      return;
    }
    auto const size = static_cast<T>(settings_.init_scale);
    std::uint32_t number = 0;
    detail::fill_orthonormal(exec, stream(number++), size, chain_.first.view());
    for (auto& factor : chain_.inner) detail::fill_orthonormal(exec, stream(number++), size, factor.view());
    detail::fill_orthonormal(exec, stream(number), size, chain_.last.view());
  }
  /// The numbers that the compressed form starts from, by a gradient of the layer. Its singular vectors are crossed with random
  /// ones: left = [Y, U], right = [V, Z], so that inner factors init_scale · I pair U with Z and Y with V, as a wide orthogonal
  /// product would.
  template <std::derived_from<host_executor> E, gradient G>
  void compress(E& exec, G const& g) {
    index_t const r = settings_.rank, half = r / 2;
    matrix<float> u{shape().rows, r}, v{shape().cols, r};
    range_options const options{.power_iterations = 2};
    exec.reserve(std::max({randomized_svd_bytes(shape(), half, options, tokens_of(g)), orthonormalize_bytes(u.shape()),
                           orthonormalize_bytes(v.shape())}));
    range_report found{};
    randomized_svd(exec, g, half,
                   {.u = u.view().col_range(0, half), .values = nullptr, .v = v.view().col_range(0, half)}, options,
                   stream(0), &found);
    require(found.failed == 0, "deep_lora", "needs a finite gradient, got NaN or infinity in one of ", shape());
    complete(exec, stream(1), u.view(), half);
    complete(exec, stream(2), v.view(), half);
    convert(exec, u.view().col_range(half, r), chain_.last.view().col_range(0, half));
    convert(exec, u.view().col_range(0, half), chain_.last.view().col_range(half, r));
    convert(exec, v.view().t(), chain_.first.view());
    set_inner(exec, static_cast<T>(settings_.init_scale));
  }

  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y, pass_info = {}) const {
    detail::check_forward("deep_lora", shape(), x, kept.size(), kept_size(x.rows), y);
    chain_.forward(exec, scale(), x, kept.data(), y);
  }
  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx, pass_info = {}) const {
    detail::check_backward("deep_lora", shape(), tensors(), x, kept.size(), kept_size(x.rows), dy, gradients, dx);
    chain_.backward(exec, scale(), x, kept.data(), dy, gradients, dx);
  }
  /// s times all factors but the one next to the inputs, and that one: plain LoRA of the same rank.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] low_rank_factors<T> factors(E& exec) const {
    low_rank_factors<T> out{matrix<T>{chain_.last.shape()}, matrix<T>{chain_.first.shape()}};
    exec.reserve(workspace_bytes(0));
    scratch_scope const scope{exec};
    copy(exec, matrix_view<T const>(chain_.first.view()), out.right.view());
    multiply(exec, scale(), chain_.last.view(), chain_.multiply_inner(exec, nullptr), T{0}, out.left.view());
    return out;
  }
  template <std::derived_from<host_executor> E>
  void add_to(E& exec, T scale, matrix_view<T> w) const {
    require<shape_error>(w.shape() == shape(), "deep_lora", "needs a matrix of ", shape(), ", got ", w.shape());
    auto const pair = factors(exec);
    multiply(exec, scale, pair.left.view(), pair.right.view(), T{1}, w);
  }

 private:
  [[nodiscard]] rng_key stream(std::uint32_t number) const noexcept {
    return {key_.seed, number, key_.tensor, rng_purpose::initialisation};
  }
  [[nodiscard]] detail::chain_names names() const noexcept {
    return settings_.needs_gradient() ? detail::chain_names::outer_apart : detail::chain_names::in_a_row;
  }
  [[nodiscard]] T scale() const noexcept { return static_cast<T>(settings_.scale()); }
  [[nodiscard]] float outer_rate() const noexcept { return settings_.needs_gradient() ? settings_.gamma : 1.0F; }
  template <class E>
  void set_inner(E& exec, T value) {
    for (auto& factor : chain_.inner) fill(exec, factor.view(), T{0});
    for (auto& factor : chain_.inner)
      for (index_t i = 0; i < settings_.rank; ++i) factor(i, i) = value;
  }
  /// Columns from `known` on become random ones, orthonormal to the others and to those before.
  template <class E>
  static void complete(E& exec, rng_key const& key, matrix_view<float> q, index_t known) {
    fill_gaussian(exec, key, q.col_range(known, q.cols));
    orthonormalize(exec, q, key);
  }

  deep_lora settings_;
  rng_key key_;
  detail::factor_chain<T> chain_;
};
static_assert(low_rank_adapter<deep_lora_adapter<float>>);

}  // namespace lowrank::adapt
