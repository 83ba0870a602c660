/// @file
/// Sketch-preconditioned Cholesky QR: fp64 on a small sketch only.
#pragma once

#include "lowrank/linalg/orthonormalizer.hpp"

namespace lowrank {

namespace detail {

/// Rows of the sketch of l columns. With the constant, signs meet in a few columns only by a chance of 2^-32.
[[nodiscard]] constexpr index_t sketch_rows(index_t l) noexcept { return std::max(l + l / 2, l + 32); }
/// Rows of Y whose signs are made at a time.
inline constexpr index_t sketch_panel = 512;

/// S Y for the d x m matrix S of random signs.
template <class E>
void sketch_columns(E& exec, const_view_of<E> y, view_of<E> sketch, rng_key const& key) {
  scratch_scope const scope{exec};
  auto const signs = take_matrix(exec, {std::min(y.rows, sketch_panel), sketch.rows});
  for (index_t begin = 0; begin < y.rows; begin += sketch_panel) {
    index_t const end = std::min(y.rows, begin + sketch_panel);
    auto const part = signs.row_range(0, end - begin);
    // Far behind the numbers that replace columns, which are of the same stream.
    fill_rademacher(exec, key, part, (std::uint64_t{1} << 62) + static_cast<std::uint64_t>(begin * sketch.rows));
    multiply(exec, 1.0F, part.t(), y.row_range(begin, end), begin == 0 ? 0.0F : 1.0F, sketch);
  }
}

}  // namespace detail

namespace orthonormal {

/// Cholesky QR whose first triangular factor is that of S Y, S random signs with 1.5 l rows: Y R⁻¹ has a condition of about
/// 10 whatever that of Y, so that fp32 Grams (`gram_mixed`) do for the passes that follow. Columns as of `cholesky`: scaled
/// first, replaced where they carry nothing new, column k a combination of columns 0 ... k of the input. For devices with
/// slow fp64; a processor gains nothing.
/// Shapes: Y m x l, l <= m.  Requires: NaN or Inf: `failed` is set and Y holds nothing useful.
/// Ensures: ‖QᵀQ - I‖_F within 3 sqrt(l) eps.
/// Cost: 3 m l² flops for the sketch, then passes of 2.3 m l² + 2 l³ / 3, two after the first as a rule; fp64: 1.5 l³ and
/// the factorizations. Workspace bytes(shape). An executor that cannot peek runs 4 passes.
/// Throws: shape_error.
/// Reference: Garrison, Ipsen, "A randomized preconditioned Cholesky-QR algorithm", arXiv 2406.11751.
struct sketched_cholesky {
  [[nodiscard]] static constexpr index_t bytes(extents y) noexcept {
    index_t const d = detail::sketch_rows(y.cols);
    if (y.size() == 0 || d >= y.rows) return orthonormalize_bytes(y);
    return orthonormalize_bytes(y) + scratch_bytes<float>(d * y.cols) +
           scratch_bytes<float>(std::min(y.rows, detail::sketch_panel) * d);
  }
  template <executor E>
  void operator()(E& exec, view_of<E> y, rng_key key, orthonormal_report* report = nullptr) const {
    require<shape_error>(y.cols <= y.rows, "orthonormal::sketched_cholesky",
                         "needs at most as many columns as rows, got ", y.shape());
    if (y.empty()) {
      if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {}; });
      return;
    }
    key.purpose = rng_purpose::completion;
    constexpr orthonormal_options options{};
    scratch_scope const scope{exec};
    detail::cholesky_passes<E> work{exec, y, report};
    balance_columns(exec, y, &work.seen->failed);
    auto const nonfinite = exec.peek(&work.seen->failed);
    if (nonfinite && *nonfinite != 0) return;
    if (index_t const d = detail::sketch_rows(y.cols); d < y.rows) {
      scratch_scope const first{exec};
      auto const sketch = take_matrix(exec, {d, y.cols});
      detail::sketch_columns<E>(exec, y, sketch, key);
      work.factor(exec, sketch, gram_kind::wide);
    } else {
      work.factor(exec, y, gram_kind::wide);
    }
    // Whatever the sketch says of itself, Y was not orthonormal: the columns are never settled by it.
    work.apply(exec, key, 1, -1.0);
    std::int32_t const most = nonfinite ? options.most_passes : 4;
    for (std::int32_t pass = 2; pass <= most; ++pass) {
      work.factor(exec, work.from, gram_kind::mixed);
      work.apply(exec, key, pass, options.departure);
      if (auto const failed = exec.peek(&work.seen->failed); failed && *failed == 0) break;
    }
    if (work.from.data != y.data) copy(exec, work.from, y);
  }
};

}  // namespace orthonormal
}  // namespace lowrank
