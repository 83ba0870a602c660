/// @file
/// LoRA-XS: an r x r matrix between frozen singular vectors of the weight.
#pragma once

#include <bit>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/adapt/scaling.hpp"
#include "lowrank/linalg/randomized_svd.hpp"

namespace lowrank::adapt {

template <class T>
class lora_xs_adapter;

/// ΔW = s U R (Σ Vᵀ) with the r leading singular triplets of W, frozen, and R small at first. Singular vectors have no sign of their
/// own: here the entry of largest magnitude of every column of U is positive, so that a saved R means the same tomorrow.
/// Reference: Bałazy et al., "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters", arXiv 2405.17604, equation 3.
struct lora_xs {
  static constexpr bool mutates_base = false;

  index_t rank{32};
  float alpha{32};
  scaling scale{scaling::rank};
  float deviation{1e-5F};                                           ///< of R at first, normally distributed
  range_options search{.oversampling = 10, .power_iterations = 4};  ///< for the singular vectors

  [[nodiscard]] float scale_value() const noexcept { return adapter_scale(alpha, rank, scale); }
  [[nodiscard]] index_t parameter_count(extents) const noexcept { return rank * rank; }
  void check(extents shape) const {
    constexpr auto* caller = "lora_xs";
    detail::check_rank(caller, rank, shape);
    detail::check_alpha(caller, alpha);
    require(is_finite(deviation) && deviation >= 0, caller, "deviation must be finite and not negative, got ",
            deviation);
    require(search.oversampling >= 0 && search.power_iterations >= 0, caller,
            "search must have no negative numbers, got oversampling ", search.oversampling, " and power_iterations ",
            search.power_iterations);
  }
  /// Cost: a randomized SVD; allocates the bases, and scratch.
  template <class T, class E>
  [[nodiscard]] lora_xs_adapter<T> make(E& exec, matrix_view<T> w, rng_key const& key) const {
    return lora_xs_adapter<T>{exec, *this, w, key};
  }
};

/// R r x r between A = Σ Vᵀ, r x n, and B = U, m x r.
/// Cost: forward 2 T r (m + n + r) flops for T tokens, backward 2 T r (m + n + 2 r); r T numbers are kept, workspace 2 r T. The
/// bases take as many bytes as a LoRA, but are not trained.
template <class T>
class lora_xs_adapter {
 public:
  using value_type = T;
  using settings_type = lora_xs;

  /// Bases from the matrix.
  template <std::derived_from<host_executor> E>
  lora_xs_adapter(E& exec, lora_xs const& settings, matrix_view<T const> w, rng_key key)
      : lora_xs_adapter{settings, w.shape()} {
    matrix<float> narrow, u{b_.shape()};
    matrix_view<float const> seen;
    if constexpr (std::same_as<T, float>) seen = w;
    else {
      convert(exec, w, (narrow = matrix<float>{w.shape()}).view());
      seen = std::as_const(narrow).view();
    }
    exec.reserve(randomized_svd_bytes(w.shape(), settings.rank, settings.search));
    range_report report;
    randomized_svd(exec, seen, settings.rank, {.u = u.view(), .values = nullptr, .v = {}}, settings.search, key,
                   &report);
    require(report.failed == 0, "lora_xs", "needs finite weights, got NaN or infinity in a matrix of ", w.shape());
    convert(exec, u.view(), b_.view());
    multiply(exec, T{1}, b().t(), w, T{0}, a_.view());
    key.purpose = rng_purpose::initialisation;
    auto const core = core_.view();
    for (index_t i = 0; i < core.rows; ++i)
      for (index_t j = 0; j < core.cols; ++j)
        core(i, j) = static_cast<T>(settings.deviation * gaussian(key, static_cast<std::uint64_t>(i * core.cols + j)));
  }
  /// Bases as they were saved, R = 0.
  /// Shapes: a r x n, b m x r.
  lora_xs_adapter(lora_xs const& settings, matrix<T>&& a, matrix<T>&& b)
      : settings_{settings}, a_{std::move(a)}, b_{std::move(b)}, core_{settings.rank, settings.rank} {
    settings_.check(shape());
    require<shape_error>(a_.shape().rows == settings.rank && b_.shape().cols == settings.rank, "lora_xs",
                         "needs bases of rank ", settings.rank, ", got ", a_.shape(), " and ", b_.shape());
  }

  [[nodiscard]] lora_xs const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return {b_.shape().rows, a_.shape().cols}; }
  [[nodiscard]] index_t rank() const noexcept { return settings_.rank; }
  [[nodiscard]] T scale() const noexcept { return static_cast<T>(settings_.scale_value()); }
  [[nodiscard]] std::array<tensor<T>, 1> tensors() noexcept { return {tensor<T>{"lora_xs_R", core_.view()}}; }
  [[nodiscard]] std::array<tensor<T const>, 1> tensors() const noexcept {
    return {tensor<T const>{"lora_xs_R", core()}};
  }
  [[nodiscard]] index_t parameter_count() const noexcept { return core_.shape().size(); }
  [[nodiscard]] index_t bytes() const noexcept { return a_.bytes() + b_.bytes() + core_.bytes(); }
  [[nodiscard]] index_t kept_size(index_t tokens) const noexcept { return tokens * rank(); }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept { return 2 * scratch_bytes<T>(tokens * rank()); }

