/// @file
/// Products with the residual R of W = offsets + A Bᵀ against what is known of a matrix: what every gradient here is made of.
#pragma once

#include <array>

#include "lowrank/core/scratch.hpp"
#include "lowrank/deep/observations.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank::deep {

/// All of a matrix is known, and belongs to somebody else.
template <class T>
struct dense_target {
  using value_type = T;

  matrix_view<T const> values;

  [[nodiscard]] extents shape() const noexcept { return values.shape(); }
};

/// How observed residuals are met. Entry by entry takes 6 |Ω| k flops, by row panels of A Bᵀ 6 m n k faster ones.
enum class residual_route : std::uint8_t { entries, panels };

/// The route that takes less time: long rows of A and B, with a tenth or more of W observed, are products.
template <class T>
[[nodiscard]] residual_route route_of(observations<T> const& target, index_t k) noexcept {
  return k >= 64 && target.count() > target.shape().size() / 10 ? residual_route::panels : residual_route::entries;
}

/// W(i, j) = mean + row_offset(i) + col_offset(j) + A(i, :) · B(j, :).
/// Shapes: a m x k, b n x k, neighbouring columns; offsets m x 1 and 1 x n, or empty.
template <class T>
struct low_rank_view {
  matrix_view<T const> a, b;
  matrix_view<T const> row_offset{}, col_offset{};
  T mean{};

  [[nodiscard]] extents shape() const noexcept { return {a.rows, b.rows}; }
  [[nodiscard]] T offset(index_t i, index_t j) const noexcept {
    return mean + (row_offset.empty() ? T{} : row_offset(i, 0)) + (col_offset.empty() ? T{} : col_offset(0, j));
  }
};

/// Where products with the residual go: R B (m x k), Rᵀ A (n x k), row sums (m x 1) and column sums (1 x n) of R. Those that
/// are empty are not computed.
template <class T>
struct residual_products {
  matrix_view<T> rb{}, rta{}, row_sums{}, col_sums{};
};

