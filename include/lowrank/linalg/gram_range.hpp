/// @file
/// The range finder's answer by way of C = G Gᵀ, m x m: n m² flops once, then 2 m² l a pass instead of 4 m n l. For wide
/// gradients (m <= n) and bases of more than about m / 8 columns; linalg/route.hpp counts.
#pragma once

#include "lowrank/linalg/range_finder.hpp"
#include "lowrank/linalg/scale_to_unit.hpp"

namespace lowrank {

enum class gram_solver : std::uint8_t {
  eigen,     ///< all eigenvectors of C in fp64: the exact basis while sigma_r / sigma_1 > 1e-6
  subspace,  ///< block subspace iteration on an fp32 copy of C: sees nothing below 3e-4 sigma_1
};

struct gram_range_options {
  gram_solver solver{gram_solver::eigen};
  index_t iterations{4};    ///< of `subspace`: products with C before the rotation, which takes one more
  index_t oversampling{8};  ///< of `subspace`: extra columns while iterating
};

/// B = 2^-e A with its largest magnitude in [1, 2], from the lower triangle of a symmetric A, whose elements may be far
/// outside of fp32; e is in [-1000, 1000]. An executor with memory of its own brings its own overload.
/// Cost: reads half of A once and all of it once; workspace 0.
inline void narrow_symmetric(host_executor& exec, matrix_view<double const> a, matrix_view<float> b, unit_scale* seen) {
  constexpr std::uint64_t magnitude = 0x7FFF'FFFF'FFFF'FFFFU, infinity = 0x7FF0'0000'0000'0000U;
  std::uint64_t largest = 0;
  detail::for_row_groups(exec, a.shape(), [&](index_t begin, index_t end) {
    std::uint64_t most = 0;
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j <= i; ++j) most = std::max(most, std::bit_cast<std::uint64_t>(a(i, j)) & magnitude);
    std::atomic_ref const all{largest};
    for (auto now = all.load(); now < most && !all.compare_exchange_weak(now, most);) continue;
  });
  int const exponent = std::clamp(static_cast<int>(largest >> 52) - 1023, -1000, 1000);
  *seen = {.exponent = exponent, .nonfinite = largest >= infinity ? 1 : 0};
  double const factor = std::bit_cast<double>(static_cast<std::uint64_t>(1023 - exponent) << 52);
  detail::for_row_groups(exec, b.shape(), [&](index_t begin, index_t end) {
    constexpr index_t side = 32;  // squares, because half of A is read across its rows
    for (index_t i0 = begin; i0 < end; i0 += side)
      for (index_t j0 = 0; j0 < b.cols; j0 += side)
        for (index_t i = i0; i < std::min(i0 + side, end); ++i)
          for (index_t j = j0; j < std::min(j0 + side, b.cols); ++j)
            b(i, j) = static_cast<float>(factor * (j <= i ? a(i, j) : a(j, i)));
  });
}

