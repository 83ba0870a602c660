/// @file
/// A basis for the running mean of GGᵀ: what gradients have in common, without the noise of the last one.
#pragma once

#include "lowrank/linalg/warm_range.hpp"

namespace lowrank {

/// What the tracker remembers, in the executor's memory space: L = Pᵀ C P for the running mean C of GGᵀ, scaled.
template <memory_space Space = host_space>
struct tracked_mean {
  matrix_view<float, Space> l;  ///< k x k for a basis of k columns, symmetric; L is 2^exponent times this
  std::int64_t* exponent;
};

struct tracking_options {
  double forgetting{0.7};  ///< b: the mean is b C + (1 - b) GGᵀ
  index_t fresh{0};        ///< as warm_options
  alignment align{alignment::none};
};

namespace detail {

/// 2^e as a float, as far as it may go without making products of it overflow.
[[nodiscard]] LOWRANK_HD inline float bounded_power_of_two(std::int64_t e) noexcept {
  if (e < -126) return 0.0F;
  return std::bit_cast<float>(static_cast<std::uint32_t>((e > 100 ? 100 : e) + 127) << 23);
}

}  // namespace detail

/// Scratch that `tracked_range` takes; parameters as for warm_range_bytes.
template <class O = orthonormal::cholesky>
[[nodiscard]] constexpr index_t tracked_range_bytes(extents g, index_t old, index_t r,
                                                    tracking_options const& options = {}, index_t tokens = 0) noexcept {
  if (r == 0 || g.size() == 0) return 0;
  index_t const l = detail::block_width(g.rows, old, r, options.fresh);
  index_t const product = gradient_product_bytes(tokens, l);
  index_t const squares = 2 * scratch_bytes<float>(r * l) + scratch_bytes<float>(r * r) + scratch_bytes<unit_scale>(1);
  return 2 * scratch_bytes<float>(g.rows * l) + scratch_bytes<float>(g.cols * l) + scratch_bytes<float>(old * old) +
         scratch_bytes<range_report>(1) + scratch_bytes<orthonormal_report>(1) + scratch_bytes<unit_scale>(1) +
         std::max({product, squares, l > old ? orthonormalize_bytes({g.rows, l}) : 0,
                   scratch_bytes<float>(g.rows * l) +
                       detail::finish_block_bytes<O>(g, l, r, column_order::as_iterated, options.align, old, tokens)});
}

/// One step of block iteration with the running mean C <- b C + (1 - b) GGᵀ, of which only L = Pᵀ C P is kept:
/// Y = b P L + (1 - b) G Gᵀ P,  Q = orth(Y),  L <- sym(Qᵀ Y Pᵀ Q).  Called with every gradient (or every few), it
/// predicts the next gradient better than the exact SVD of the last one, which fits that gradient's noise.
/// Shapes: G m x n, P m x k orthonormal, q m x r, mean.l k x k, next.l r x r; mean and next do not overlap.
/// Requires: as warm_range. NaN or Inf in G: `failed` is set, q and next hold nothing useful.
/// Cost: one warm pass (4 m n l flops and the orthonormalisation) and 4 m l r + 2 m k² flops; workspace
/// tracked_range_bytes.  Throws: shape_error, argument_error.
template <class E, gradient_argument G, orthonormalizer<E> O = orthonormal::cholesky>
void tracked_range(E& exec, G const& given, const_view_of<E> p, tracked_mean<typename E::space> const& mean,
                   view_of<E> q, tracked_mean<typename E::space> const& next, tracking_options const& options,
                   rng_key const& key, range_report* report = nullptr, O const& make_orthonormal = {}) {
  using space = typename E::space;
  auto const g = as_gradient(given);
  extents const shape = g.shape();
  index_t const m = shape.rows, k = p.cols, r = q.cols;
  require<shape_error>(q.rows == m && p.rows == m && r <= m, "tracked_range", "needs bases of ", m,
                       " rows and at most as many columns, got ", p.shape(), " and ", q.shape());
  require<shape_error>(mean.l.shape() == extents{k, k} && next.l.shape() == extents{r, r}, "tracked_range",
                       "needs means of ", extents{k, k}, " and ", extents{r, r}, ", got ", mean.l.shape(), " and ",
                       next.l.shape());
  require(options.forgetting >= 0 && options.forgetting < 1 && options.fresh >= 0, "tracked_range",
          "needs forgetting in [0, 1) and fresh >= 0, got ", options.forgetting, " and ", options.fresh);
  if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {.captured = -1}; });
  if (r == 0 || shape.size() == 0) return;
  index_t const l = detail::block_width(m, k, r, options.fresh);
  scratch_scope const scope{exec};
  auto& arena = exec.arena();
  auto const x = take_matrix(exec, {m, l}), y = take_matrix(exec, {m, l});
  auto const z = take_matrix(exec, {shape.cols, l});
  auto const weighted = take_matrix(exec, {k, k});
  auto* const spare = arena.template take<range_report>(1);
  auto* const fit = arena.template take<orthonormal_report>(1);
  auto* const drawn = arena.template take<unit_scale>(1);
  auto* const seen = report != nullptr ? report : spare;
  exec.single([=] LOWRANK_DEVICE { *seen = {.captured = -1}; });

  // Everything in units of 2^e with e the exponent of GᵀX, so that neither squares nor their mean leave fp32.
  detail::fill_block(exec, p, x, key);
  if (l > k) orthonormalize(exec, x, key, fit);  // Pᵀ X = [I, 0], or L would count the fresh columns' share of P twice
  multiply(exec, 1.0F, g.t(), x, 0.0F, z);
  scale_to_unit(exec, z, drawn);
  exec.single([=, e = mean.exponent] LOWRANK_DEVICE {
    seen->failed = drawn->nonfinite;
    // A gradient of nothing is no unit for what is remembered.
    if (drawn->zero != 0)
      drawn->exponent = static_cast<std::int32_t>(std::clamp<std::int64_t>(*e, -1'000'000, 1'000'000));
  });
  if (auto const failed = exec.peek(&seen->failed); failed && *failed != 0) return;
  auto const now = static_cast<float>(1 - options.forgetting), past = static_cast<float>(options.forgetting);
  multiply(exec, now, g, z, 0.0F, y);
  copy(exec, mean.l, weighted);
  scale_columns(exec, weighted, [=, e = mean.exponent] LOWRANK_DEVICE(index_t) {
    return past * detail::bounded_power_of_two(*e - drawn->exponent);
  });
  multiply(exec, 1.0F, p.col_range(0, std::min(k, l)),
           weighted.row_range(0, std::min(k, l)).col_range(0, std::min(k, l)), 1.0F, y.col_range(0, std::min(k, l)));
  {
    scratch_scope const finish{exec};
    auto const spent = take_matrix(exec, {m, l});
    copy(exec, y, spent);
    detail::finish_block(exec, g, p, spent, z, q, column_order::as_iterated, options.align, key, seen, nullptr,
                         make_orthonormal);
  }
  scratch_scope const squares{exec};
  auto const left = take_matrix(exec, {r, l}), right = take_matrix(exec, {r, l});
  auto const product = take_matrix(exec, {r, r});
  auto* const taken = arena.template take<unit_scale>(1);
  multiply(exec, 1.0F, q.t(), y, 0.0F, left);
  multiply(exec, 1.0F, q.t(), x, 0.0F, right);
  multiply(exec, 1.0F, left, right.t(), 0.0F, product);
  copy(exec, product, next.l);
  axpy(exec, 1.0F, matrix_view<float const, space>(product.t()), next.l);
  scale_to_unit(exec, next.l, taken);
  exec.single([=, e = next.exponent] LOWRANK_DEVICE {
    seen->failed |= taken->nonfinite;
    *e = std::int64_t{drawn->exponent} + taken->exponent - 1;  // - 1: the sum is twice the mean of both halves
  });
}

}  // namespace lowrank