namespace detail {

inline constexpr index_t panel_rows = 256, rows_together = 32;

/// Sum of a(p) b(p) in eight lanes, which a compiler can keep in registers.
template <class T>
[[nodiscard]] LOWRANK_INLINE T dot(T const* a, T const* b, index_t k) noexcept {
  std::array<T, 8> lane{};
  index_t p = 0;
  for (; p + 8 <= k; p += 8)
    for (index_t l = 0; l < 8; ++l) lane[static_cast<std::size_t>(l)] += a[p + l] * b[p + l];
  T sum = ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
  for (; p < k; ++p) sum += a[p] * b[p];
  return sum;
}
template <class T>
LOWRANK_INLINE void add_times(T x, T const* a, T* to, index_t k) noexcept {
  for (index_t p = 0; p < k; ++p) to[p] += x * a[p];
}
template <class T>
[[nodiscard]] T const* row_of(matrix_view<T const> a, index_t i) noexcept {
  return a.data + i * a.row_stride;
}

/// body(i) for every i, in groups.
template <class E, class Body>
void each_row(E& exec, index_t count, Body const& body) {
  exec.parallel((count + rows_together - 1) / rows_together, [&](index_t task) {
    for (index_t i = task * rows_together; i < std::min(count, (task + 1) * rows_together); ++i) body(i);
  });
}
/// ½ Σ part(i), in one order.
[[nodiscard]] inline double half_sum(double const* part, index_t count) noexcept {
  double sum = 0;
  for (index_t i = 0; i < count; ++i) sum += part[i];
  return sum / 2;
}

template <class T>
void check_products(low_rank_view<T> const& w, extents target, residual_products<T> const& out) {
  constexpr auto* caller = "deep::residual";
  index_t const k = w.a.cols;
  require<shape_error>(w.b.cols == k && w.shape() == target, caller, "needs factors of a ", target, " matrix, got ",
                       w.a.shape(), " and ", w.b.shape());
  auto const fits = [&](auto const& view, extents shape) { return view.empty() || view.shape() == shape; };
  require<shape_error>(fits(w.row_offset, {target.rows, 1}) && fits(w.col_offset, {1, target.cols}), caller,
                       "needs offsets m x 1 and 1 x n of ", target);
  require<shape_error>(fits(out.rb, w.a.shape()) && fits(out.rta, w.b.shape()) &&
                           fits(out.row_sums, {target.rows, 1}) && fits(out.col_sums, {1, target.cols}),
                       caller, "needs R B, Rᵀ A and sums of the shapes of ", target, " with k = ", k);
  require<shape_error>((w.a.col_stride == 1 || k == 1) && (w.b.col_stride == 1 || k == 1), caller,
                       "needs factors with neighbouring columns");
}

/// Row panels of A Bᵀ become those of R by `make(panel, first row)`, which says Σ ω (W - Φ)²; what is asked for is made of them.
template <class E, class T, class Make>
double products_by_panels(E& exec, low_rank_view<T> const& w, residual_products<T> const& out, Make const& make) {
  scratch_scope const scope{exec};
  index_t const m = w.a.rows, n = w.b.rows;
  auto* const memory = exec.arena().template take<T>(std::min(m, panel_rows) * n);
  double sum = 0;
  for (index_t begin = 0; begin < m; begin += panel_rows) {
    index_t const end = std::min(m, begin + panel_rows);
    auto const r = row_major(memory, {end - begin, n});
    matrix_view<T const> const known = r;
    auto const a = w.a.row_range(begin, end);
    multiply(exec, T{1}, a, w.b.t(), T{0}, r);
    sum += make(r, begin);
    if (!out.rb.empty()) multiply(exec, T{1}, known, w.b, T{0}, out.rb.row_range(begin, end));
    if (!out.rta.empty()) multiply(exec, T{1}, known.t(), a, begin == 0 ? T{0} : T{1}, out.rta);
    if (!out.row_sums.empty())
      each_row(exec, r.rows, [&](index_t i) {
        double total = 0;
        for (index_t j = 0; j < n; ++j) total += static_cast<double>(r(i, j));
        out.row_sums(begin + i, 0) = static_cast<T>(total);
      });
    if (!out.col_sums.empty())
      each_row(exec, n, [&](index_t j) {
        double total = begin == 0 ? 0.0 : static_cast<double>(out.col_sums(0, j));
        for (index_t i = 0; i < r.rows; ++i) total += static_cast<double>(r(i, j));
        out.col_sums(0, j) = static_cast<T>(total);
      });
  }
  return sum / 2;
}

/// e(k) = weighted residual of entry k, R B and row sums along rows; Rᵀ A and column sums along columns.
template <class E, class T>
double products_by_entries(E& exec, observations<T> const& target, low_rank_view<T> const& w,
                           residual_products<T> const& out) {
  scratch_scope const scope{exec};
  index_t const m = w.a.rows, n = w.b.rows, k = w.a.cols;
  auto* const e = exec.arena().template take<T>(target.count());
  auto* const part = exec.arena().template take<double>(m);
  auto const known = target.values();
  each_row(exec, m, [&](index_t i) {
    auto const* const a = row_of(w.a, i);
    double squares = 0, total = 0;
    if (!out.rb.empty()) std::fill_n(&out.rb(i, 0), k, T{});
    for (index_t at = target.row_begin(i); at < target.row_begin(i + 1); ++at) {
      index_t const j = target.col(at);
      auto const* const b = row_of(w.b, j);
      T const difference = dot(a, b, k) + w.offset(i, j) - known[static_cast<std::size_t>(at)];
      T const r = target.weight(at) * difference;
      e[at] = r;
      squares += static_cast<double>(r) * static_cast<double>(difference);
      total += static_cast<double>(r);
      if (!out.rb.empty()) add_times(r, b, &out.rb(i, 0), k);
    }
    part[i] = squares;
    if (!out.row_sums.empty()) out.row_sums(i, 0) = static_cast<T>(total);
  });
  if (!out.rta.empty() || !out.col_sums.empty())
    each_row(exec, n, [&](index_t j) {
      double total = 0;
      if (!out.rta.empty()) std::fill_n(&out.rta(j, 0), k, T{});
      for (index_t at = target.col_begin(j); at < target.col_begin(j + 1); ++at) {
        T const r = e[target.entry(at)];
        total += static_cast<double>(r);
        if (!out.rta.empty()) add_times(r, row_of(w.a, target.row(at)), &out.rta(j, 0), k);
      }
      if (!out.col_sums.empty()) out.col_sums(0, j) = static_cast<T>(total);
    });
  return half_sum(part, m);
}

}  // namespace detail