namespace detail {

/// Columns of a gradient that are formed at a time, and rows of C that they are added to at a time.
inline constexpr index_t gram_panel = 256, gram_rows = 512;

[[nodiscard]] constexpr index_t outer_gram_bytes(extents g, index_t tokens) noexcept {
  index_t const panel = std::min(gram_panel, g.cols) * g.rows;
  return tokens == 0 ? 0 : scratch_bytes<float>(panel) + scratch_bytes<double>(panel);
}

/// Columns [begin, end) of a gradient that is not there in fp32, as rows.
template <class E>
void form_columns(E& exec, outer_product<typename E::space> g, index_t begin, index_t end, view_of<E> out) {
  multiply(exec, 1.0F, g.input.col_range(begin, end).t(), g.output_gradient, 0.0F, out);
}
template <class E, narrow_float T>
void form_columns(E& exec, matrix_view<T const, typename E::space> g, index_t begin, index_t end, view_of<E> out) {
  convert(exec, g.col_range(begin, end).t(), out);
}

/// Lower triangle of C = G Gᵀ. What is formed panel by panel is summed in fp64 whatever `kind`, because its panels are.
template <class E>
void outer_gram(E& exec, const_view_of<E> g, wide_view_of<E> c, gram_kind kind) {
  if (kind == gram_kind::wide) gram(exec, g.t(), c);
  else gram_mixed(exec, g.t(), c);
}
template <class E, gradient G>
  requires(!is_dense_gradient<G>)
void outer_gram(E& exec, G const& g, wide_view_of<E> c, gram_kind) {
  index_t const m = g.shape().rows, n = g.shape().cols;
  fill(exec, c, 0.0);
  if (tokens_of(g) == 0) return;  // no scratch is counted for it
  scratch_scope const scope{exec};
  auto const panel = take_matrix(exec, {std::min(gram_panel, n), m});
  auto const wide = take_matrix<double>(exec, panel.shape());
  for (index_t begin = 0; begin < n; begin += gram_panel) {
    index_t const end = std::min(n, begin + gram_panel);
    auto const part = panel.row_range(0, end - begin);
    auto const wide_part = wide.row_range(0, end - begin);
    form_columns(exec, g, begin, end, part);
    convert(exec, part, wide_part);
    for (index_t i = 0; i < m; i += gram_rows) {
      index_t const to = std::min(m, i + gram_rows);
      multiply(exec, 1.0, wide_part.col_range(i, to).t(), wide_part.col_range(0, to), 1.0, c.sub({i, to, 0, to}));
    }
  }
}

[[nodiscard]] constexpr bool solves_by_eigen(extents g, index_t r, gram_range_options const& options) noexcept {
  return options.solver == gram_solver::eigen || r + options.oversampling >= g.rows;  // a block as wide as C is C
}

/// What the eigenvalues say, in units of 2^exponent. Those within `rounding` of zero are directions G does not have.
template <class E>
void report_energies(E& exec, double const* values, index_t r, double rounding, unit_scale const* unit,
                     range_report* seen, double* energies) {
  exec.single([=] LOWRANK_DEVICE {
    double const floor = rounding * values[0];
    for (index_t k = 0; k < r; ++k) {
      bool const provided = values[k] > floor;
      double const energy = provided ? std::ldexp(values[k], unit->exponent) : 0.0;
      seen->captured += energy;
      seen->replaced += provided ? 0 : 1;
      if (energies != nullptr) energies[k] = energy;
    }
  });
}

/// q = the r leading eigenvectors of C.
template <class E, class G>
void range_by_eigen(E& exec, G const& g, view_of<E> q, unit_scale* unit, range_report* seen, double* energies) {
  index_t const m = q.rows;
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const c = take_matrix<double>(exec, {m, m});
  auto* const values = arena.template take<double>(m);
  auto* const failed = arena.template take<std::int32_t>(1);
  outer_gram<E>(exec, g, c, gram_kind::wide);
  symmetric_eigen(exec, c, values, failed);
  exec.single([=] LOWRANK_DEVICE {
    *unit = {};
    seen->failed = *failed;
  });
  if (auto const bad = exec.peek(failed); bad && *bad != 0) return;
  convert(exec, c.col_range(0, q.cols), q);
  double const rounding = 4 * static_cast<double>(m) * std::numeric_limits<double>::epsilon();
  report_energies(exec, values, q.cols, rounding, unit, seen, energies);
}

/// q = the r leading Ritz vectors of C in span(C^iterations [start, signs]).
template <class E, class G>
void range_by_subspace(E& exec, G const& g, const_view_of<E> start, view_of<E> q, gram_range_options const& options,
                       rng_key key, unit_scale* unit, range_report* seen, double* energies) {
  index_t const m = q.rows, r = q.cols, l = r + options.oversampling, k = start.cols;
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const c = take_matrix(exec, {m, m});
  {
    scratch_scope const narrowing{exec};
    auto const wide = take_matrix<double>(exec, {m, m});
    // An fp32 copy needs no more than fp32 sums, unless squares leave fp32, which only who can look can tell.
    bool const looks = exec.peek(&seen->failed).has_value();
    outer_gram<E>(exec, g, wide, looks ? gram_kind::mixed : gram_kind::wide);
    narrow_symmetric(exec, wide, c, unit);
    if (auto const got = exec.peek(unit); got && (got->nonfinite != 0 || got->exponent < -90)) {
      outer_gram<E>(exec, g, wide, gram_kind::wide);
      narrow_symmetric(exec, wide, c, unit);
    }
  }
  exec.single([=] LOWRANK_DEVICE { seen->failed = unit->nonfinite; });
  if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;

  auto y = take_matrix(exec, {m, l}), next = take_matrix(exec, {m, l});
  auto* const fit = arena.template take<orthonormal_report>(1);
  if (k > 0) copy(exec, start, y.col_range(0, k));
  key.purpose = rng_purpose::sketch;
  fill_rademacher(exec, key, y.col_range(k, l));
  for (index_t step = 0; step < options.iterations; ++step) {
    if (step > 0) orthonormalize(exec, y, key, fit, roughly);
    multiply(exec, 1.0F, c, y, 0.0F, next);
    std::swap(y, next);
  }
  orthonormalize(exec, y, key, fit);
  exec.single([=] LOWRANK_DEVICE {
    seen->passes = fit->passes;
    seen->failed |= fit->failed;
  });
  if (auto const failed = exec.peek(&fit->failed); failed && *failed != 0) return;

  multiply(exec, 1.0F, c, y, 0.0F, next);
  auto const projected = take_matrix(exec, {l, l});
  auto const square = take_matrix<double>(exec, {l, l});
  auto* const values = arena.template take<double>(l);
  auto* const failed = arena.template take<std::int32_t>(1);
  multiply(exec, 1.0F, y.t(), next, 0.0F, projected);
  convert(exec, projected, square);
  symmetric_eigen(exec, square, values, failed);
  exec.single([=] LOWRANK_DEVICE { seen->failed |= *failed; });
  auto const turn = projected.col_range(0, r);
  convert(exec, square.col_range(0, r), turn);
  multiply(exec, 1.0F, y, turn, 0.0F, q);
  report_energies(exec, values, r, 4.0 * static_cast<double>(std::numeric_limits<float>::epsilon()), unit, seen,
                  energies);
}

}  // namespace detail