  /// Z = X Aᵀ, kept; Y += s (Z Rᵀ) Bᵀ.
  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y, pass_info = {}) const {
    detail::check_forward("lora_xs", shape(), x, kept.size(), kept_size(x.rows), y);
    scratch_scope const scope{exec};
    auto const z = row_major(kept.data(), {x.rows, rank()}), turned = take_matrix<T>(exec, {x.rows, rank()});
    multiply(exec, T{1}, x, a().t(), T{0}, z);
    multiply(exec, T{1}, matrix_view<T const>(z), core().t(), T{0}, turned);
    multiply(exec, scale(), matrix_view<T const>(turned), b().t(), T{1}, y);
  }
  /// dU = s dY B; dR = dUᵀ Z, dX += (dU R) A.
  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx, pass_info = {}) const {
    detail::check_backward("lora_xs", shape(), tensors(), x, kept.size(), kept_size(x.rows), dy, gradients, dx);
    auto const dr = detail::wanted(gradients, 0);
    if (dr.empty() && dx.empty()) return;
    scratch_scope const scope{exec};
    auto const du = take_matrix<T>(exec, {x.rows, rank()});
    multiply(exec, scale(), dy, b(), T{0}, du);
    auto const read = matrix_view<T const>(du);
    if (!dr.empty()) multiply(exec, T{1}, read.t(), row_major(kept.data(), {x.rows, rank()}), T{0}, dr);
    if (dx.empty()) return;
    auto const dz = take_matrix<T>(exec, {x.rows, rank()});
    multiply(exec, T{1}, read, core(), T{0}, dz);
    multiply(exec, T{1}, matrix_view<T const>(dz), a(), T{1}, dx);
  }
  /// W += factor ΔW.
  template <std::derived_from<host_executor> E>
  void add_to(E& exec, T factor, matrix_view<T> w) const {
    require<shape_error>(w.shape() == shape(), "lora_xs", "needs a matrix of ", shape(), ", got ", w.shape());
    auto const left = turned_basis(exec, factor * scale());
    multiply(exec, T{1}, std::as_const(left).view(), a(), T{1}, w);
  }
  /// s B R and A.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] low_rank_factors<T> factors(E& exec) const {
    low_rank_factors<T> out{turned_basis(exec, scale()), matrix<T>{a_.shape()}};
    copy(exec, a(), out.right.view());
    return out;
  }

  [[nodiscard]] matrix_view<T const> a() const noexcept { return a_.view(); }
  [[nodiscard]] matrix_view<T const> b() const noexcept { return b_.view(); }
  [[nodiscard]] matrix_view<T const> core() const noexcept { return core_.view(); }

  /// A hash of the bits of both bases: an R is only worth something between the bases it was trained with.
  [[nodiscard]] std::uint64_t basis_hash() const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325U;
    auto const take = [&hash](matrix_view<T const> v) {
      for (index_t i = 0; i < v.rows; ++i)
        for (index_t j = 0; j < v.cols; ++j) {
          hash = (hash ^ std::bit_cast<std::uint64_t>(static_cast<double>(v(i, j)))) * 0x9E3779B97F4A7C15U;
          hash ^= hash >> 32;  // a product carries upwards only, and the sign is the highest bit
        }
    };
    take(a());
    take(b());
    return hash;
  }
  /// R as it was saved, beside the hash of the bases it was trained with.
  /// Throws: argument_error for other bases, or an R that is not finite; shape_error. Nothing is changed then.
  template <std::derived_from<host_executor> E>
  void load(E& exec, matrix_view<T const> core, std::uint64_t hash) {
    require<shape_error>(core.shape() == core_.shape(), "lora_xs", "needs lora_xs_R of ", core_.shape(), ", got ",
                         core.shape());
    require(hash == basis_hash(), "lora_xs", "lora_xs_R was trained between other bases: their hash is ", hash,
            ", that of the bases here ", basis_hash(),
            "; save the bases with it, or find them with the settings, key and machine of then");
    require(detail::all_finite<T>(exec, core), "lora_xs", "needs a finite lora_xs_R");
    copy(exec, core, core_.view());
  }

 private:
  lora_xs_adapter(lora_xs const& settings, extents shape)
      : lora_xs_adapter{(settings.check(shape), settings), matrix<T>{settings.rank, shape.cols},
                        matrix<T>{shape.rows, settings.rank}} {}
  /// factor B R.
  template <class E>
  [[nodiscard]] matrix<T> turned_basis(E& exec, T factor) const {
    matrix<T> out{b_.shape()};
    multiply(exec, factor, b(), core(), T{0}, out.view());
    return out;
  }

  lora_xs settings_;
  matrix<T> a_;
  matrix<T> b_;
  matrix<T> core_;
};
static_assert(low_rank_adapter<lora_xs_adapter<float>> && adapter_settings<lora_xs> &&
              adapter_settings<lora_xs, double>);

}  // namespace lowrank::adapt
