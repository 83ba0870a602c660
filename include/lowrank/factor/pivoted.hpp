/// @file
/// W of rank r as r of its rows and the coefficients of the others: r (m + n) - r² numbers, never more than W itself.
#pragma once

#include "lowrank/factor/factor_pair.hpp"
#include "lowrank/factor/row_pivots.hpp"

namespace lowrank {

/// W in rows `order[0 ... r)` is `rows`, in rows `order[r ... m)` it is coefficients · rows. Wherever these lie.
/// Shapes: rows r x n, coefficients (m - r) x r, order m, bias m or empty.
template <class T>
struct pivoted_view {
  matrix_view<T> rows{};
  matrix_view<T> coefficients{};
  std::span<std::int32_t const> order{};
  std::span<T> bias{};

  [[nodiscard]] constexpr index_t rank() const noexcept { return rows.rows; }
  [[nodiscard]] constexpr extents shape() const noexcept { return {static_cast<index_t>(order.size()), rows.cols}; }
  /// Throws: shape_error unless the parts fit together. The order is trusted; `check_order` looks at it.
  void check(char const* caller) const {
    auto const m = static_cast<index_t>(order.size());
    require<shape_error>(m >= rows.rows && coefficients.shape() == extents{m - rows.rows, rows.rows}, caller,
                         "needs coefficients (m - r) x r for ", rows.rows, " pivot rows of ", m, ", got ",
                         coefficients.shape());
    detail::check_bias(caller, bias, m);
  }
  /// Throws: argument_error unless the order names every row once. For what comes from a file.
  void check_order(char const* caller) const {
    std::vector<bool> seen(order.size());
    for (auto const i : order) {
      bool const known = i >= 0 && static_cast<std::size_t>(i) < order.size() && !seen[static_cast<std::size_t>(i)];
      require(known, caller, "the order must name each of ", order.size(), " rows once, got ", i);
      seen[static_cast<std::size_t>(i)] = true;
    }
  }
  constexpr operator pivoted_view<T const>()  // NOLINT(google-explicit-constructor)
      const noexcept requires(!std::is_const_v<T>) {
    return {rows, coefficients, order, bias};
  }
};

/// Owning pivoted form.
struct pivoted_pair {
  matrix<float> rows;
  matrix<float> coefficients;
  std::vector<std::int32_t> order;  ///< pivot rows, ascending, then the others, ascending
  std::vector<float> bias;          ///< one number an output, or none

