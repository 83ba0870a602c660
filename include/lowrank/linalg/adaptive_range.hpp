/// @file
/// A range finder that is asked for an error instead of a rank: it grows its basis block by block until that is reached.
#pragma once

#include "lowrank/linalg/range_finder.hpp"

namespace lowrank {

/// Relative errors below this are refused: residuals are formed in fp32, and rounding alone is about this large.
inline constexpr double least_range_error = 1e-6;
/// Relative errors from here on follow from ‖G - QQᵀG‖² = ‖G‖² - ‖QᵀG‖² within 1 %. The difference of sums costs nothing,
/// but an fp32 product QᵀG errs by less than 4 u of the energy, or by up to 32 u where that is concentrated in one column
/// (more only in sums of thousands of equal numbers): smaller errors are rounding in it, and have to be measured.
inline constexpr double least_indicated_error = 1e-2;

struct adaptive_options {
  double tolerance{};           ///< relative error ‖G - QQᵀG‖_F / ‖G‖_F asked for, 0: none
  double share{1};              ///< share of ‖G‖_F² asked for, 1: none; with both, the one that is reached first
  index_t block{16};            ///< columns that are added at a time
  index_t power_iterations{1};  ///< as range_options, on what the basis does not have yet
  sketch_kind sketch{sketch_kind::rademacher};

