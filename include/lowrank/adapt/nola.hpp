/// @file
/// NOLA: both factors of a LoRA are combinations of random matrices, and only the coefficients are trained. The random
/// matrices are made again whenever they are needed, tile by tile, and never stored.
#pragma once

#include <cmath>
#include <ostream>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/adapt/random_combination.hpp"
#include "lowrank/adapt/scaling.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank::adapt {

/// The two published forms.
enum class nola_variant : std::uint8_t {
  /// For GPT and LLaMA: A = A₀ + Σ α_i A_i with a frozen A₀ as LoRA begins with, elements of A_i uniform in ±1/√k, of B_j in
  /// ±1/√l, all coefficients 0 at first, scale alpha / r. ΔW is 0 at first.
  language,
  /// For ViT: no A₀, elements of A_i uniform in ±1/√(r n), of B_j in ±1/√(r m), α_i = 1/k and β_j = 1/l at first, scale 1 / r.
  /// ΔW is not 0 at first.
  vision,
};
inline std::ostream& operator<<(std::ostream& out, nola_variant variant) {
  return out << (variant == nola_variant::language ? "language" : "vision");
}

template <class T>
class nola_adapter;

/// ΔW = s B A, A = A₀ + Σ α_i A_i (r x n, k matrices), B = Σ β_j B_j (m x r, l matrices): k + l numbers, whatever m, n and r.
/// Reference: Koohpayegani et al., "NOLA: Compressing LoRA using Linear Combination of Random Basis", arXiv 2310.02556, eq. 2; the
/// initial values and amplitudes are those of its code.
struct nola {
  static constexpr bool mutates_base = false;

  index_t rank{16};
  index_t right_count{256};  ///< k: matrices that A is a combination of
  index_t left_count{256};   ///< l: those of B
  float alpha{4};            ///< of `language` only
  nola_variant variant{nola_variant::language};

  [[nodiscard]] index_t parameter_count(extents) const noexcept { return right_count + left_count; }
  [[nodiscard]] double scale() const noexcept {
    return (variant == nola_variant::language ? static_cast<double>(alpha) : 1.0) / static_cast<double>(rank);
  }

  void check(extents shape) const {
    detail::check_rank("nola", rank, shape);
    detail::check_alpha("nola", alpha);
    constexpr index_t most = index_t{1} << 24;
    require(right_count >= 1 && right_count <= most && left_count >= 1 && left_count <= most, "nola",
            "right_count and left_count must be in [1, ", most, "], got ", right_count, " and ", left_count);
    require(variant == nola_variant::language || variant == nola_variant::vision, "nola", "unknown variant ",
            static_cast<int>(variant));
  }
  template <class T, class E>
  [[nodiscard]] nola_adapter<T> make(E&, matrix_view<T> w, rng_key const& key) const {
    check(w.shape());
    return nola_adapter<T>{*this, w.shape(), key};
  }
};

/// The coefficients, and the keys from which everything else is made.
/// Cost: besides that of LoRA, r (k n + l m) random numbers in forward and as many in backward, whatever the number of
/// tokens. Kept: r numbers a token. Workspace: A and B, in backward their gradients too; never a matrix of a basis.
template <class T>
class nola_adapter {
 public:
  using value_type = T;
  using settings_type = nola;

  /// The matrices depend on `key.seed` and `key.tensor` alone: adapters of equal keys share their bases.
  nola_adapter(nola const& settings, extents shape, rng_key const& key)
      : settings_{(settings.check(shape), settings)},
        shape_{shape},
        frozen_{stream(key, 0), 1, {settings.rank, shape.cols}},
        right_{stream(key, 1), settings.right_count, {settings.rank, shape.cols}},
        left_{stream(key, 2), settings.left_count, {shape.rows, settings.rank}},
        alpha_{1, settings.right_count},
        beta_{1, settings.left_count} {
    if (settings.variant == nola_variant::language) return;
    std::fill_n(alpha_.data(), settings.right_count, T{1} / static_cast<T>(settings.right_count));
    std::fill_n(beta_.data(), settings.left_count, T{1} / static_cast<T>(settings.left_count));
  }

