/// @file
/// W ~ U V as a linear layer: U m x r, V r x n, y = U (V x) + b. Forward, backward, and back into one matrix.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/visit.hpp"
#include "lowrank/factor/linear_gradient.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

/// The two factors and the bias, wherever they lie: in a `factor_pair` or in the flat memory of a model.
/// Shapes: u m x r, v r x n, bias m or empty.
template <class T>
struct factor_view {
  matrix_view<T> u{};
  matrix_view<T> v{};
  std::span<T> bias{};

  [[nodiscard]] constexpr index_t rank() const noexcept { return v.rows; }
  [[nodiscard]] constexpr extents shape() const noexcept { return {u.rows, v.cols}; }
  /// Throws: shape_error unless the parts fit together.
  void check(char const* caller) const {
    require<shape_error>(u.cols == v.rows, caller, "needs factors m x r and r x n, got ", u.shape(), " and ",
                         v.shape());
    detail::check_bias(caller, bias, u.rows);
  }
  constexpr operator factor_view<T const>() const noexcept
      requires(!std::is_const_v<T>) {  // NOLINT(google-explicit-constructor)
    return {u, v, bias};
  }
};

/// Owning factors of W ~ U V, and what is added to the outputs, which is on the host.
template <memory_space Space>
struct basic_factor_pair {
  matrix<float, Space> u;
  matrix<float, Space> v;
  std::vector<float> bias;  ///< one number an output, or none

  basic_factor_pair() = default;
  /// Zeros.
  basic_factor_pair(extents shape, index_t rank) : u{shape.rows, rank}, v{rank, shape.cols} {}

  [[nodiscard]] index_t rank() const noexcept { return v.shape().rows; }
  [[nodiscard]] extents shape() const noexcept { return {u.shape().rows, v.shape().cols}; }
  /// Numbers that are stored: r (m + n), and m for a bias.
  [[nodiscard]] index_t parameters() const noexcept {
    return rank() * (u.shape().rows + v.shape().cols) + static_cast<index_t>(bias.size());
  }
  [[nodiscard]] index_t bytes() const noexcept { return parameters() * index_t{sizeof(float)}; }
  [[nodiscard]] factor_view<float> view() noexcept requires std::same_as<Space, host_space> {
    return {u.view(), v.view(), bias};
  }
  [[nodiscard]] factor_view<float const> view() const noexcept requires std::same_as<Space, host_space> {
    return {u.view(), v.view(), bias};
  }
};
using factor_pair = basic_factor_pair<host_space>;

/// Z = X Vᵀ, Y = Z Uᵀ + b.
/// Shapes: X T x n, Z T x r (what `backward` wants to see again), Y T x m.
/// Cost: 2 T r (m + n) flops; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T, class Value = std::remove_const_t<T>>
void forward(E& exec, factor_view<T> const& layer, std::type_identity_t<matrix_view<Value const>> x,
             std::type_identity_t<matrix_view<Value>> z, std::type_identity_t<matrix_view<Value>> y) {
  constexpr auto* caller = "forward";
  layer.check(caller);
  detail::check_shape(caller, "inputs", x, {x.rows, layer.v.cols});
  detail::check_shape(caller, "z", z, {x.rows, layer.rank()});
  detail::check_shape(caller, "outputs", y, {x.rows, layer.u.rows});
  multiply(exec, Value{1}, x, matrix_view<Value const>(layer.v).t(), Value{0}, z);
  multiply(exec, Value{1}, matrix_view<Value const>(z), matrix_view<Value const>(layer.u).t(), Value{0}, y);
  detail::add_to_rows<E, Value>(exec, layer.bias, y);
}

/// dZ = dY U; dU = dYᵀ Z, dV = dZᵀ X, db = sum of the rows of dY, dX = dZ V: each unless its view is empty.
/// Shapes: X T x n, Z T x r of `forward`, dY T x m, dZ T x r (may be Z: then Z holds dZ afterwards), dX T x n or empty.
/// Cost: 4 T r (m + n) flops for all of them; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T, class Value = std::remove_const_t<T>>
void backward(E& exec, factor_view<T> const& layer, std::type_identity_t<matrix_view<Value const>> x,
              std::type_identity_t<matrix_view<Value const>> z, std::type_identity_t<matrix_view<Value const>> dy,
              std::type_identity_t<matrix_view<Value>> dz, std::type_identity_t<matrix_view<Value>> dx,
              layer_gradient<Value> const& out) {
  constexpr auto* caller = "backward";
  layer.check(caller);
  extents const inner{x.rows, layer.rank()};
  detail::check_shape(caller, "inputs", x, {x.rows, layer.v.cols});
  detail::check_shape(caller, "gradients of outputs", dy, {x.rows, layer.u.rows});
  detail::check_shape(caller, "z", z, inner);
  detail::check_shape(caller, "dz", dz, inner);
  detail::check_optional(caller, "gradients of inputs", dx, x.shape());
  detail::check_optional(caller, "the gradient of u", out.left, layer.u.shape());
  detail::check_optional(caller, "the gradient of v", out.right, layer.v.shape());
  detail::check_bias(caller, out.bias, layer.u.rows);
  detail::sum_rows<E, Value>(exec, dy, out.kept(), out.bias);
  if (!out.left.empty()) multiply(exec, Value{1}, dy.t(), z, out.kept(), out.left);
  if (out.right.empty() && dx.empty()) return;
  multiply(exec, Value{1}, dy, matrix_view<Value const>(layer.u), Value{0}, dz);
  if (!out.right.empty()) multiply(exec, Value{1}, matrix_view<Value const>(dz).t(), x, out.kept(), out.right);
  if (!dx.empty())
    multiply(exec, Value{1}, matrix_view<Value const>(dz), matrix_view<Value const>(layer.v), out.kept_input(), dx);
}

/// W = U V, back as one dense matrix. The bias stays what it is.
/// Shapes: W m x n.  Cost: 2 m n r flops; workspace 0.  Throws: shape_error.
template <std::derived_from<host_executor> E, class T, class Value = std::remove_const_t<T>>
void merge(E& exec, factor_view<T> const& layer, std::type_identity_t<matrix_view<Value>> w) {
  layer.check("merge");
  detail::check_shape("merge", "a matrix", w, layer.shape());
  multiply(exec, Value{1}, matrix_view<Value const>(layer.u), matrix_view<Value const>(layer.v), Value{0}, w);
}

}  // namespace lowrank
