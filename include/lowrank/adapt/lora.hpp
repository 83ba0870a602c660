/// @file
/// LoRA: ΔW = s B A with a narrow B and a flat A.
#pragma once

#include <cmath>

#include "lowrank/adapt/dropout.hpp"
#include "lowrank/adapt/scaling.hpp"
#include "lowrank/linalg/orthonormalize.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank::adapt {

/// What A and B are at first.
enum class lora_start : std::uint8_t {
  kaiming,   ///< A uniform in ±1/√n, B = 0
  gaussian,  ///< A normal of standard deviation 1/r, B = 0
  orthogonal,  ///< neither is zero, but the rows of A and the columns of B meet in orthogonal halves: B A = 0 to rounding; r even
};

template <class T>
class lora_adapter;

/// Reference: Hu et al., "LoRA", arXiv 2106.09685, equation 3; Hayou, Ghosh, Yu, "LoRA+", arXiv 2402.12354, for the ratio of rates.
struct lora {
  static constexpr bool mutates_base = false;

  index_t rank{8};
  float alpha{8};
  scaling scale{scaling::rank};
  lora_start start{lora_start::kaiming};
  float dropout{0};     ///< probability, of what A sees of the inputs
  float rate_ratio{1};  ///< learning rate of B over that of A; LoRA+ has 16

  [[nodiscard]] float scale_value() const noexcept { return adapter_scale(alpha, rank, scale); }
  [[nodiscard]] index_t parameter_count(extents shape) const noexcept { return rank * (shape.rows + shape.cols); }
  void check(extents shape) const {
    constexpr auto* caller = "lora";
    detail::check_rank(caller, rank, shape);
    detail::check_alpha(caller, alpha);
    require(dropout >= 0 && dropout < 1, caller, "dropout must be in [0, 1), got ", dropout);
    require(is_finite(rate_ratio) && rate_ratio >= 1, caller, "rate_ratio must be finite and at least 1, got ",
            rate_ratio);
    require(start != lora_start::orthogonal || rank % 2 == 0, caller,
            "rank must be even to start with orthogonal halves, got ", rank);
  }
  template <class T, class E>
  [[nodiscard]] lora_adapter<T> make(E& exec, matrix_view<T> w, rng_key const& key) const {
    check(w.shape());
    lora_adapter<T> out{*this, w.shape(), key};
    out.draw(exec);
    return out;
  }
};

/// A r x n and B m x r.
/// Cost: forward 2 T r (m + n) flops for T tokens, backward twice as many; r T numbers are kept, workspace r T and, with dropout,
/// 64 n numbers.
template <class T>
class lora_adapter {
 public:
  using value_type = T;
  using settings_type = lora;

  /// A = B = 0: to be filled with what a file holds.
  lora_adapter(lora const& settings, extents shape, rng_key const& key = {})
      : settings_{(settings.check(shape), settings)},
        key_{key},
        mask_{settings.dropout, key},
        a_{settings.rank, shape.cols},
        b_{shape.rows, settings.rank} {}