/// Scratch of `multiply_residual` with factors of k columns.
template <class T>
[[nodiscard]] index_t residual_bytes(dense_target<T> const& target, index_t /*k*/) noexcept {
  extents const shape = target.shape();
  return scratch_bytes<T>(std::min(shape.rows, detail::panel_rows) * shape.cols) + scratch_bytes<double>(shape.rows);
}
template <class T>
[[nodiscard]] index_t residual_bytes(observations<T> const& target, index_t k) noexcept {
  extents const shape = target.shape();
  index_t const rows = scratch_bytes<double>(shape.rows);
  if (route_of(target, k) == residual_route::entries) return rows + scratch_bytes<T>(target.count());
  return rows + scratch_bytes<T>(std::min(shape.rows, detail::panel_rows) * shape.cols) +
         scratch_bytes<T>(detail::panel_rows * shape.cols);
}

/// ½ Σ ω (W - Φ)² over Ω and the products asked for with R = ω ∘ (W - Φ); never R itself. ω is 1 unless weights were given.
/// Shapes: target m x n; see low_rank_view and residual_products.
/// Requires: outputs overlap no factor.
/// Cost: 6 |Ω| k flops by entries, 6 m n k by panels; workspace residual_bytes(target, k). Bits do not depend on the number
/// of threads.
/// Throws: shape_error.
template <class E, class T>
double multiply_residual(E& exec, observations<T> const& target, low_rank_view<T> const& w,
                         residual_products<T> const& out) {
  detail::check_products(w, target.shape(), out);
  if (route_of(target, w.a.cols) == residual_route::entries) return detail::products_by_entries(exec, target, w, out);
  scratch_scope const scope{exec};
  auto* const part = exec.arena().template take<double>(target.shape().rows);
  // A row of residuals is gathered before the row of the panel is cleared: at most n a row.
  index_t const n = target.shape().cols;
  auto* const kept = exec.arena().template take<T>(detail::panel_rows * n);
  auto const known = target.values();
  return detail::products_by_panels(exec, w, out, [&](matrix_view<T> r, index_t begin) {
    detail::each_row(exec, r.rows, [&](index_t i) {
      index_t const first = target.row_begin(begin + i), last = target.row_begin(begin + i + 1);
      auto* const e = kept + i * n;
      double squares = 0;
      for (index_t at = first; at < last; ++at) {
        index_t const j = target.col(at);
        T const difference = r(i, j) + w.offset(begin + i, j) - known[static_cast<std::size_t>(at)];
        T const x = target.weight(at) * difference;
        e[at - first] = x;
        squares += static_cast<double>(x) * static_cast<double>(difference);
      }
      std::fill_n(&r(i, 0), n, T{});
      for (index_t at = first; at < last; ++at) r(i, target.col(at)) = e[at - first];
      part[i] = squares;
    });
    return 2 * detail::half_sum(part, r.rows);
  });
}
template <class E, class T>
double multiply_residual(E& exec, dense_target<T> const& target, low_rank_view<T> const& w,
                         residual_products<T> const& out) {
  detail::check_products(w, target.shape(), out);
  scratch_scope const scope{exec};
  auto* const part = exec.arena().template take<double>(target.shape().rows);
  return detail::products_by_panels(exec, w, out, [&](matrix_view<T> r, index_t begin) {
    detail::each_row(exec, r.rows, [&](index_t i) {
      double squares = 0;
      for (index_t j = 0; j < r.cols; ++j) {
        T const x = r(i, j) + w.offset(begin + i, j) - target.values(begin + i, j);
        r(i, j) = x;
        squares += static_cast<double>(x) * static_cast<double>(x);
      }
      part[i] = squares;
    });
    return 2 * detail::half_sum(part, r.rows);
  });
}

/// What a deep matrix can be held against.
template <class Target, class T>
concept target_of = std::same_as<Target, observations<T>> || std::same_as<Target, dense_target<T>>;

}  // namespace lowrank::deep
