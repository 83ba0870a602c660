/// @file
/// Orthonormal columns for any finite input, by products: what a basis needs after every refresh.
#pragma once

#include <utility>

#include "lowrank/linalg/columns.hpp"
#include "lowrank/linalg/multiply_upper.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

/// What became of `orthonormalize`, in the executor's memory space.
struct orthonormal_report {
  std::int32_t passes{};    ///< each is a Gram, a Cholesky factorization and a product
  std::int32_t replaced{};  ///< columns that carried nothing new and became fresh random ones
  std::int32_t failed{};  ///< not 0: the input had NaN or Inf, or `most_passes` were too few; the columns are unusable
  double departure{};  ///< ‖QᵀQ - I‖_F (columns scaled to length 1) when the last pass began; below 0.1 that pass
                       ///< leaves nothing but rounding, about sqrt(l) eps
};

/// How a Gram is summed up.
enum class gram_kind : std::uint8_t {
  wide,   ///< products and sums in fp64
  mixed,  ///< `gram_mixed`: cheaper, and orthonormal within 2 sqrt(l) eps
};

struct orthonormal_options {
  std::int32_t most_passes{8};
  double departure{1e-2};  ///< a pass that began below this was the last; a huge value asks for a single pass
  /// Of the first pass. Mixed: where the columns then turn out to be ill conditioned, or the executor cannot peek, fp64.
  gram_kind first_gram{gram_kind::wide};
  /// Of the pass that is expected to be the last, never of the first; where it was not the last, fp64 after all.
  gram_kind last_gram{gram_kind::wide};
};
/// One pass only: well conditioned, not orthonormal. Enough between power steps.
inline constexpr orthonormal_options roughly{.most_passes = 1, .departure = 1e300};

/// Scratch that `orthonormalize` of that shape takes.
[[nodiscard]] constexpr index_t orthonormalize_bytes(extents y) noexcept {
  if (y.size() == 0) return 0;
  return scratch_bytes<float>(y.size()) + scratch_bytes<double>(y.cols * y.cols) +
         scratch_bytes<float>(y.cols * y.cols) + scratch_bytes<double>(y.cols) + scratch_bytes<orthonormal_report>(1) +
         scratch_bytes<gram_condition>(1) + scratch_bytes<std::int32_t>(1);
}

namespace detail {

/// C = D YᵀY D + shift I with unit diagonal, D = diag(scales), 0 for columns without anything new.
/// `shortest`: squared length up to which a column counts as zero.
template <class E>
struct scaled_gram {
  const_view_of<E> y;
  wide_view_of<E> c;
  double* scales;
  gram_condition* condition;
  gram_kind kind;

  void sum_up(E& exec, double shortest = 1e-14) const {
    accumulate(exec);
    // Columns came balanced, or out of the pass before: those shorter than 1e-7 are the rounding of what was subtracted.
    unit_scales(exec, c, scales, shortest);
    scale_gram(exec, c, scales, shift(), condition);
  }
  /// C becomes its Cholesky factor. Dependent columns are only known once a factorization has met them, and may not have a
  /// part in it: then it is done again without them.
  void factor(E& exec, std::int32_t* bad_pivot) const {
    double const noise = kind == gram_kind::wide ? 1e-14 : 1e-6 * std::sqrt(static_cast<double>(c.cols));
    for (int attempt = 0;; ++attempt) {
      factor_cholesky(exec, c, bad_pivot);
      drop_dependent(exec, c, noise + 4 * shift(), scales, condition);
      auto const dropped = exec.peek(&condition->dropped);
      if ((dropped && *dropped == 0) || attempt == 1) return;
      accumulate(exec);
      scale_gram(exec, c, scales, shift(), condition);
    }
  }

 private:
  [[nodiscard]] double shift() const noexcept { return 1e-15 * static_cast<double>(c.cols); }
  void accumulate(E& exec) const {
    if (kind == gram_kind::wide) gram(exec, y, c);
    else gram_mixed(exec, y, c);
  }
};

/// Uninitialised scratch of y's shape and storage order.
template <class E>
[[nodiscard]] view_of<E> take_like(E& exec, view_of<E> y) {
  return take_matrix(exec, y.shape(), y.row_stride < y.col_stride ? side::right : side::left);
}

/// Departure up to which a pass of `cholesky_passes::correct` leaves less than rounding does: 1.5 of its square, beside
/// 0.2 sqrt(l) eps with Grams in fp64 and 1.2 with mixed ones.
[[nodiscard]] inline double first_order_departure(index_t l, gram_kind last) noexcept {
  return std::sqrt(std::sqrt(static_cast<double>(l)) * 0x1p-23 / (last == gram_kind::wide ? 32 : 4));
}

/// The power of two nearest to x > 0 on a logarithmic scale.
[[nodiscard]] LOWRANK_HD inline float nearest_power(double x) noexcept {
  constexpr std::uint64_t exponent = 0x7FF0'0000'0000'0000U;
  return static_cast<float>(std::bit_cast<double>(std::bit_cast<std::uint64_t>(1.4142135623730951 * x) & exponent));
}

/// What Cholesky passes over Y need, in orthonormalize_bytes of scratch.
template <class E>
struct cholesky_passes {
  view_of<E> from, to;  ///< the columns now, and where the next pass writes them
  wide_view_of<E> c;
  view_of<E> w;
  double* scales;
  gram_condition* condition;
  std::int32_t* bad_pivot;
  orthonormal_report* seen;