  [[nodiscard]] index_t rank() const noexcept { return rows.shape().rows; }
  [[nodiscard]] extents shape() const noexcept { return {static_cast<index_t>(order.size()), rows.shape().cols}; }
  /// Numbers that are stored: r (m + n) - r², and m for a bias. Beside them are the r indices that tell the order.
  [[nodiscard]] index_t parameters() const noexcept {
    return rows.shape().size() + coefficients.shape().size() + static_cast<index_t>(bias.size());
  }
  [[nodiscard]] index_t bytes() const noexcept { return 4 * (parameters() + static_cast<index_t>(order.size())); }
  [[nodiscard]] pivoted_view<float> view() noexcept { return {rows.view(), coefficients.view(), order, bias}; }
  [[nodiscard]] pivoted_view<float const> view() const noexcept {
    return {rows.view(), coefficients.view(), order, bias};
  }
};

/// The same W in pivoted form, its pivot rows chosen so that no coefficient exceeds the bound.
/// Shapes: r <= min(m, n).
/// Cost: of `choose_row_pivots` and 2 r² n flops in fp64; allocates.
/// Throws: shape_error; argument_error for NaN or infinity.
/// Reference: Zhao et al., "Pivoting factorization" (ICML 2025), with the bound it lacks.
template <class E>
[[nodiscard]] pivoted_pair pivoted(E& exec, factor_view<float const> const& pair, pivot_options const& options = {}) {
  constexpr auto* caller = "pivoted";
  pair.check(caller);
  extents const shape = pair.shape();
  index_t const r = pair.rank();
  require<shape_error>(r <= std::min(shape.rows, shape.cols), caller, "needs a rank of at most min(m, n) of ", shape,
                       ", got ", r);
  matrix<double> u{pair.u.shape()}, v{pair.v.shape()}, chosen{r, r}, rows{r, shape.cols};
  convert(exec, pair.u, u.view());
  convert(exec, pair.v, v.view());
  auto found = choose_row_pivots(exec, matrix_view<double const>(u.view()), options);
  pivoted_pair out{.rows = matrix<float>{r, shape.cols},
                   .coefficients = matrix<float>{shape.rows - r, r},
                   .order = std::move(found.order),
                   .bias = {pair.bias.begin(), pair.bias.end()}};
  for (index_t k = 0; k < r; ++k)
    for (index_t j = 0; j < r; ++j) chosen(k, j) = u(out.order[static_cast<std::size_t>(k)], j);
  multiply(exec, 1.0, matrix_view<double const>(chosen.view()), matrix_view<double const>(v.view()), 0.0, rows.view());
  convert(exec, matrix_view<double const>(rows.view()), out.rows.view());
  convert(exec, matrix_view<double const>(found.coefficients.view()), out.coefficients.view());
  return out;
}

namespace detail {

/// Places of columns: y(t, place[i]) = a(t, i).
template <std::derived_from<host_executor> E, class T>
void scatter_columns(E& exec, matrix_view<T const> a, std::span<std::int32_t const> places, matrix_view<T> y) {
  exec.parallel((a.rows + 15) / 16, [&](index_t task) {
    for (index_t t = task * 16; t < std::min(a.rows, task * 16 + 16); ++t)
      for (index_t i = 0; i < a.cols; ++i) y(t, places[static_cast<std::size_t>(i)]) = a(t, i);
  });
}
/// a(t, i) = y(t, place[i]).
template <std::derived_from<host_executor> E, class T>
void gather_columns(E& exec, matrix_view<T const> y, std::span<std::int32_t const> places, matrix_view<T> a) {
  exec.parallel((a.rows + 15) / 16, [&](index_t task) {
    for (index_t t = task * 16; t < std::min(a.rows, task * 16 + 16); ++t)
      for (index_t i = 0; i < a.cols; ++i) a(t, i) = y(t, places[static_cast<std::size_t>(i)]);
  });
}

template <class T>
void check_pivoted_batch(char const* caller, pivoted_view<T> const& layer, index_t tokens, extents x, extents z,
                         extents others, extents y) {
  layer.check(caller);
  index_t const m = layer.shape().rows, r = layer.rank();
  require<shape_error>(x == extents{tokens, layer.rows.cols}, caller, "needs inputs of ", layer.rows.cols,
                       " columns, got ", x);
  require<shape_error>(z == extents{tokens, r}, caller, "needs z of ", extents{tokens, r}, ", got ", z);
  require<shape_error>(others == extents{tokens, m - r}, caller, "needs room for other rows of ",
                       extents{tokens, m - r}, ", got ", others);
  require<shape_error>(y == extents{tokens, m}, caller, "needs outputs of ", extents{tokens, m}, ", got ", y);
}

}  // namespace detail

/// Z = X rowsᵀ, in Y at the pivots; Z coefficientsᵀ, in Y at the others; + b.
/// Shapes: X T x n, Z T x r (what `backward` wants to see again), others T x (m - r) (scratch), Y T x m.
/// Cost: 2 T r (m + n - r) flops; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T, class Value = std::remove_const_t<T>>
void forward(E& exec, pivoted_view<T> const& layer, std::type_identity_t<matrix_view<Value const>> x,
             std::type_identity_t<matrix_view<Value>> z, std::type_identity_t<matrix_view<Value>> others,
             std::type_identity_t<matrix_view<Value>> y) {
  detail::check_pivoted_batch("forward", layer, x.rows, x.shape(), z.shape(), others.shape(), y.shape());
  auto const r = static_cast<std::size_t>(layer.rank());
  multiply(exec, Value{1}, x, matrix_view<Value const>(layer.rows).t(), Value{0}, z);
  detail::scatter_columns<E, Value>(exec, z, layer.order.first(r), y);
  if (!others.empty()) {
    multiply(exec, Value{1}, matrix_view<Value const>(z), matrix_view<Value const>(layer.coefficients).t(), Value{0},
             others);
    detail::scatter_columns<E, Value>(exec, others, layer.order.subspan(r), y);
  }
  detail::add_to_rows<E, Value>(exec, layer.bias, y);
}

/// dZ = dY at the pivots + (dY at the others) coefficients; d coefficients = (dY at the others)ᵀ Z, d rows = dZᵀ X, db, dX = dZ rows:
/// each unless its view is empty.
/// Shapes: as in `forward`; dZ T x r (may be Z), others T x (m - r) (scratch).
/// Cost: 4 T r (m + n - r) flops for all of them; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T, class Value = std::remove_const_t<T>>
void backward(E& exec, pivoted_view<T> const& layer, std::type_identity_t<matrix_view<Value const>> x,
              std::type_identity_t<matrix_view<Value const>> z, std::type_identity_t<matrix_view<Value const>> dy,
              std::type_identity_t<matrix_view<Value>> dz, std::type_identity_t<matrix_view<Value>> others,
              std::type_identity_t<matrix_view<Value>> dx, layer_gradient<Value> const& out) {
  constexpr auto* caller = "backward";
  detail::check_pivoted_batch(caller, layer, x.rows, x.shape(), z.shape(), others.shape(), dy.shape());
  detail::check_shape(caller, "dz", dz, z.shape());
  detail::check_optional(caller, "gradients of inputs", dx, x.shape());
  detail::check_optional(caller, "the gradient of the coefficients", out.left, layer.coefficients.shape());
  detail::check_optional(caller, "the gradient of the rows", out.right, layer.rows.shape());
  detail::check_bias(caller, out.bias, dy.cols);
  auto const r = static_cast<std::size_t>(layer.rank());
  auto const readable = [](matrix_view<Value> v) -> matrix_view<Value const> { return v; };
  detail::sum_rows<E, Value>(exec, dy, out.kept(), out.bias);
  detail::gather_columns<E, Value>(exec, dy, layer.order.subspan(r), others);
  if (!out.left.empty()) multiply(exec, Value{1}, readable(others).t(), z, out.kept(), out.left);
  if (out.right.empty() && dx.empty()) return;
  detail::gather_columns<E, Value>(exec, dy, layer.order.first(r), dz);
  if (!others.empty())
    multiply(exec, Value{1}, readable(others), matrix_view<Value const>(layer.coefficients), Value{1}, dz);
  if (!out.right.empty()) multiply(exec, Value{1}, readable(dz).t(), x, out.kept(), out.right);
  if (!dx.empty()) multiply(exec, Value{1}, readable(dz), matrix_view<Value const>(layer.rows), out.kept_input(), dx);
}

/// W, back as one dense matrix. The bias stays what it is.
/// Shapes: W m x n, neighbouring columns.  Cost: 2 (m - r) n r flops; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T, class Value = std::remove_const_t<T>>
void merge(E& exec, pivoted_view<T> const& layer, std::type_identity_t<matrix_view<Value>> w) {
  layer.check("merge");
  detail::check_shape("merge", "a matrix", w, layer.shape());
  index_t const r = layer.rank(), m = w.rows;
  copy(exec, matrix_view<Value const>(layer.rows), w.row_range(0, r));
  multiply(exec, Value{1}, matrix_view<Value const>(layer.coefficients), matrix_view<Value const>(layer.rows), Value{0},
           w.row_range(r, m));
  // Row i belongs to place order[i]: along the cycles, each exchange brings one row home.
  std::vector<std::int32_t> home(layer.order.begin(), layer.order.end());
  for (index_t i = 0; i < m; ++i)
    while (home[static_cast<std::size_t>(i)] != i) {
      index_t const to = home[static_cast<std::size_t>(i)];
      for (index_t j = 0; j < w.cols; ++j) std::swap(w(i, j), w(to, j));
      std::swap(home[static_cast<std::size_t>(i)], home[static_cast<std::size_t>(to)]);
    }
}

}  // namespace lowrank
