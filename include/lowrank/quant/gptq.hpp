/// @file
/// Codes for a matrix whose inputs are known: rounding that does the least to its outputs, in the same format.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "lowrank/linalg/primitives.hpp"
#include "lowrank/quant/double_quantized.hpp"

namespace lowrank {

/// Chooses codes of W for the least E‖(W - W') x‖² = tr((W - W') C (W - W')ᵀ), C = E[x xᵀ]. First the scale of each block, by
/// C's diagonal alone; then the codes, column by column, those with the largest inputs first. What rounding a column does to
/// the outputs, the columns not yet rounded undo as well as they can; then, code by code, what is best beside all the others.
/// The codes are ordinary ones: nobody who reads them has to know how they were chosen.
/// Reference: Frantar et al., "GPTQ", arXiv 2210.17323, algorithm 1, with fixed scales and its `act_order`; Behdin et al.,
/// "QuantEase", arXiv 2309.01885, algorithm 1, for the sweeps.
struct gptq {
  /// Of the mean of C's diagonal, added to it. A tenth of what is usual: where a few inputs are huge, as in language models,
  /// so is the mean, and more of it makes the other inputs look uncorrelated.
  double damping{1e-3};
  float narrowest{0.6F}, widest{1.1F};  ///< scales that are tried, in the one that just holds the block
  int scales{11};                       ///< how many of them, equally far apart; 1: that one alone
  int sweeps{3};                        ///< over all codes, after the columns; 0: GPTQ alone

  void check() const {
    require(is_finite(damping) && damping >= 1e-12, "gptq", "damping must be finite and at least 1e-12, got ", damping);
    require(narrowest > 0 && narrowest <= 1 && widest >= 1 && widest <= 2, "gptq",
            "needs 0 < narrowest <= 1 <= widest <= 2, got ", narrowest, " and ", widest);
    require(scales >= 1 && scales <= 1000, "gptq", "scales must be in [1, 1000], got ", scales);
    require(sweeps >= 0 && sweeps <= 1000, "gptq", "sweeps must be in [0, 1000], got ", sweeps);
  }
  /// Scale number i, in the one that just holds the block.
  [[nodiscard]] float factor(int i) const noexcept {
    return scales == 1 ? 1.0F
                       : narrowest + (widest - narrowest) * static_cast<float>(i) / static_cast<float>(scales - 1);
  }
};

namespace detail {

/// A scale that codes are chosen for. Stored scales may be a little below zero, where a block has next to nothing.
[[nodiscard]] inline block_scale scale_to_encode(float scale) noexcept {
  bool const usable = std::abs(scale) >= std::numeric_limits<float>::min();
  return {scale, 0, usable ? 1 / scale : 0.0F};
}

/// The scale with the least sum of importance_k (x_k - x'_k)², of those that are tried; where nothing is important, everything
/// is.
template <int Block, class Codec>
[[nodiscard]] float best_scale(Codec const& codec, gptq const& how, float const* x, float const* importance) noexcept {
  float most = 0;
  for (int k = 0; k < Block; ++k) most = std::max(most, std::abs(x[k]));
  float const whole = codec.fit({.low = -most, .high = most}).scale;
  float best = whole;
  bool const equal = std::all_of(importance, importance + Block, [](float w) { return w == 0; });
  double least = std::numeric_limits<double>::max();
  for (int i = 0; i < how.scales; ++i) {
    auto const shared = scale_to_encode(whole * how.factor(i));
    pack sum{0.0F};
    for (int k = 0; k < Block; k += pack::width) {
      pack const value = pack::load(x + k), off = codec.decode(codec.encode(value, shared), shared) - value;
      sum = sum + (equal ? pack{1.0F} : pack::load(importance + k)) * off * off;
    }
    std::array<float, pack::width> lanes;
    sum.store(lanes.data());
    double const loss = std::accumulate(lanes.begin(), lanes.end(), 0.0);
    if (loss < least) least = loss, best = shared.scale;
  }
  return best;
}

/// The factors that rounding errors are passed on with, and the order of the columns.
struct column_metric {
  std::vector<index_t> order;  ///< columns by rising C_jj; they are rounded from the last one on
  matrix<float> inverse;       ///< L⁻¹, L Lᵀ = C + damping, in that order and unit
  double unit{1};     ///< the mean of C's diagonal, so that C may be as small or large as it likes; 1 where it is 0
  double damping{1};  ///< what is added to the diagonal, in that unit