  cholesky_passes(E& exec, view_of<E> y, orthonormal_report* report) : from{y}, to{take_like(exec, y)} {
    auto& arena = exec.arena();
    index_t const l = y.cols;
    c = row_major<typename E::space>(arena.template take<double>(l * l), {l, l});
    w = row_major<typename E::space>(arena.template take<float>(l * l), {l, l}).t();
    scales = arena.template take<double>(l);
    auto* const spare = arena.template take<orthonormal_report>(1);
    condition = arena.template take<gram_condition>(1);
    bad_pivot = arena.template take<std::int32_t>(1);
    seen = report != nullptr ? report : spare;
    begin_report(exec);
  }
  void begin_report(E& exec) const {
    exec.single([seen = seen] LOWRANK_DEVICE { *seen = {}; });
  }
  /// The Gram of `source`: of the columns themselves, or of a sketch of them.
  [[nodiscard]] scaled_gram<E> gram_of(const_view_of<E> source, gram_kind kind) const {
    return {source, c, scales, condition, kind};
  }
  /// Its Cholesky factor.
  void factor(E& exec, const_view_of<E> source, gram_kind kind) const {
    auto const g = gram_of(source, kind);
    g.sum_up(exec);
    g.factor(exec, bad_pivot);
  }
  /// Whether the Gram is known to be that of nearly orthonormal columns.
  [[nodiscard]] bool nearly_orthonormal(E& exec, double enough) const {
    auto const seen_now = exec.peek(condition);
    return seen_now && seen_now->departure <= enough && seen_now->dead == 0;
  }
  /// Whether the factor is known to be well conditioned: one of 1e-6 more or less changes little.
  [[nodiscard]] bool well_conditioned(E& exec) const {
    auto const seen_now = exec.peek(condition);
    return seen_now && seen_now->weakest >= 1e-3 && seen_now->dead == 0;
  }
  /// Columns times the inverse of the factor, fresh ones for dead ones. `seen` learns whether this pass was the last.
  void apply(E& exec, rng_key const& fresh, std::int32_t pass, double enough) {
    divide_by_factor(exec);
    replace_columns(exec, fresh, static_cast<std::uint64_t>((pass - 1) * to.size()), scales, to);
    std::swap(from, to);
    exec.single([=, seen = seen, condition = condition] LOWRANK_DEVICE {
      bool const settled = condition->departure <= enough && condition->dead == 0;
      *seen = {.passes = pass,
               .replaced = seen->replaced + condition->dead,
               .failed = seen->failed > 1            ? seen->failed
                         : settled || enough > 1e299 ? 0
                                                     : 1,
               .departure = condition->departure};
    });
  }
  /// to = from D L⁻ᵀ, D = diag(scales). On the host a block of columns at a time, after the part along the ones before it was
  /// taken from it: half of the work on the inverse becomes products of that many columns, and these are fp32 and fast. On a
  /// device, where every call is a launch, by the whole inverse.
  void divide_by_factor(E& exec) const {
    index_t const width = std::derived_from<E, host_executor> ? 256 : c.cols;
    for (index_t begin = 0; begin < c.cols; begin += width) {
      index_t const end = std::min(c.cols, begin + width);
      block const corner{begin, end, begin, end};
      auto const now = from.col_range(begin, end);
      if constexpr (std::derived_from<E, host_executor>) {
        auto const above = w.sub({0, begin, begin, end});
        narrow_above(exec, c.sub({begin, end, 0, begin}), scales + begin, above);
        if (begin > 0)
          multiply(exec, 1.0F, const_view_of<E>(to.col_range(0, begin)), const_view_of<E>(above), 1.0F, now);
      }
      invert_lower(exec, c.sub(corner));
      narrow_inverse(exec, c.sub(corner), scales + begin, w.sub(corner));
      multiply_upper(exec, const_view_of<E>(now), const_view_of<E>(w.sub(corner)), to.col_range(begin, end));
    }
  }
  /// Columns times the powers of two that bring their lengths near to 1: exact.
  void even_lengths(E& exec) const {
    scale_columns(exec, from, [scales = scales] LOWRANK_DEVICE(index_t j) { return nearest_power(scales[j]); });
    exec.team([scales = scales, l = from.cols] LOWRANK_DEVICE(auto team) {
      team.each(l, [=](index_t j) { scales[j] /= static_cast<double>(nearest_power(scales[j])); });
    });
  }
  /// The same for a Gram I + U + Uᵀ so near to I that its Cholesky factor is I + U but for 1.5 ‖U + Uᵀ‖²: no factorization,
  /// and what is added to the columns is so small that its rounding vanishes in theirs.
  void correct(E& exec, std::int32_t pass) {
    first_order_inverse(exec, c, scales, w);
    multiply_upper(exec, const_view_of<E>(from), const_view_of<E>(w), to);
    axpy(exec, 1.0F, const_view_of<E>(from), to);
    std::swap(from, to);
    exec.single([=, seen = seen, condition = condition] LOWRANK_DEVICE {
      *seen = {.passes = pass, .replaced = seen->replaced, .failed = 0, .departure = condition->departure};
    });
  }
};

}  // namespace detail