  [[nodiscard]] lora const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return {b_.shape().rows, a_.shape().cols}; }
  [[nodiscard]] index_t rank() const noexcept { return settings_.rank; }
  /// s of ΔW = s B A.
  [[nodiscard]] T scale() const noexcept { return static_cast<T>(settings_.scale_value()); }
  [[nodiscard]] std::array<tensor<T>, 2> tensors() noexcept {
    return {tensor<T>{"lora_A", a_.view()}, tensor<T>{"lora_B", b_.view(), settings_.rate_ratio}};
  }
  [[nodiscard]] std::array<tensor<T const>, 2> tensors() const noexcept {
    return {tensor<T const>{"lora_A", a()}, tensor<T const>{"lora_B", b(), settings_.rate_ratio}};
  }
  [[nodiscard]] index_t parameter_count() const noexcept { return settings_.parameter_count(shape()); }
  [[nodiscard]] index_t bytes() const noexcept { return a_.bytes() + b_.bytes(); }
  [[nodiscard]] index_t kept_size(index_t tokens) const noexcept { return tokens * rank(); }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept {
    return scratch_bytes<T>(tokens * rank()) +
           (settings_.dropout > 0 ? scratch_bytes<T>(std::min(tokens, masked_rows) * shape().cols) : 0);
  }

  /// The numbers that training starts from, by `settings().start`.
  template <std::derived_from<host_executor> E>
  void draw(E& exec) {
    auto key = key_;
    key.purpose = rng_purpose::initialisation;
    fill(exec, b_.view(), T{0});
    if (settings_.start == lora_start::kaiming) {
      auto const bound = 1 / std::sqrt(static_cast<double>(shape().cols));
      draw_each(exec, a_.view(), [=](std::uint64_t e) { return bound * (2 * uniform(key, e) - 1); });
    } else if (settings_.start == lora_start::gaussian) {
      auto const deviation = 1 / static_cast<double>(rank());
      draw_each(exec, a_.view(), [=](std::uint64_t e) { return deviation * static_cast<double>(gaussian(key, e)); });
    } else {
      draw_orthogonal(exec, key);
    }
  }

  /// The first components of s B A become σ_k u_k v_kᵀ, their sizes shared evenly by A and B.
  /// Shapes: U m x k, V n x k or wider, for k <= r values σ.  Requires: σ >= 0.
  void set_components(std::span<double const> values, matrix_view<float const> u, matrix_view<float const> v) noexcept {
    for (index_t k = 0; k < static_cast<index_t>(values.size()); ++k) {
      double const root = std::sqrt(values[static_cast<std::size_t>(k)] / static_cast<double>(settings_.scale_value()));
      for (index_t j = 0; j < v.rows; ++j) a_(k, j) = static_cast<T>(root * static_cast<double>(v(j, k)));
      for (index_t i = 0; i < u.rows; ++i) b_(i, k) = static_cast<T>(root * static_cast<double>(u(i, k)));
    }
  }

  /// Z = X̃ Aᵀ, kept; Y += s Z Bᵀ, where X̃ is X, or what dropout leaves of it.
  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y, pass_info info = {}) const {
    detail::check_forward("lora", shape(), x, kept.size(), kept_size(x.rows), y);
    auto const z = row_major(kept.data(), {x.rows, rank()});
    for_seen(exec, x, info, [&](matrix_view<T const> seen, index_t begin, index_t end) {
      multiply(exec, T{1}, seen, a().t(), T{0}, z.row_range(begin, end));
    });
    multiply(exec, scale(), matrix_view<T const>(z), b().t(), T{1}, y);
  }
  /// dZ = s dY B; dA = dZᵀ X̃, dB = s dYᵀ Z, dX += mask (dZ A).
  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx, pass_info info = {}) const {
    detail::check_backward("lora", shape(), tensors(), x, kept.size(), kept_size(x.rows), dy, gradients, dx);
    auto const da = detail::wanted(gradients, 0), db = detail::wanted(gradients, 1);
    if (!db.empty()) multiply(exec, scale(), dy.t(), row_major(kept.data(), {x.rows, rank()}), T{0}, db);
    if (da.empty() && dx.empty()) return;
    scratch_scope const scope{exec};
    auto const dz = take_matrix<T>(exec, {x.rows, rank()});
    multiply(exec, scale(), dy, b(), T{0}, dz);
    auto const read = matrix_view<T const>(dz);
    if (!da.empty()) {
      if (x.rows == 0) fill(exec, da, T{0});
      for_seen(exec, x, info, [&](matrix_view<T const> seen, index_t begin, index_t end) {
        multiply(exec, T{1}, read.row_range(begin, end).t(), seen, begin == 0 ? T{0} : T{1}, da);
      });
    }
    if (dx.empty()) return;
    if (!mask_.acts(info)) return multiply(exec, T{1}, read, a(), T{1}, dx);
    for_rows(exec, x.rows, [&](matrix_view<T> masked, index_t begin, index_t end) {
      multiply(exec, T{1}, read.row_range(begin, end), a(), T{0}, masked);
      mask_.add(exec, info.step, x.shape(), begin, masked, dx.row_range(begin, end));
    });
  }
  /// W += scale ΔW.
  template <std::derived_from<host_executor> E>
  void add_to(E& exec, T factor, matrix_view<T> w) const {
    require<shape_error>(w.shape() == shape(), "lora", "needs a matrix of ", shape(), ", got ", w.shape());
    multiply(exec, factor * scale(), b(), a(), T{1}, w);
  }
  [[nodiscard]] matrix_view<T const> a() const noexcept { return a_.view(); }
  [[nodiscard]] matrix_view<T const> b() const noexcept { return b_.view(); }

  /// s B and A.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] low_rank_factors<T> factors(E& exec) const {
    low_rank_factors<T> out{matrix<T>{b_.shape()}, matrix<T>{a_.shape()}};
    lowrank::detail::map_elements(exec, "lora", b(), out.left.view(), [s = scale()](T x) { return s * x; });
    copy(exec, a(), out.right.view());
    return out;
  }
  /// What dropout does here; for those who want to see the mask.
  [[nodiscard]] dropout_mask const& mask() const noexcept { return mask_; }

 private:
  static constexpr index_t masked_rows = 64;  ///< tokens whose masked inputs exist at once

  template <class E, class Draw>
  static void draw_each(E& exec, matrix_view<T> out, Draw const& draw) {
    exec.parallel(out.rows, [&](index_t i) {
      for (index_t j = 0; j < out.cols; ++j)
        out(i, j) = static_cast<T>(draw(static_cast<std::uint64_t>(i * out.cols + j)));
    });
  }
  /// body(masked, begin, end) with scratch for those rows.
  template <class E, class Body>
  void for_rows(E& exec, index_t tokens, Body const& body) const {
    for (index_t begin = 0; begin < tokens; begin += masked_rows) {
      scratch_scope const scope{exec};
      index_t const end = std::min(tokens, begin + masked_rows);
      body(take_matrix<T>(exec, {end - begin, shape().cols}), begin, end);
    }
  }
  /// body(rows of what A sees, begin, end).
  template <class E, class Body>
  void for_seen(E& exec, matrix_view<T const> x, pass_info info, Body const& body) const {
    if (!mask_.acts(info)) {
      if (x.rows > 0) body(x, 0, x.rows);
      return;
    }
    for_rows(exec, x.rows, [&](matrix_view<T> masked, index_t begin, index_t end) {
      mask_.apply(exec, info.step, x.shape(), begin, x.row_range(begin, end), masked);
      body(matrix_view<T const>(masked), begin, end);
    });
  }
  /// With Q orthogonal, r x r, and N, M normal: A = (N Q₁)ᵀ / 10 and B = M Q₂ / 10, Q₁ and Q₂ every other row of Q.
  template <class E>
  void draw_orthogonal(E& exec, rng_key const& key) {
    index_t const r = rank(), half = r / 2;
    matrix<float> q{r, r};
    fill_gaussian(exec, key, q.view());
    exec.reserve(orthonormalize_bytes(q.shape()));
    orthonormalize(exec, q.view(), key);
    matrix<T> turn{r, r}, inputs{shape().cols, half}, outputs{shape().rows, half};
    convert(exec, q.view(), turn.view());
    fill_gaussian(exec, key.later(1), inputs.view());
    fill_gaussian(exec, key.later(2), outputs.view());
    matrix_view<T const> const first{turn.data(), half, r, 2 * r, 1}, second{turn.data() + r, half, r, 2 * r, 1};
    T const tenth = T{1} / T{10};
    multiply(exec, tenth, first.t(), matrix_view<T const>(inputs.view()).t(), T{0}, a_.view());
    multiply(exec, tenth, matrix_view<T const>(outputs.view()), second, T{0}, b_.view());
  }

  lora settings_;
  rng_key key_;
  dropout_mask mask_;
  matrix<T> a_;
  matrix<T> b_;
};
namespace detail {

/// s [B, -B₀] and [A; A₀] with a scale for each pair.
template <class E, class T>
[[nodiscard]] low_rank_factors<T> difference_of_pairs(E& exec, T scale, matrix_view<T const> b, matrix_view<T const> a,
                                                      T first_scale, matrix_view<T const> first_b,
                                                      matrix_view<T const> first_a) {
  index_t const r = a.rows, both = r + first_a.rows;
  low_rank_factors<T> out{matrix<T>{b.rows, both}, matrix<T>{both, a.cols}};
  auto const put = [&](matrix_view<T const> left, matrix_view<T const> right, T factor, index_t begin, index_t end) {
    lowrank::detail::map_elements(exec, "difference_of_pairs", left, out.left.view().col_range(begin, end),
                                  [factor](T x) { return factor * x; });
    copy(exec, right, out.right.view().row_range(begin, end));
  };
  put(b, a, scale, 0, r);
  put(first_b, first_a, -first_scale, r, both);
  return out;
}

}  // namespace detail

/// What an adapter has learnt since its start, s B A - s₀ B₀ A₀, as one pair. It is what the matrix of before is changed by where
/// the base was made for the start: by PC-LoRA's SVD, which takes s₀ B₀ A₀ from it, or by rounding, which LoftQ's start makes up
/// for.
/// Shapes: both adapters m x n; m x (r + r₀) and (r + r₀) x n.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T>
[[nodiscard]] low_rank_factors<T> change_since(E& exec, lora_adapter<T> const& start, lora_adapter<T> const& now) {
  require<shape_error>(start.shape() == now.shape(), "change_since", "needs adapters of one shape, got ", start.shape(),
                       " and ", now.shape());
  return detail::difference_of_pairs(exec, now.scale(), now.b(), now.a(), start.scale(), start.b(), start.a());
}

static_assert(low_rank_adapter<lora_adapter<float>> && low_rank_adapter<lora_adapter<double>> &&
              adapter_settings<lora>);

}  // namespace lowrank::adapt