  /// The relative error at which the search ends.
  [[nodiscard]] double target() const noexcept { return std::max(tolerance, std::sqrt(std::max(1 - share, 0.0))); }
  void check(char const* caller) const {
    require(block >= 1 && power_iterations >= 0, caller,
            "needs a block of at least 1 and no negative power_iterations, got ", block, " and ", power_iterations);
    require(tolerance >= 0 && share > 0 && share <= 1, caller, "needs tolerance >= 0 and share in (0, 1], got ",
            tolerance, " and ", share);
    require(target() >= least_range_error && target() < 1, caller, "needs a relative error in [", least_range_error,
            ", 1), the least that fp32 residuals can tell from 0, got ", target(), " from a tolerance of ", tolerance,
            " and a share of ", share);
  }
};

/// What became of `find_adaptive_range`, in the executor's memory space.
struct adaptive_report {
  index_t rank{};      ///< the fewest leading columns of q that do what was asked for; all searched ones where none do
  index_t searched{};  ///< columns of q that are orthonormal; the ones beyond are zero
  double energy{};     ///< ‖G‖_F²
  double captured{};   ///< ‖QᵀG‖_F² of the first `rank` columns
  double error{};  ///< at least ‖G - QQᵀG‖_F / ‖G‖_F of the first `rank` columns, never below what can be told from 0
  std::int32_t reached{};   ///< 1: `error` is what was asked for, or better
  std::int32_t measured{};  ///< 1: `error` comes from residuals, 0: from the difference of energies
  std::int32_t failed{};    ///< 1: G had NaN or Inf (or overflowed); q is unusable
};

namespace detail {

/// How uncertain ‖QᵀG‖² / ‖G‖² is for an fp32 product QᵀG, 32 u, and ‖G - Q(QᵀG)‖_F / ‖G‖_F for fp32 residuals, 4 u.
inline constexpr double share_rounding = 16 * static_cast<double>(std::numeric_limits<float>::epsilon());
inline constexpr double residual_rounding = 2 * static_cast<double>(std::numeric_limits<float>::epsilon());

/// Squared norms during a search.
struct range_progress {
  double energy;        ///< of G
  double left;          ///< of G without its projection: `base`, less what was captured since
  double base;          ///< of G, or the residual last measured: what the rounding of `left` is relative to
  double residual;      ///< measured for all columns, or -1
  double part;          ///< of what comes next
  std::int32_t enough;  ///< 1: as far as can be told, the target is reached
};

[[nodiscard]] constexpr index_t most_columns(extents g, index_t r) noexcept { return std::min({g.rows, g.cols, r}); }

[[nodiscard]] constexpr index_t separate_bytes(index_t block) noexcept {
  return scratch_bytes<double>(block * block) + scratch_bytes<double>(block);
}
/// Y <- Y - Q (Qᵀ Y), for Y of about unit columns. Those that are less than `shortest` (squared) afterwards are rounding,
/// which may well point into the span of Q again, however often it is taken out: random columns take their place.
template <class E>
void separate(E& exec, const_view_of<E> q, view_of<E> y, view_of<E> coefficients, double shortest, rng_key fresh) {
  scratch_scope const scope{exec};
  auto const c = take_matrix<double>(exec, {y.cols, y.cols});
  auto* const scales = exec.arena().template take<double>(y.cols);
  multiply(exec, 1.0F, q.t(), y, 0.0F, coefficients);
  multiply(exec, -1.0F, q, coefficients, 1.0F, y);
  gram(exec, y, c);
  unit_scales(exec, c, scales, shortest);
  fresh.purpose = rng_purpose::basis;
  replace_columns(exec, fresh, 0, scales, y);
}

/// Columns [begin, end) of Y, orthonormal and orthogonal to those before, and of Z = Gᵀ Y, which hold their sketch.
/// G without what Y has is G W - Y (Zᵀ W): no copy of G is deflated.
template <class E, class G>
void grow_range(E& exec, G const& g, view_of<E> y, view_of<E> z, index_t begin, index_t end, view_of<E> coefficients,
                index_t power_iterations, rng_key key, orthonormal_report* fit) {
  auto const q = y.col_range(0, begin), b = z.col_range(0, begin), next = y.col_range(begin, end);
  auto const w = z.col_range(begin, end), c = coefficients.sub({0, begin, 0, end - begin});
  auto const multiply_rest = [&] {
    multiply(exec, 1.0F, g, w, 0.0F, next);
    if (begin == 0) return;
    multiply(exec, 1.0F, b.t(), w, 0.0F, c);
    multiply(exec, -1.0F, q, c, 1.0F, next);
  };
  key.seed += static_cast<std::uint64_t>(begin) * 0x9E3779B97F4A7C15U;  // no two blocks are completed alike
  // Where little is left of G, columns have a trace of Q from rounding: all that the next product with Gᵀ would see.
  auto const part = [&](double shortest) {
    orthonormalize(exec, next, key, fit, roughly);
    if (begin > 0) separate<E>(exec, q, next, c, shortest, key);
  };
  multiply_rest();
  for (index_t step = 0; step < power_iterations; ++step) {
    part(0.01);
    multiply(exec, 1.0F, g.t(), next, 0.0F, w);
    orthonormalize(exec, w, key, fit, roughly);
    multiply_rest();
  }
  // Random columns may lose all but 1 / sqrt(m) of their length to a Q that is almost square, and twice is enough.
  for (double const shortest : {0.01, 0.0, 0.0})
    if (begin > 0) part(shortest);
  orthonormalize(exec, next, key, fit);
  multiply(exec, 1.0F, g.t(), next, 0.0F, w);
}

/// panel = rows [begin, end) of G.
template <class E>
void form_rows(E& exec, const_view_of<E> g, index_t begin, index_t end, view_of<E> panel) {
  copy(exec, g.row_range(begin, end), panel);
}
template <class E>
void form_rows(E& exec, outer_product<typename E::space> g, index_t begin, index_t end, view_of<E> panel) {
  multiply(exec, 1.0F, g.output_gradient.col_range(begin, end).t(), g.input, 0.0F, panel);
}
[[nodiscard]] constexpr index_t residual_bytes(extents g) noexcept {
  return scratch_bytes<float>(std::min(norm_panel, g.rows) * g.cols);
}
/// seen->residual = ‖G - Y Zᵀ‖²: at least what projecting on span(Y) leaves.
template <class E, class G>
void measure_residual(E& exec, G const& g, const_view_of<E> y, const_view_of<E> z, range_progress* seen) {
  scratch_scope const scope{exec};
  auto const panel = take_matrix(exec, {std::min(norm_panel, y.rows), z.rows});
  exec.single([=] LOWRANK_DEVICE { seen->residual = 0; });
  for (index_t begin = 0; begin < y.rows; begin += norm_panel) {
    index_t const end = std::min(y.rows, begin + norm_panel);
    auto const part = panel.row_range(0, end - begin);
    form_rows<E>(exec, g, begin, end, part);
    multiply(exec, -1.0F, y.row_range(begin, end), z.t(), 1.0F, part);
    squared_norm(exec, part, &seen->part);
    exec.single([=] LOWRANK_DEVICE { seen->residual += seen->part; });
  }
}

/// The fewest columns whose error is at most `target`, from energies that fall.
LOWRANK_HD inline void trim_range(double const* energies, index_t searched, range_progress const& seen, double target,
                                  adaptive_report* report) {
  adaptive_report out{
      .searched = searched, .energy = seen.energy, .reached = 1, .measured = seen.residual >= 0 ? 1 : 0};
  double captured = 0;
  for (index_t k = 0; k < searched; ++k) captured += energies[k];
  // Residuals carry the rounding of G and of Q; a difference carries that of the energies, and what they count twice
  // where Q is not orthonormal.
  double const missed = captured < seen.energy ? 1 - captured / seen.energy : 0;
  double const outside =
      out.measured != 0 ? seen.residual / seen.energy : missed + share_rounding + seen.part * seen.part;
  double const rounding = out.measured != 0 ? residual_rounding : 0;
  double tail = 0;
  out.rank = seen.energy > 0 ? searched : 0;
  out.error = seen.energy > 0 ? std::sqrt(outside) + rounding : 0;
  out.reached = out.error <= target ? 1 : 0;
  while (out.reached != 0 && out.rank > 0) {
    double const more = tail + energies[out.rank - 1];
    double const error = std::sqrt(outside + more / seen.energy) + rounding;
    if (!(error <= target)) break;
    tail = more;
    out.error = error;
    --out.rank;
  }
  for (index_t k = 0; k < out.rank; ++k) out.captured += energies[k];
  *report = out;
}

}  // namespace detail

/// Scratch that `find_adaptive_range` takes at most, for a gradient over `tokens` rows (0: dense) and a cap of r columns.
[[nodiscard]] constexpr index_t adaptive_range_bytes(extents g, index_t r, adaptive_options const& options = {},
                                                     index_t tokens = 0) noexcept {
  index_t const l = detail::most_columns(g, r), block = std::min(options.block, l);
  if (l <= 0) return 0;
  index_t const product = gradient_product_bytes(tokens, block);
  index_t const right = options.power_iterations > 0 ? orthonormalize_bytes({g.cols, block}) : 0;
  index_t const residual = options.target() < least_indicated_error ? detail::residual_bytes(g) : 0;
  return scratch_bytes<float>(g.rows * l) + scratch_bytes<float>(g.cols * l) + scratch_bytes<float>(l * block) +
         scratch_bytes<double>(l) + scratch_bytes<detail::range_progress>(1) + scratch_bytes<orthonormal_report>(1) +
         std::max({product, right, residual, detail::separate_bytes(block), gradient_norm_bytes(g, tokens),
                   orthonormalize_bytes({g.rows, block}), rayleigh_ritz_bytes(l, l),
                   orthonormalize_bytes({g.rows, l})});
}

/// Q with as many columns as an error of at most options.target() takes, by blocks of Ritz vectors of G: column k along the
/// direction of largest energy not yet taken. report->rank says how many; q's other orthonormal columns follow.
/// The error is the difference of fp64 sums of squares while that is sharp (least_indicated_error), and measured over row
/// panels of G - Q(QᵀG) below. Either is reported with its own rounding added: never smaller than the error, and not
/// `reached` where it cannot be told.
/// Shapes: G m x n dense or factored, q m x r; at most min(r, m, n) columns are searched.
/// Requires: q does not overlap G. NaN or Inf in G: `failed` is set and q holds nothing useful. A zero G has rank 0.
/// Cost: a block of b columns takes 2 q + 2 products of 2 m n b flops for q power steps and 4 m b (columns so far) a
/// product; in the end 9 l³ fp64 and 2 m l². Measuring takes 2 m n l a time: when the difference is down to its rounding,
/// and from there when the difference to what was measured promises the target.
/// Workspace adaptive_range_bytes.
/// Synchronises: the host looks after every block. An executor that cannot peek searches all of q and trims it there.
/// Throws: shape_error, argument_error.
/// Reference: Yu, Gu, Li, "Efficient randomized algorithms for the fixed-precision low-rank matrix approximation" (2018),
/// algorithm 2 (randQB_EI).
template <class E, gradient_argument G>
void find_adaptive_range(E& exec, G const& given, view_of<E> q, adaptive_options const& options, rng_key key,
                         adaptive_report* report) {
  auto const g = as_gradient(given);
  index_t const m = g.shape().rows, n = g.shape().cols, most = detail::most_columns(g.shape(), q.cols);
  require<shape_error>(q.rows == m, "find_adaptive_range", "needs a basis of ", m, " rows, got ", q.shape());
  options.check("find_adaptive_range");
  double const target = options.target();
  bool const measures = target < least_indicated_error;
  if (most == 0) {
    if (!q.empty()) fill(exec, q, 0.0F);
    bool const nothing = g.shape().size() == 0;
    return exec.single([=] LOWRANK_DEVICE { *report = {.error = nothing ? 0.0 : 1.0, .reached = nothing ? 1 : 0}; });
  }
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const y = take_matrix(exec, {m, most}), z = take_matrix(exec, {n, most});
  auto const coefficients = take_matrix(exec, {most, std::min(options.block, most)});
  auto* const energies = arena.template take<double>(most);
  auto* const seen = arena.template take<detail::range_progress>(1);
  auto* const fit = arena.template take<orthonormal_report>(1);
  squared_norm(exec, g, &seen->energy);
  exec.single([=] LOWRANK_DEVICE {
    seen->left = seen->base = seen->energy;
    seen->residual = -1;
    *report = {.failed = is_finite(seen->energy) ? 0 : 1};
  });
  auto const gave_up = [&] {
    auto const failed = exec.peek(&report->failed);
    return failed && *failed != 0;
  };
  if (gave_up()) return;

  key.purpose = rng_purpose::sketch;
  // As wide as G, signs might miss a direction.
  if (options.sketch == sketch_kind::gaussian || most == n) fill_gaussian(exec, key, z);
  else fill_rademacher(exec, key, z);
  index_t searched = 0;
  for (bool reached = false; searched < most && !reached;) {
    index_t const begin = std::exchange(searched, std::min(most, searched + options.block));
    detail::grow_range(exec, g, y, z, begin, searched, coefficients, options.power_iterations, key, fit);
    exec.single([=] LOWRANK_DEVICE { report->failed |= fit->failed; });
    if (gave_up()) return;
    squared_norm(exec, z.col_range(begin, searched), &seen->part);
    exec.single([=] LOWRANK_DEVICE {
      seen->left -= seen->part;
      double const room = detail::share_rounding * seen->base;
      // A difference that is sharp has to exclude its rounding (a hair more, or what follows loses the target again);
      // otherwise it says when to measure.
      double const bound = target * target * seen->energy;
      seen->enough = seen->left <= (measures ? bound + room : (1 - 1e-6) * bound - room) ? 1 : 0;
    });
    auto const enough = exec.peek(&seen->enough);
    reached = enough && *enough != 0;
    if (!measures || !(reached || searched == most)) continue;
    detail::measure_residual(exec, g, const_view_of<E>(y.col_range(0, searched)),
                             const_view_of<E>(z.col_range(0, searched)), seen);
    exec.single([=] LOWRANK_DEVICE {
      seen->left = seen->base = seen->residual;
      seen->enough =
          std::sqrt(seen->residual) <= (target - detail::residual_rounding) * std::sqrt(seen->energy) ? 1 : 0;
    });
    reached = exec.peek(&seen->enough).value_or(0) != 0;
  }
  auto const found = q.col_range(0, searched);
  rayleigh_ritz(exec, const_view_of<E>(y.col_range(0, searched)), const_view_of<E>(z.col_range(0, searched)), found,
                &seen->part, energies, &report->failed);
  if (searched < q.cols) fill(exec, q.col_range(searched, q.cols), 0.0F);
  orthonormalize(exec, found, key, fit, roughly);
  exec.single([=] LOWRANK_DEVICE {  // for the departure that this pass began with: how far energies counted twice
    report->failed |= fit->failed;
    seen->part = fit->departure;
  });
  orthonormalize(exec, found, key, fit);
  orient_columns(exec, found);
  exec.single([=] LOWRANK_DEVICE {
    auto const failed = report->failed | fit->failed;
    detail::trim_range(energies, searched, *seen, target, report);
    report->failed = failed;
  });
}

}  // namespace lowrank