/// Replaces the columns of Y by orthonormal ones that span them: shifted Cholesky QR with the Gram in fp64, its diagonal
/// scaled to one, repeated until it started from nearly orthonormal columns. Columns without anything new (zero, or
/// dependent to fp32 rounding) become random directions orthogonal to the rest. Column k is a combination of columns
/// 0 ... k of the input, of positive weight in k, as long as none before it was replaced.
/// Shapes: Y m x l, l <= m.
/// Requires: Y does not overlap the executor's scratch. NaN or Inf: `failed` is set and Y holds nothing useful.
/// Ensures: ‖QᵀQ - I‖_F of about 0.6 sqrt(l) eps, whatever the scale, rank and condition of Y.
/// Cost: a pass is 2.3 m l² + 2 l³ / 3 flops (without the l³ where it began below `first_order_departure`); 2 passes up to condition 1e4, 3 or
/// 4 beyond; workspace orthonormalize_bytes.
/// An executor that cannot peek runs 4 passes.
/// Throws: shape_error.
/// Reference: Fukaya, Kannan, Nakatsukasa, Yamamoto, Yanagisawa, "Shifted Cholesky QR for computing the QR factorization of
/// ill-conditioned matrices" (2020), with the shift in units of fp64.
template <class E>
void orthonormalize(E& exec, view_of<E> y, rng_key fresh, orthonormal_report* report = nullptr,
                    orthonormal_options options = {}) {
  require<shape_error>(y.cols <= y.rows, "orthonormalize", "needs at most as many columns as rows, got ", y.shape());
  if (y.empty()) {
    if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {}; });
    return;
  }
  fresh.purpose = rng_purpose::completion;
  scratch_scope const scope{exec};
  detail::cholesky_passes<E> work{exec, y, report};
  balance_columns(exec, y, &work.seen->failed);
  auto const nonfinite = exec.peek(&work.seen->failed);
  if (nonfinite && *nonfinite != 0) return;
  bool const watched = nonfinite.has_value();
  // Nobody has looked, so that must not be forgotten by the passes.
  if (!watched) exec.single([seen = work.seen] LOWRANK_DEVICE { seen->failed *= 2; });
  std::int32_t const most = watched ? options.most_passes : std::min(options.most_passes, 4);
  double const first_order = detail::first_order_departure(y.cols, options.last_gram);
  for (std::int32_t pass = 1; pass <= most; ++pass) {
    auto const kind = pass > 1 && (watched || pass == most) ? options.last_gram
                      : pass == 1 && watched                ? options.first_gram
                                                            : gram_kind::wide;
    auto sum = work.gram_of(work.from, kind);
    sum.sum_up(exec);
    bool const exact = kind == gram_kind::wide || options.last_gram == gram_kind::mixed;
    if (exact && work.nearly_orthonormal(exec, first_order)) {
      if (pass == 1) work.even_lengths(exec);
      work.correct(exec, pass);
      break;
    }
    auto const in_fp64 = [&] { sum.kind = gram_kind::wide, sum.sum_up(exec); };
    bool const suspect = sum.kind == gram_kind::mixed && watched;
    if (suspect && pass > 1 && !work.nearly_orthonormal(exec, options.departure)) in_fp64();
    sum.factor(exec, work.bad_pivot);
    if (suspect && pass == 1 && !work.well_conditioned(exec)) in_fp64(), sum.factor(exec, work.bad_pivot);
    work.apply(exec, fresh, pass, options.departure);
    if (auto const failed = exec.peek(&work.seen->failed); failed && *failed == 0) break;
  }
  if (work.from.data != y.data) copy(exec, work.from, y);
}

}  // namespace lowrank