  [[nodiscard]] double damped(matrix_view<double const> c, index_t i, index_t j) const noexcept {
    return c(i, j) / unit + (i == j ? damping : 0);
  }
};

/// With L of the columns in reverse order of their rounding, row j of L⁻¹ over its own last element is how the columns before
/// j answer to one unit of error in j: C's conditional expectation of them.
template <class E>
[[nodiscard]] column_metric metric_of(E& exec, gptq const& how, matrix_view<double const> c) {
  index_t const n = c.cols;
  column_metric out{std::vector<index_t>(static_cast<std::size_t>(n)), matrix<float>{n, n}};
  double trace = 0;
  for (index_t j = 0; j < n; ++j) trace += c(j, j);
  require(is_finite(trace) && trace >= 0, "gptq", "needs finite second moments of inputs");
  std::iota(out.order.begin(), out.order.end(), index_t{0});
  std::ranges::stable_sort(out.order, {}, [&](index_t j) { return c(j, j); });
  // Inputs that are all zero say nothing: each column is rounded by itself then.
  if (trace > 0) out.unit = trace / static_cast<double>(n), out.damping = how.damping;
  matrix<double> l{n, n};
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j <= i; ++j)
      l(i, j) = out.damped(c, out.order[static_cast<std::size_t>(i)], out.order[static_cast<std::size_t>(j)]);
  std::int32_t failed = 0;
  factor_cholesky(exec, l.view(), &failed);
  require(failed == 0, "gptq", "needs second moments that are finite and positive semidefinite");
  invert_lower(exec, l.view());
  convert(exec, matrix_view<double const>(l.view()), out.inverse.view());
  return out;
}

/// One code after another becomes the one with the least loss beside all others of its row as they are: the one nearest to
/// w - Σ_k≠j e_k C_kj / C_jj, e the errors of the others. `products` is scratch.
template <int Block, class E, class Codec>
void sweep(E& exec, Codec const& codec, std::vector<float> const& scales, matrix_view<float const> w,
           matrix_view<float const> c, std::span<std::uint8_t> codes, matrix_view<float> errors,
           matrix_view<float> products) {
  multiply(exec, 1.0F, matrix_view<float const>(errors), c, 0.0F, products);  // afresh, so that no rounding adds up
  exec.parallel(w.rows, [&](index_t i) {
    float* const product = &products(i, 0);
    for (index_t j = 0; j < w.cols; ++j) {
      auto const place = static_cast<std::size_t>(i * w.cols + j);
      auto const shared = scale_to_encode(scales[place / Block]);
      float const own = errors(i, j);
      std::int32_t const code = codec.encode(w(i, j) + own - product[j] / c(j, j), shared);
      if (code == codes[place]) continue;
      codes[place] = static_cast<std::uint8_t>(code);
      float const moved = codec.decode(code, shared) - w(i, j) - own;
      errors(i, j) = own + moved;
      float const* const answer = &c(j, 0);
      for (index_t k = 0; k < w.cols; ++k) product[k] += moved * answer[k];
    }
  });
}

/// Two codes of four bits a byte, or one of eight.
template <int Bits>
void pack_codes(std::span<std::uint8_t const> codes, std::span<std::uint8_t> to) noexcept {
  if constexpr (Bits == 8) std::ranges::copy(codes, to.begin());
  else
    for (std::size_t b = 0; b < to.size(); ++b) {
      unsigned const second = 2 * b + 1 < codes.size() ? codes[2 * b + 1] : 0U;
      to[b] = static_cast<std::uint8_t>(static_cast<unsigned>(codes[2 * b]) << 4 | second);
    }
}

}  // namespace detail