/// Scratch that `find_range_by_gram` takes for a gradient over `tokens` rows (0: dense).
[[nodiscard]] constexpr index_t gram_range_bytes(extents g, index_t r, gram_range_options const& options = {},
                                                 index_t tokens = 0) noexcept {
  if (r == 0) return 0;
  index_t const m = g.rows, l = r + options.oversampling;
  index_t const formed = scratch_bytes<double>(m * m) + detail::outer_gram_bytes(g, tokens);
  index_t const eigen = scratch_bytes<double>(m * m) + scratch_bytes<double>(m) + scratch_bytes<std::int32_t>(1) +
                        std::max(detail::outer_gram_bytes(g, tokens), symmetric_eigen_bytes(m));
  index_t const rotation = scratch_bytes<float>(l * l) + scratch_bytes<double>(l * l) + scratch_bytes<double>(l) +
                           scratch_bytes<std::int32_t>(1) + symmetric_eigen_bytes(l);
  index_t const iterate = 2 * scratch_bytes<float>(m * l) + scratch_bytes<orthonormal_report>(1) +
                          std::max(orthonormalize_bytes({m, l}), rotation);
  index_t const search =
      detail::solves_by_eigen(g, r, options) ? eigen : scratch_bytes<float>(m * m) + std::max(formed, iterate);
  return scratch_bytes<range_report>(1) + scratch_bytes<orthonormal_report>(1) + scratch_bytes<unit_scale>(1) +
         std::max(search, orthonormalize_bytes({m, r}));
}

/// Q: the r leading left singular vectors of G from C = G Gᵀ (fp64), column k along the direction of largest energy not yet
/// taken, its entry of largest magnitude positive. `energies`, if given, receives ‖q_kᵀ G‖² for every k. Directions that G
/// does not have within rounding have energy 0 and are counted in report->replaced; Q is orthonormal there too.
/// `start` are columns from which `subspace` sets out (an old basis), fresh signs fill up the block; `eigen` ignores it.
/// Shapes: G m x n dense or factored, start m x k with k <= r + p, q m x r, r <= m; energies r, in the executor's memory.
/// Requires: q overlaps neither G nor start; start is finite. NaN or Inf in G: `failed` is set and q holds nothing useful.
/// Ensures: `eigen`: energies to 4 m eps (of fp64) of the largest. `subspace`: to a few eps (of fp32) of it; directions
/// contract by (sigma_(l + 1) / sigma_r)² an iteration.
/// Cost: n m² flops for C, in fp64 (`eigen`) or fp32 (`subspace`; in fp64 and with 2 T m n more for a factored gradient, and
/// again in fp64 where fp32 cannot hold squares); then 9 m³ fp64 (`eigen`), or 2 m² l an iteration and once more and 9 l³
/// fp64 (`subspace`); workspace gram_range_bytes, more than 8 m².
/// Throws: shape_error, argument_error.
template <class E, gradient_argument G>
void find_range_by_gram(E& exec, G const& given, const_view_of<E> start, view_of<E> q,
                        gram_range_options const& options, rng_key const& key, range_report* report = nullptr,
                        double* energies = nullptr) {
  auto const g = as_gradient(given);
  index_t const m = g.shape().rows, r = q.cols;
  require<shape_error>(q.rows == m && r <= m, "find_range_by_gram", "needs an m x r basis with r <= m, got ", q.shape(),
                       " for ", g.shape());
  require(options.iterations >= 0 && options.oversampling >= 0, "find_range_by_gram",
          "iterations and oversampling must not be negative, got ", options.iterations, " and ", options.oversampling);
  require<shape_error>(start.cols == 0 || (start.rows == m && start.cols <= r + options.oversampling),
                       "find_range_by_gram", "needs a start of ", m, " rows and at most ", r + options.oversampling,
                       " columns, got ", start.shape());
  if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {}; });
  if (r == 0) return;
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto* const spare = arena.template take<range_report>(1);
  auto* const fit = arena.template take<orthonormal_report>(1);
  auto* const unit = arena.template take<unit_scale>(1);
  auto* const seen = report != nullptr ? report : spare;
  exec.single([=] LOWRANK_DEVICE { *seen = {}; });
  if (detail::solves_by_eigen(g.shape(), r, options)) detail::range_by_eigen(exec, g, q, unit, seen, energies);
  else detail::range_by_subspace(exec, g, start, q, options, key, unit, seen, energies);
  if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;
  orthonormalize(exec, q, key, fit);
  orient_columns(exec, q);
  exec.single([=] LOWRANK_DEVICE {
    seen->passes += fit->passes;
    seen->failed |= fit->failed;
  });
}
/// The same from fresh signs alone.
template <class E, gradient_argument G>
void find_range_by_gram(E& exec, G const& given, view_of<E> q, gram_range_options const& options, rng_key const& key,
                        range_report* report = nullptr, double* energies = nullptr) {
  find_range_by_gram(exec, given, const_view_of<E>{nullptr, q.rows, 0, 0, 1}, q, options, key, report, energies);
}

}  // namespace lowrank
