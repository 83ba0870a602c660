/// @file
/// Warm-started block iteration: yesterday's basis, turned towards today's gradient by two products with it.
#pragma once

#include "lowrank/linalg/detail/drop_weakest.hpp"
#include "lowrank/linalg/detail/tail_shift.hpp"
#include "lowrank/linalg/frame.hpp"
#include "lowrank/linalg/orthonormalizer.hpp"
#include "lowrank/linalg/range_finder.hpp"
#include "lowrank/linalg/rayleigh_ritz.hpp"

namespace lowrank {

enum class column_order : std::uint8_t {
  as_iterated,  ///< column k is a combination of columns 0 ... k of the iterated block: the old frame, carried along
  by_energy,    ///< Rayleigh-Ritz: one product with G more, the energies for it
};

/// What happens to Z = GᵀX before it is multiplied with G.
enum class between_products : std::uint8_t {
  orthonormalize,  ///< roughly, 3 n l² flops: G Gᵀ X would hold squares of singular values, and fp32 loses the weak ones
  nothing,         ///< the cheapest pass, for gradients whose leading values are within two or three decades
  /// As `nothing`, and s X is taken from G Z: (GGᵀ - s I) X forgets a flat tail faster. s is found from what the first pass
  /// does to one random column more (`detail::choose_shift`), 0 where the tail is not flat. For `warm_range`; elsewhere it
  /// is `nothing`.
  shift,
};

struct warm_options {
  index_t fresh{0};   ///< random columns beside the old ones; the weakest directions are dropped again
  index_t passes{1};  ///< each is two products with G; 2 and fresh columns for spectra that move
  between_products between{between_products::orthonormalize};
  column_order order{column_order::as_iterated};
  alignment align{alignment::none};
  /// Of the old basis that joins the iterated block, beside the block's largest element: where G has fewer directions than
  /// the basis has columns, the others then stay what they were instead of being drawn anew. 1e-4 is far above rounding
  /// and costs directions that weak. For `warm_range`.
  float retained{0};
  /// The last columns, in a frame by energy the weakest, whose part outside of the best basis shrinks slowest, take one
  /// pass more, in the complement of the others. For `warm_range`.
  index_t again{0};
};

namespace detail {

/// Exponents that a product Gᵀ X may have before it is scaled: squares of 2^-40 do not vanish.
inline constexpr std::int32_t product_spared = 40;

inline void check_warm(char const* caller, warm_options const& o) {
  require(o.fresh >= 0 && o.passes >= 1, caller, "needs fresh >= 0 and passes >= 1, got ", o.fresh, " and ", o.passes);
  require(o.retained >= 0 && o.retained <= 1, caller, "retained must be in [0, 1], got ", o.retained);
  require(o.again >= 0, caller, "again must not be negative, got ", o.again);
}

/// Columns of the iterated block: the old ones, the fresh ones, and what is missing to r.
[[nodiscard]] constexpr index_t block_width(index_t m, index_t old, index_t r, index_t fresh) noexcept {
  return std::min(m, std::max(std::min(old, m) + fresh, r));
}

/// Whether Z = GᵀX (n x l) is made orthonormal; it cannot be where it has more columns than rows.
[[nodiscard]] constexpr bool evens_out(extents g, index_t l, warm_options const& options) noexcept {
  return options.between == between_products::orthonormalize && l <= g.cols;
}

/// The block [old, fresh signs / sqrt(m)].
template <class E>
void fill_block(E& exec, const_view_of<E> old, view_of<E> x, rng_key key) {
  index_t const k = std::min(old.cols, x.cols);
  copy(exec, old.col_range(0, k), x.col_range(0, k));
  if (k == x.cols) return;
  auto const fresh = x.col_range(k, x.cols);
  key.purpose = rng_purpose::sketch;
  fill_rademacher(exec, key, fresh);
  scale(exec, static_cast<float>(1 / std::sqrt(static_cast<double>(x.rows))), fresh);
}

/// One pass of Grams in fp32: near enough to orthonormal for columns to be told apart.
inline constexpr orthonormal_options quickly{
    .most_passes = 1, .departure = roughly.departure, .first_gram = gram_kind::mixed};

/// Scratch of `pass_again` for q of m x r.
[[nodiscard]] constexpr index_t pass_again_bytes(extents g, index_t r, index_t columns, index_t tokens) noexcept {
  index_t const a = std::min(columns, r);
  if (a == 0) return 0;
  return scratch_bytes<float>(g.rows * a) + scratch_bytes<float>((r - a) * a) + scratch_bytes<unit_scale>(1) +
         scratch_bytes<orthonormal_report>(1) +
         std::max(
             {gradient_product_bytes(tokens, a), orthonormalize_bytes({g.rows, a}), orthonormalize_bytes({g.rows, r})});
}

/// One pass more for the last `columns` of q, within the complement of the others. It makes the columns of q roughly
/// orthonormal before (*before: what became of that) and leaves them so; the caller finishes it. z is scratch of n rows and at
/// least that many columns; shift: nullptr for none.
/// Cost: 4 m n a + 4 m r a flops for a columns, and a pass of orthonormalisation.
template <class E, class G>
void pass_again(E& exec, G const& g, view_of<E> q, index_t columns, view_of<E> z, rng_key const& key, tail_shift* shift,
                range_report* seen, orthonormal_report* before) {
  scratch_scope const scope{exec};
  index_t const r = q.cols, a = std::min(columns, r);
  auto const weak = q.col_range(r - a, r);
  auto const kept = const_view_of<E>(q.col_range(0, r - a));
  auto const y = take_matrix(exec, {q.rows, a}), inner = take_matrix(exec, {r - a, a});
  auto* const scaled = exec.arena().template take<unit_scale>(1);
  auto* const steps = exec.arena().template take<orthonormal_report>(1);
  auto const image = row_major<typename E::space>(z.data, {z.rows, a});  // rows side by side, not pages apart
  orthonormalize(exec, q, key, before, quickly);
  multiply(exec, 1.0F, g.t(), const_view_of<E>(weak), 0.0F, image);
  scale_to_unit(exec, image, scaled, product_spared);
  multiply(exec, 1.0F, g, const_view_of<E>(image), 0.0F, y);
  if (shift != nullptr) subtract_shifted(exec, const_view_of<E>(weak), y, scaled, shift);
  // Most of y may lie along the strongest of the others. What is left of that after it was removed once is for the
  // orthonormalisation of the whole, whatever it is: it does not change the span.
  remove_span(exec, kept, y, inner);
  orthonormalize(exec, y, key, steps, quickly);
  exec.single([=] LOWRANK_DEVICE { seen->failed |= steps->failed; });
  copy(exec, const_view_of<E>(y), weak);
}

/// Scratch of `finish_block` for an iterated block of m x l.
template <class O>
[[nodiscard]] constexpr index_t finish_block_bytes(extents g, index_t l, index_t r, column_order order, alignment align,
                                                   index_t old, index_t tokens, index_t again = 0) noexcept {
  index_t const product = gradient_product_bytes(tokens, r);
  index_t const turn = order == column_order::by_energy
                           ? scratch_bytes<float>(g.rows * r) + std::max(product, rayleigh_ritz_bytes(r, r))
                           : 0;
  return scratch_bytes<orthonormal_report>(3) +
         std::max({drop_weakest_bytes({g.rows, l}, r), O::bytes({g.rows, r}), turn,
                   pass_again_bytes(g, r, again, tokens), old == r ? align_frame_bytes(g.rows, r, align) : 0});
}

/// From an iterated block Y (l columns, overwritten; may be q itself where l = r) to a basis q, as the options say.
/// z is n x l scratch.
template <class E, class G, class O>
void finish_block(E& exec, G const& g, const_view_of<E> old, view_of<E> y, view_of<E> z, view_of<E> q,
                  column_order order, alignment align, rng_key const& key, range_report* seen, double* energies,
                  O const& make_orthonormal, index_t again = 0, tail_shift* shift = nullptr) {
  scratch_scope const scope{exec};
  index_t const r = q.cols;
  auto* const steps = exec.arena().template take<orthonormal_report>(3);
  exec.single([=] LOWRANK_DEVICE { steps[1] = steps[2] = {}; });
  if (y.cols > r) drop_weakest(exec, y, q, key);
  else if (y.data != q.data) copy(exec, y, q);
  if (again > 0) pass_again(exec, g, q, again, z, key, shift, seen, steps + 2);
  make_orthonormal(exec, q, key, steps);
  if (order == column_order::by_energy) {
    scratch_scope const turn{exec};
    auto const straight = take_matrix(exec, q.shape());
    copy(exec, q, straight);
    auto const projected = z.col_range(0, r);
    multiply(exec, 1.0F, g.t(), straight, 0.0F, projected);
    rayleigh_ritz(exec, const_view_of<E>(straight), const_view_of<E>(projected), q, &seen->captured, energies,
                  &seen->failed);
  }
  if (order == column_order::by_energy) make_orthonormal(exec, q, key, steps + 1);
  if (order == column_order::by_energy && (align == alignment::none || old.cols != r)) orient_columns(exec, q);
  if (old.cols == r) {
    align_frame(exec, old, q, align, key);
    if (align == alignment::nearest_frame) make_orthonormal(exec, q, key, steps + 1);  // a product costs some of it
  }
  exec.single([=] LOWRANK_DEVICE {
    for (int i = 0; i < 3; ++i) {
      seen->passes += steps[i].passes;
      seen->replaced += steps[i].replaced;
      seen->failed |= steps[i].failed;
    }
  });
}

}  // namespace detail

/// Scratch that `warm_range` takes from a basis of `old` columns; `tokens` as for find_range_bytes.
template <class O = orthonormal::cholesky>
[[nodiscard]] constexpr index_t warm_range_bytes(extents g, index_t old, index_t r, warm_options const& options = {},
                                                 index_t tokens = 0) noexcept {
  index_t const l = detail::block_width(g.rows, old, r, options.fresh);
  if (g.size() == 0 || r == 0) return r == 0 ? 0 : orthonormalize_bytes({g.rows, r});
  bool const shifts = options.between == between_products::shift;
  index_t const width = shifts ? l + 1 : l, product = gradient_product_bytes(tokens, width);
  index_t const between = std::max(options.passes > 1 ? orthonormalize_bytes({g.rows, l}) : 0,
                                   detail::evens_out(g, l, options) ? orthonormalize_bytes({g.cols, l}) : 0);
  return (l > r ? scratch_bytes<float>(g.rows * l) : 0) + scratch_bytes<float>(g.cols * width) +
         scratch_bytes<range_report>(1) + scratch_bytes<orthonormal_report>(1) + scratch_bytes<unit_scale>(1) +
         (shifts ? scratch_bytes<detail::tail_shift>(1) : 0) +
         std::max({product + (shifts ? detail::probing_bytes(g.rows, l, std::min(old, l)) : 0), between,
                   detail::finish_block_bytes<O>(g, l, r, options.order, options.align, old, tokens, options.again)});
}

/// Q: r orthonormal columns from `passes` steps of block iteration with GGᵀ on [P, fresh]. Fresh columns let in what P
/// misses altogether; more columns than r end with the weakest directions of G Gᵀ [P, fresh] dropped. P may have more or
/// fewer columns than Q.
/// Shapes: G m x n dense or factored, P m x k orthonormal, q m x r, r <= m.
/// Requires: q overlaps neither G nor P. NaN or Inf in G: `failed` is set and q holds nothing useful.
/// Ensures: without fresh columns, k = r: ‖QᵀG‖ >= ‖PᵀG‖ (Ritz values of an iterated subspace do not fall). With a shift
/// that holds where columns of P are near their Ritz vectors: s is at most half of the energy of the weakest column, which
/// elsewhere is more than the smallest Ritz value. With `retained` and rank(G) < r: at least r - rank(G) directions of P remain.
/// report->captured and energies only with column_order::by_energy, else -1 and untouched.
/// Cost: 4 m n l flops a pass, l = k + fresh (2 m n r more for the order by energy), and an orthonormalisation of m x r,
/// with fresh columns 3.5 m l² more, with a shift a column more; workspace warm_range_bytes, at most
/// n l + m l + max(n, m) l + O(l²) numbers.
/// Throws: shape_error, argument_error.
/// Reference: Rutishauser, "Simultaneous iteration method for symmetric matrices" (1970); as one warm-started step a
/// gradient: Vogels, Karimireddy & Jaggi (PowerSGD), arXiv 1905.13727, Algorithm 1; shifts in such iterations: Feng, Yu &
/// Xie (dashSVD), arXiv 2404.09276.
template <class E, gradient_argument G, orthonormalizer<E> O = orthonormal::cholesky>
void warm_range(E& exec, G const& given, const_view_of<E> p, view_of<E> q, warm_options const& options,
                rng_key const& key, range_report* report = nullptr, double* energies = nullptr,
                O const& make_orthonormal = {}) {
  auto const g = as_gradient(given);
  extents const shape = g.shape();
  index_t const m = shape.rows, r = q.cols;
  require<shape_error>(q.rows == m && p.rows == m && r <= m, "warm_range", "needs bases of ", m,
                       " rows and at most as many columns, got ", p.shape(), " and ", q.shape());
  detail::check_warm("warm_range", options);
  if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {.captured = -1}; });
  if (r == 0) return;
  if (shape.size() == 0) return fill(exec, q, 0.0F), orthonormalize(exec, q, key);
  index_t const l = detail::block_width(m, p.cols, r, options.fresh);
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  bool const widened = l > p.cols;
  auto const block = l > r ? take_matrix(exec, {m, l}) : q;
  bool const shifts = options.between == between_products::shift;
  auto const z = take_matrix(exec, {shape.cols, shifts ? l + 1 : l});
  auto* const spare = arena.template take<range_report>(1);
  auto* const between = arena.template take<orthonormal_report>(1);
  auto* const scaled = arena.template take<unit_scale>(1);
  auto* const seen = report != nullptr ? report : spare;
  exec.single([=] LOWRANK_DEVICE { *seen = {.captured = -1}; });
  index_t const inside = std::min(p.cols, l);
  auto const old = p.col_range(0, inside);
  auto* const shift = shifts ? arena.template take<detail::tail_shift>(1) : nullptr;
  auto const project = [&](const_view_of<E> from) {
    auto const to = z.col_range(0, from.cols);
    multiply(exec, 1.0F, g.t(), from, 0.0F, to);
    // Squares of a gradient of 1e-25 would vanish, those of 1e-12 do not. One scale for all columns: their lengths tell
    // weak from strong.
    scale_to_unit(exec, to, scaled, detail::product_spared);
    exec.single([=] LOWRANK_DEVICE { seen->failed = scaled->nonfinite; });
    auto const failed = exec.peek(&seen->failed);
    return !failed || *failed == 0;
  };

  if (widened) detail::fill_block(exec, p, block, key);
  auto x = widened ? const_view_of<E>(block) : old;
  for (index_t pass = 0; pass < options.passes; ++pass) {
    if (shifts && pass == 0) {
      scratch_scope const probing{exec};
      detail::probing_block<E> const probed{exec, m, l, inside, shift};
      probed.fill(exec, x, old, key);
      if (!project(probed.columns)) return;
      multiply(exec, 1.0F, g, z, 0.0F, probed.columns);
      probed.subtract(exec, old, z, scaled, x, block);
    } else {
      if (!project(x)) return;
      auto const product = z.col_range(0, l);
      if (detail::evens_out(shape, l, options)) orthonormalize(exec, product, key, between, roughly);
      if (shifts) detail::scale_by_shift(exec, block, scaled, shift);
      multiply(exec, 1.0F, g, product, shifts ? 1.0F : 0.0F, block);
    }
    if (pass + 1 < options.passes) orthonormalize(exec, block, key, between, roughly);
    x = block;
  }
  if (options.retained > 0) {
    scale_to_unit(exec, block, scaled);
    auto const share = options.retained * static_cast<float>(std::sqrt(static_cast<double>(m)));
    axpy(exec, share, old, block.col_range(0, inside));
  }
  detail::finish_block(exec, g, p, block, z, q, options.order, options.align, key, seen, energies, make_orthonormal,
                       options.again, shift);
}