/// Codes of W, chosen for inputs with the second moments C.
/// Shapes: W m x n row-major, C n x n symmetric, as many codes as W has elements.
/// Cost: m n² + n³ flops, `scales` roundings of each element, and for each sweep 2 m n² flops, and 2 n for each code that
/// changes; allocates 9 m n + 16 n² bytes, takes scratch of `double_quantized::workspace_bytes`. The same bits for any number
/// of threads.
/// Throws: shape_error; argument_error for settings that cannot be meant, weights that are not finite or beyond 2^126, and
/// second moments that are none.
template <std::derived_from<host_executor> E, class Codec, int Block>
void quantize(E& exec, gptq const& how, matrix_view<float const> w, matrix_view<double const> c,
              double_quantized<Codec, Block>& to) {
  how.check();
  index_t const m = w.rows, n = w.cols;
  require<shape_error>(w.is_row_major() && c.shape() == extents{n, n} && to.size() == w.size(), "gptq",
                       "needs packed weights, ", extents{n, n}, " second moments and ", w.size(), " codes for ",
                       w.shape(), ", got ", c.shape(), " and ", to.size());
  for (index_t e = 0; e < w.size(); ++e)
    require(is_finite(w.data[e]) && std::abs(w.data[e]) <= 0x1p126F, "gptq",
            "needs finite weights of at most 2^126, got ", w.data[e]);
  if (w.empty()) return;
  auto const metric = detail::metric_of(exec, how, c);
  auto const codec = to.codec();

  std::vector<float> scales(static_cast<std::size_t>(to.blocks()));
  exec.parallel(to.blocks(), [&](index_t block) {
    alignas(64) std::array<float, Block> x{}, importance{};
    index_t const first = block * Block;
    for (index_t e = first; e < std::min(w.size(), first + Block); ++e) {
      x[static_cast<std::size_t>(e - first)] = w.data[e];
      importance[static_cast<std::size_t>(e - first)] = static_cast<float>(c(e % n, e % n) / metric.unit);
    }
    scales[static_cast<std::size_t>(block)] = detail::best_scale<Block>(codec, how, x.data(), importance.data());
  });
  keep_scales(exec, scales.data(), to);
  open_scales(exec, to, scales.data());

  matrix<float> left{w.shape()};  // what is still to be rounded, columns in the metric's order
  exec.parallel(m, [&](index_t i) {
    for (index_t j = 0; j < n; ++j) left(i, j) = w(i, metric.order[static_cast<std::size_t>(j)]);
  });
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(w.size()));
  constexpr index_t width = 64;
  matrix<float> errors{m, width};
  for (index_t end = n; end > 0; end -= std::min(end, width)) {
    index_t const begin = std::max<index_t>(0, end - width);
    exec.parallel(m, [&](index_t i) {
      float* const row = &left(i, 0);
      for (index_t j = end - 1; j >= begin; --j) {
        auto const place = static_cast<std::size_t>(i * n + metric.order[static_cast<std::size_t>(j)]);
        auto const shared = detail::scale_to_encode(scales[place / Block]);
        std::int32_t const code = codec.encode(row[j], shared);
        codes[place] = static_cast<std::uint8_t>(code);
        float const* const answer = &metric.inverse(j, 0);
        float const error = (row[j] - codec.decode(code, shared)) / answer[j];
        errors(i, j - begin) = error;
        for (index_t k = begin; k < j; ++k) row[k] -= error * answer[k];
      }
    });
    if (begin > 0)
      multiply(exec, -1.0F, matrix_view<float const>(errors.view()).col_range(0, end - begin),
               matrix_view<float const>(metric.inverse.view()).sub({begin, end, 0, begin}), 1.0F,
               left.view().col_range(0, begin));
  }
  if (how.sweeps > 0) {
    matrix<float> damped{c.shape()}, off{w.shape()};
    exec.parallel(n, [&](index_t i) {
      for (index_t j = 0; j < n; ++j) damped(i, j) = static_cast<float>(metric.damped(c, i, j));
    });
    exec.parallel(m, [&](index_t i) {
      for (index_t j = 0; j < n; ++j) {
        auto const place = static_cast<std::size_t>(i * n + j);
        off(i, j) = codec.decode(codes[place], detail::scale_to_encode(scales[place / Block])) - w(i, j);
      }
    });
    for (int s = 0; s < how.sweeps; ++s)
      detail::sweep<Block>(exec, codec, scales, w, damped.view(), codes, off.view(), left.view());
  }
  detail::pack_codes<Codec::bits>(codes, to.codes());
}

}  // namespace lowrank
