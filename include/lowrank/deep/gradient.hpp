/// @file
/// Loss and gradients of a deep matrix against what is known of a matrix.
#pragma once

#include <algorithm>
#include <memory>
#include <span>

#include "lowrank/deep/deep_matrix.hpp"
#include "lowrank/deep/residual.hpp"

namespace lowrank::deep {

namespace detail {

template <class T>
[[nodiscard]] matrix_view<T> take(scratch<host_space>& arena, extents shape) {
  return row_major(arena.take<T>(shape.size()), shape);
}

/// A run of factors Y_1 ... Y_q of a deep matrix.
struct factor_run {
  std::size_t begin{}, end{};

  [[nodiscard]] std::size_t count() const noexcept { return end - begin; }
};

/// W = A Bᵀ is cut where the longer side needs no product: behind X_1, or before X_K.
template <class T>
[[nodiscard]] std::size_t cut_of(deep_matrix<T> const& w) noexcept {
  return w.shape().cols >= w.shape().rows ? 1 : w.factor_count() - 1;
}

template <class T>
using product_list = std::span<matrix_view<T const>>;

/// Products Y_j ... Y_1 for j = 2 ... q; the first is Y_1 itself. The list and its products are scratch of the caller's scope.
template <class E, class T>
product_list<T> running_products(E& exec, deep_matrix<T> const& w, factor_run run) {
  product_list<T> const out{exec.arena().template take<matrix_view<T const>>(static_cast<index_t>(run.count())),
                            run.count()};
  std::uninitialized_fill(out.begin(), out.end(), matrix_view<T const>(w.factor(run.begin).values.view()));
  for (std::size_t j = 1; j < run.count(); ++j) {
    auto const y = w.factor(run.begin + j).values.view();
    auto const next = take<T>(exec.arena(), {y.rows, out[j - 1].cols});
    multiply(exec, T{1}, y, out[j - 1], T{0}, next);
    out[j] = next;
  }
  return out;
}
template <class T>
[[nodiscard]] index_t running_bytes(deep_matrix<T> const& w, factor_run run) noexcept {
  index_t sum = scratch_bytes<matrix_view<T const>>(static_cast<index_t>(run.count())),
          cols = w.factor(run.begin).values.shape().cols;
  for (std::size_t k = run.begin + 1; k < run.end; ++k) sum += scratch_bytes<T>(w.factor(k).values.shape().rows * cols);
  return sum;
}

/// Gradients of a run from that of its product: G_j = D (Y_{j-1} ... Y_1)ᵀ, then D <- Y_jᵀ D.
template <class E, class T>
void run_gradients(E& exec, deep_matrix<T> const& w, factor_run run, product_list<T> products, matrix_view<T const> d,
                   std::span<matrix_view<T> const> out) {
  for (std::size_t k = run.end; k-- > run.begin;) {
    bool const first = k == run.begin;
    if (!out[k].empty()) {
      if (first) copy(exec, d, out[k]);
      else multiply(exec, T{1}, d, products[k - run.begin - 1].t(), T{0}, out[k]);
    }
    if (first) return;
    auto const y = w.factor(k).values.view();
    auto const next = take<T>(exec.arena(), {y.cols, d.cols});
    multiply(exec, T{1}, y.t(), d, T{0}, next);
    d = next;
  }
}
template <class T>
[[nodiscard]] index_t run_gradient_bytes(deep_matrix<T> const& w, factor_run run) noexcept {
  index_t sum = 0, cols = w.factor(run.begin).values.shape().cols;
  for (std::size_t k = run.begin + 1; k < run.end; ++k) sum += scratch_bytes<T>(w.factor(k).values.shape().cols * cols);
  return sum;
}

}  // namespace detail

/// Scratch of `gradients` where every layer has one; more than enough otherwise, and for `loss`.
template <class T, target_of<T> Target>
[[nodiscard]] index_t gradients_bytes(deep_matrix<T> const& w, Target const& target) noexcept {
  auto const cut = detail::cut_of(w);
  detail::factor_run const lower{0, cut}, upper{cut, w.factor_count()};
  index_t const k = w.factor(cut).values.shape().cols, m = w.shape().rows, n = w.shape().cols;
  index_t const products = detail::running_bytes(w, lower) + detail::running_bytes(w, upper),
                behind = detail::run_gradient_bytes(w, lower) + detail::run_gradient_bytes(w, upper);
  return products + scratch_bytes<T>(m * k) + 2 * scratch_bytes<T>(n * k) + std::max(residual_bytes(target, k), behind);
}

namespace detail {

/// W = A Bᵀ with the products it is made of, in scratch of the caller's scope but for what is a factor of W itself.
template <class T>
struct cut_product {
  factor_run lower, upper;
  product_list<T> below, above;
  low_rank_view<T> view;
};
template <class E, class T>
[[nodiscard]] cut_product<T> cut_in_two(E& exec, deep_matrix<T> const& w) {
  auto const cut = cut_of(w);
  cut_product<T> out;
  out.lower = {0, cut};
  out.upper = {cut, w.factor_count()};
  out.below = running_products(exec, w, out.lower);
  out.above = running_products(exec, w, out.upper);
  auto const b = take<T>(exec.arena(), out.below.back().shape().t());
  copy(exec, out.below.back(), b.t());
  out.view = {.a = out.above.back(), .b = b, .mean = w.mean()};
  if (w.has_offsets()) {
    out.view.row_offset = w.at(w.factor_count()).values.view();
    out.view.col_offset = w.at(w.factor_count() + 1).values.view();
  }
  return out;
}
/// Whether any gradient of a run is asked for.
template <class T>
[[nodiscard]] bool any_wanted(factor_run run, std::span<matrix_view<T> const> out) noexcept {
  return std::any_of(out.begin() + static_cast<std::ptrdiff_t>(run.begin),
                     out.begin() + static_cast<std::ptrdiff_t>(run.end), [](auto const& g) { return !g.empty(); });
}

}  // namespace detail

/// ½ Σ (W - Φ)² over what is known of Φ.
/// Cost: a third of `gradients`; workspace gradients_bytes.  Throws: shape_error.
template <class E, class T, target_of<T> Target>
[[nodiscard]] double loss(E& exec, deep_matrix<T> const& w, Target const& target) {
  scratch_scope const scope{exec};
  return multiply_residual(exec, target, detail::cut_in_two(exec, w).view, residual_products<T>{});
}

/// The same loss, and G_l = (X_K ... X_{l+1})ᵀ R (X_{l-1} ... X_1)ᵀ into `out[l]`; offsets get the sums of R.
/// Shapes: out as many as w.layer_count(), each of its layer's shape, or empty and not computed.
/// Cost: with inner sides of k, O(|Ω| k + (m + n) k² + k³ K) flops, or m n k in place of |Ω| k where panels are faster;
/// workspace gradients_bytes.
/// Throws: shape_error.
/// Reference: Yaras et al. (ICML 2024), (2); Arora, Cohen, Hu, Luo, "Implicit regularization in deep matrix factorization" (2019).
template <class E, class T, target_of<T> Target>
double gradients(E& exec, deep_matrix<T> const& w, Target const& target, std::span<matrix_view<T> const> out) {
  constexpr auto* caller = "deep::gradients";
  require<shape_error>(out.size() == w.layer_count(), caller, "needs ", w.layer_count(), " gradients, got ",
                       out.size());
  for (std::size_t l = 0; l < out.size(); ++l)
    require<shape_error>(out[l].empty() || out[l].shape() == w.at(l).values.shape(), caller, "the gradient of ",
                         w.at(l).name, " must be ", w.at(l).values.shape(), ", got ", out[l].shape());
  scratch_scope const scope{exec};
  auto const parts = detail::cut_in_two(exec, w);
  residual_products<T> wanted;
  if (detail::any_wanted(parts.upper, out)) wanted.rb = detail::take<T>(exec.arena(), parts.view.a.shape());
  if (detail::any_wanted(parts.lower, out)) wanted.rta = detail::take<T>(exec.arena(), parts.view.b.shape());
  if (w.has_offsets()) {
    wanted.row_sums = out[w.factor_count()];
    wanted.col_sums = out[w.factor_count() + 1];
  }
  double const value = multiply_residual(exec, target, parts.view, wanted);
  if (!wanted.rb.empty())
    detail::run_gradients(exec, w, parts.upper, parts.above, matrix_view<T const>(wanted.rb), out);
  if (!wanted.rta.empty())
    detail::run_gradients(exec, w, parts.lower, parts.below, matrix_view<T const>(wanted.rta).t(), out);
  return value;
}

}  // namespace lowrank::deep