/// Scratch that `sketched_range` takes for a sketch of `k` columns.
template <class O = orthonormal::cholesky>
[[nodiscard]] constexpr index_t sketched_range_bytes(extents g, index_t k, index_t old, index_t r,
                                                     warm_options const& options = {}, index_t tokens = 0) noexcept {
  if (g.size() == 0 || r == 0) return r == 0 ? 0 : orthonormalize_bytes({g.rows, r});
  index_t const l = detail::block_width(g.rows, k, r, options.fresh);
  return (l > r ? scratch_bytes<float>(g.rows * l) : 0) + scratch_bytes<float>(g.cols * l) +
         scratch_bytes<range_report>(1) + scratch_bytes<unit_scale>(1) +
         std::max(gradient_product_bytes(tokens, l),
                  detail::finish_block_bytes<O>(g, l, r, options.order, options.align, old, tokens));
}

/// Q from one product with a sketch S whose columns lie near the right singular vectors: yesterday's Gᵀ P, or the
/// moment M of the projected gradient (S = Mᵀ). Half the flops of a warm pass; nothing bounds what it misses, so look at
/// what it captured. `options.passes` is not used. P (may be empty) is what `align` turns towards.
/// Shapes: G m x n, S n x k, P m x r or empty, q m x r, r <= m.
/// Requires: q overlaps neither G nor S. NaN or Inf in G or S: `failed` is set and q holds nothing useful.
/// Cost: 2 m n l flops, l = k + fresh, and the orthonormalisation; workspace sketched_range_bytes.
/// Throws: shape_error, argument_error.
template <class E, gradient_argument G, orthonormalizer<E> O = orthonormal::cholesky>
void sketched_range(E& exec, G const& given, const_view_of<E> s, const_view_of<E> p, view_of<E> q,
                    warm_options const& options, rng_key const& key, range_report* report = nullptr,
                    double* energies = nullptr, O const& make_orthonormal = {}) {
  auto const g = as_gradient(given);
  extents const shape = g.shape();
  index_t const m = shape.rows, n = shape.cols, r = q.cols;
  require<shape_error>(q.rows == m && s.rows == n && r <= m, "sketched_range", "needs a sketch of ", n,
                       " rows and a basis of ", m, ", got ", s.shape(), " and ", q.shape());
  detail::check_warm("sketched_range", options);
  if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {.captured = -1}; });
  if (r == 0) return;
  if (shape.size() == 0) return fill(exec, q, 0.0F), orthonormalize(exec, q, key);
  index_t const l = detail::block_width(m, s.cols, r, options.fresh);
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const block = l > r ? take_matrix(exec, {m, l}) : q;
  auto const z = take_matrix(exec, {n, l});
  auto* const spare = arena.template take<range_report>(1);
  auto* const scaled = arena.template take<unit_scale>(1);
  auto* const seen = report != nullptr ? report : spare;
  exec.single([=] LOWRANK_DEVICE { *seen = {.captured = -1}; });
  // The scale of the sketch is arbitrary; that of the fresh columns has to fit it.
  index_t const k = std::min(s.cols, l);
  copy(exec, s.col_range(0, k), z.col_range(0, k));
  scale_to_unit(exec, z.col_range(0, k), scaled);
  exec.single([=] LOWRANK_DEVICE { seen->failed = scaled->nonfinite; });
  if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;
  if (k < l) {
    auto stream = key;
    stream.purpose = rng_purpose::sketch;
    auto const fresh = z.col_range(k, l);
    fill_rademacher(exec, stream, fresh);
    scale(exec, static_cast<float>(1 / std::sqrt(static_cast<double>(n))), fresh);
  }
  multiply(exec, 1.0F, g, z, 0.0F, block);
  detail::finish_block(exec, g, p, block, z, q, options.order, options.align, key, seen, energies, make_orthonormal);
}

}  // namespace lowrank