  [[nodiscard]] nola const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return shape_; }
  [[nodiscard]] std::array<tensor<T>, 2> tensors() noexcept {
    return {tensor<T>{"nola_alpha", alpha_.view()}, tensor<T>{"nola_beta", beta_.view()}};
  }
  [[nodiscard]] std::array<tensor<T const>, 2> tensors() const noexcept {
    return {tensor<T const>{"nola_alpha", alpha_.view()}, tensor<T const>{"nola_beta", beta_.view()}};
  }
  [[nodiscard]] index_t parameter_count() const noexcept { return settings_.parameter_count(shape_); }
  [[nodiscard]] index_t bytes() const noexcept { return alpha_.bytes() + beta_.bytes(); }
  [[nodiscard]] index_t kept_size(index_t tokens) const noexcept { return tokens * settings_.rank; }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept {
    return 2 * (scratch_bytes<T>(right_.shape.size()) + scratch_bytes<T>(left_.shape.size())) +
           scratch_bytes<T>(kept_size(tokens)) + std::max(pass_bytes(right_), pass_bytes(left_));
  }
  /// A_1 ... A_k and B_1 ... B_l before their amplitudes.
  [[nodiscard]] random_basis const& right_basis() const noexcept { return right_; }
  [[nodiscard]] random_basis const& left_basis() const noexcept { return left_; }

  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y, pass_info = {}) const {
    detail::check_forward("nola", shape_, x, kept.size(), kept_size(x.rows), y);
    scratch_scope const scope{exec};
    auto const z = row_major(kept.data(), {x.rows, settings_.rank});
    auto const a = take_matrix<T>(exec, right_.shape), b = take_matrix<T>(exec, left_.shape);
    begin_right(exec, a);
    combine<E, T>(exec, right_, alpha(), right_amplitude(), a);
    multiply(exec, T{1}, x, matrix_view<T const>(a).t(), T{0}, z);
    fill(exec, b, T{0});
    combine<E, T>(exec, left_, beta(), left_amplitude(), b);
    multiply(exec, scale(), matrix_view<T const>(z), matrix_view<T const>(b).t(), T{1}, y);
  }

  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx, pass_info = {}) const {
    detail::check_backward("nola", shape_, tensors(), x, kept.size(), kept_size(x.rows), dy, gradients, dx);
    auto const d_alpha = detail::wanted(gradients, 0), d_beta = detail::wanted(gradients, 1);
    bool const upstream = !d_alpha.empty() || !dx.empty();
    scratch_scope const scope{exec};
    // B and the gradient of beta come from one pass over the left basis, because dB does not depend on B; the same on the right.
    auto const z = row_major(kept.data(), {x.rows, settings_.rank});
    auto const dz = take_matrix<T>(exec, {x.rows, settings_.rank});
    {
      auto const b = upstream ? take_matrix<T>(exec, left_.shape) : matrix_view<T>{};
      auto const db = d_beta.empty() ? matrix_view<T>{} : take_matrix<T>(exec, left_.shape);
      if (upstream) fill(exec, b, T{0});
      if (!d_beta.empty()) multiply(exec, scale(), dy.t(), z, T{0}, db);
      make_and_project(exec, left_, beta(), left_amplitude(), b, db, d_beta);
      if (!upstream) return;
      multiply(exec, scale(), dy, matrix_view<T const>(b), T{0}, dz);
    }
    auto const a = dx.empty() ? matrix_view<T>{} : take_matrix<T>(exec, right_.shape);
    auto const da = d_alpha.empty() ? matrix_view<T>{} : take_matrix<T>(exec, right_.shape);
    if (!dx.empty()) begin_right(exec, a);
    if (!d_alpha.empty()) multiply(exec, T{1}, matrix_view<T const>(dz).t(), x, T{0}, da);
    make_and_project(exec, right_, alpha(), right_amplitude(), a, da, d_alpha);
    if (!dx.empty()) multiply(exec, T{1}, matrix_view<T const>(dz), matrix_view<T const>(a), T{1}, dx);
  }

  /// s B and A, as plain LoRA has them.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] low_rank_factors<T> factors(E& exec) const {
    low_rank_factors<T> out{matrix<T>{left_.shape}, matrix<T>{right_.shape}};
    begin_right(exec, out.right.view());
    combine<E, T>(exec, right_, alpha(), right_amplitude(), out.right.view());
    combine<E, T>(exec, left_, beta(), scale() * left_amplitude(), out.left.view());
    return out;
  }
  template <std::derived_from<host_executor> E>
  void add_to(E& exec, T scale, matrix_view<T> w) const {
    require<shape_error>(w.shape() == shape_, "nola", "needs a matrix of ", shape_, ", got ", w.shape());
    auto const pair = factors(exec);
    multiply(exec, scale, pair.left.view(), pair.right.view(), T{1}, w);
  }

 private:
  static rng_key stream(rng_key const& key, std::uint32_t number) noexcept {
    return {key.seed, number, key.tensor, rng_purpose::initialisation};
  }
  [[nodiscard]] bool is_language() const noexcept { return settings_.variant == nola_variant::language; }
  [[nodiscard]] T scale() const noexcept { return static_cast<T>(settings_.scale()); }
  /// Largest magnitude of an element of A_i, and of B_j.
  [[nodiscard]] T right_amplitude() const noexcept {
    return static_cast<T>(1 / std::sqrt(static_cast<double>(is_language() ? right_.count : right_.shape.size())));
  }
  [[nodiscard]] T left_amplitude() const noexcept {
    return static_cast<T>(1 / std::sqrt(static_cast<double>(is_language() ? left_.count : left_.shape.size())));
  }
  [[nodiscard]] std::span<T const> alpha() const noexcept {
    return {alpha_.data(), static_cast<std::size_t>(right_.count)};
  }
  [[nodiscard]] std::span<T const> beta() const noexcept {
    return {beta_.data(), static_cast<std::size_t>(left_.count)};
  }
  /// A = A₀: uniform in ±1/√n, or nothing.
  template <class E>
  void begin_right(E& exec, matrix_view<T> a) const {
    fill(exec, a, T{0});
    T const bound = static_cast<T>(1 / std::sqrt(static_cast<double>(shape_.cols)));
    if (is_language()) combine<E, T>(exec, frozen_, std::span<T const>{&bound, 1}, T{1}, a);
  }
  [[nodiscard]] static index_t pass_bytes(random_basis const& basis) noexcept {
    return project_bytes(basis) + scratch_bytes<T>(basis.count);
  }
  /// The combination, where it is asked for, and the gradient of its coefficients, where that is.
  template <class E>
  static void make_and_project(E& exec, random_basis const& basis, std::span<T const> coefficients, T amplitude,
                               matrix_view<T> sum, matrix_view<T> d_sum, matrix_view<T> d_coefficients) {
    if (sum.empty() && d_sum.empty()) return;
    scratch_scope const scope{exec};
    auto* const products = d_sum.empty() ? nullptr : exec.arena().template take<T>(basis.count);
    std::span<T> const to{products, d_sum.empty() ? std::size_t{0} : static_cast<std::size_t>(basis.count)};
    combine_and_project<E, T>(exec, basis, coefficients, amplitude, sum, matrix_view<T const>(d_sum), to);
    if (!d_sum.empty()) copy(exec, row_major(products, {1, basis.count}), d_coefficients);
  }

  nola settings_;
  extents shape_;
  random_basis frozen_, right_, left_;
  matrix<T> alpha_, beta_;
};
static_assert(low_rank_adapter<nola_adapter<float>>);

}  // namespace lowrank::adapt
