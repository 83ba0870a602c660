/// @file
/// What an adapter is: a trained change of a frozen matrix, y = W x + ΔW x, that is never formed while it is trained.
/// One concept, which every method satisfies; those of low rank can be written down as two factors.
#pragma once

#include <array>
#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/executor.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/linalg/reductions.hpp"

namespace lowrank::adapt {

/// What a forward pass is for: dropout acts in training only.
enum class pass : std::uint8_t { training, evaluation };

/// One pass. `step` keys the random masks, which backward draws again: backward gets the pass_info of its forward, and two
/// forwards that shall differ (micro-batches too) get different steps.
struct pass_info {
  pass mode{pass::evaluation};
  std::uint32_t step{};
};

/// One trained matrix of an adapter. Its learning rate is multiplied by `rate`: LoRA+'s ratio for B, Deep LoRA's gamma for the
/// outer factors; 0 is frozen, but saved with the others. A vector is a matrix with one row. Packed row-major.
template <class T>
struct tensor {
  std::string_view name;  ///< constant text, unique within the adapter: "lora_A"
  matrix_view<T> values;
  float rate{1.0F};
};

/// ΔW = left right, all scales folded into `left`.
/// Shapes: left m x r, right r x n.
template <class T>
struct low_rank_factors {
  matrix<T> left;
  matrix<T> right;

  [[nodiscard]] index_t rank() const noexcept { return right.shape().rows; }
  [[nodiscard]] extents shape() const noexcept { return {left.shape().rows, right.shape().cols}; }
};

/// ΔW m x n as a trained map: what a layer asks of it.
/// `shape()`: m x n of ΔW.  `tensors()`: std::array or std::vector of tensor<T>, always in the same order.
/// `parameter_count()`: numbers that are trained (of rate 0 none).  `bytes()`: everything the adapter holds.
/// `kept_size(tokens)`: numbers of T that `forward` leaves for `backward`.  `workspace_bytes(tokens)`: scratch that either takes;
/// the caller reserves it.
/// `forward(exec, x, kept, y, info)`: Y += X ΔWᵀ. X tokens x n, Y tokens x m; kept at least kept_size(tokens) numbers.
/// `backward(exec, x, kept, dy, gradients, dx, info)`: X, kept and info as forward had them. One gradient for each tensor, in
/// their order and shapes, overwritten; an empty view is not computed, and neither is any for an empty span. dX += dY ΔW unless
/// dX is empty. No m x n temporary ever.
/// `add_to(exec, scale, w)`: W += scale ΔW as evaluation has it: 1 merges.
template <class A>
concept weight_change = requires(A a, A const c, host_executor& exec, index_t tokens,
                                 matrix_view<typename A::value_type> out, matrix_view<typename A::value_type const> in,
                                 std::span<typename A::value_type> kept, std::span<typename A::value_type const> read,
                                 typename A::value_type scale, pass_info info,
                                 std::span<matrix_view<typename A::value_type> const> gradients) {
  { c.shape() } -> std::same_as<extents>;
  { *a.tensors().begin() } -> std::convertible_to<tensor<typename A::value_type>>;
  { c.parameter_count() } -> std::same_as<index_t>;
  { c.bytes() } -> std::same_as<index_t>;
  { c.kept_size(tokens) } -> std::same_as<index_t>;
  { c.workspace_bytes(tokens) } -> std::same_as<index_t>;
  c.forward(exec, in, kept, out, info);
  c.backward(exec, in, read, in, gradients, out, info);
  c.add_to(exec, scale, out);
};

/// A trained map made by settings. It owns its trained matrices and what else it needs; it may be moved, and its tensors then
/// stay where they are. `value_type` is float; double is for checks of gradients.
/// `settings_type`, `settings()`: an aggregate with defaults, `void check(extents) const` and
/// `make<T>(exec, matrix_view<T> w, rng_key key)`, which returns the adapter for the m x n matrix w; and
/// `static constexpr bool mutates_base`: whether `make` changes w (OLoRA). Otherwise w is only read.
/// `tensors()` of a constant adapter: the same as tensor<T const>.
template <class A>
concept adapter = weight_change<A> && requires(A const c) {
  typename A::settings_type;
  { c.settings() } -> std::convertible_to<typename A::settings_type const&>;
  { *c.tensors().begin() } -> std::convertible_to<tensor<typename A::value_type const>>;
};

/// Those whose ΔW is a product of two factors with a rank that is worth it: `factors(exec)` is that product, to be written down as
/// plain LoRA.
template <class A>
concept low_rank_adapter = adapter<A> && requires(A const c, host_executor& exec) {
  { c.factors(exec) } -> std::same_as<low_rank_factors<typename A::value_type>>;
};

/// Those that `make` for a changed base. `factors_for_original(exec)`: ΔW relative to the matrix as it was before `make`: of
/// twice the rank, since what was taken out of the base is put back. With that, others can use the adapter on the base they have.
template <class A>
concept base_changing_adapter = low_rank_adapter<A> && A::settings_type::mutates_base &&
    requires(A const c, host_executor& exec) {
  { c.factors_for_original(exec) } -> std::same_as<low_rank_factors<typename A::value_type>>;
};

/// Adapter settings for matrices of T.
template <class S, class T = float>
concept adapter_settings = std::copyable<S> &&
    requires(S const s, extents shape, host_executor& exec, matrix_view<T> w, rng_key key) {
  { S::mutates_base } -> std::convertible_to<bool>;
  s.check(shape);
  { s.template make<T>(exec, w, key) } -> adapter;
};

namespace detail {

template <class T, class E>
[[nodiscard]] bool all_finite(E& exec, matrix_view<T const> a) {
  if constexpr (std::same_as<T, float>) {
    double energy = 0;
    squared_norm(exec, a, &energy);
    return is_finite(energy);
  } else {
    for (index_t i = 0; i < a.rows; ++i)
      for (index_t j = 0; j < a.cols; ++j)
        if (!is_finite(a(i, j))) return false;
    return true;
  }
}

/// What every `forward` refuses.
template <class T>
void check_forward(char const* caller, extents shape, matrix_view<T const> x, std::size_t kept, index_t kept_size,
                   matrix_view<T> y) {
  require<shape_error>(x.cols == shape.cols, caller, "needs inputs of ", shape.cols, " features for a matrix of ",
                       shape, ", got ", x.shape());
  require<shape_error>(y.shape() == extents{x.rows, shape.rows}, caller, "needs outputs of ",
                       extents{x.rows, shape.rows}, ", got ", y.shape());
  require<shape_error>(static_cast<index_t>(kept) >= kept_size, caller, "needs kept of kept_size(", x.rows,
                       ") = ", kept_size, " numbers, got ", kept);
}

/// What every `backward` refuses; `tensors` are the adapter's own.
template <class T, class Tensors>
void check_backward(char const* caller, extents shape, Tensors const& tensors, matrix_view<T const> x, std::size_t kept,
                    index_t kept_size, matrix_view<T const> dy, std::span<matrix_view<T> const> gradients,
                    matrix_view<T> dx) {
  check_forward(caller, shape, x, kept, kept_size, matrix_view<T>{nullptr, x.rows, shape.rows, shape.rows, 1});
  require<shape_error>(dy.shape() == extents{x.rows, shape.rows}, caller, "needs gradients of outputs of ",
                       extents{x.rows, shape.rows}, ", got ", dy.shape());
  require<shape_error>(dx.empty() || dx.shape() == x.shape(), caller, "needs gradients of inputs of ", x.shape(),
                       " or none, got ", dx.shape());
  require<shape_error>(gradients.empty() || gradients.size() == tensors.size(), caller, "needs ", tensors.size(),
                       " gradients or none, got ", gradients.size());
  for (std::size_t i = 0; i < gradients.size(); ++i)
    require<shape_error>(gradients[i].empty() || gradients[i].shape() == tensors[i].values.shape(), caller,
                         "needs the gradient of ", tensors[i].name, " of ", tensors[i].values.shape(), ", got ",
                         gradients[i].shape());
}

/// The gradient of tensor i, or an empty view where it is not wanted.
template <class T>
[[nodiscard]] matrix_view<T> wanted(std::span<matrix_view<T> const> gradients, std::size_t i) noexcept {
  return i < gradients.size() ? gradients[i] : matrix_view<T>{};
}

}  // namespace detail

/// What f() returns; what the library refuses in it carries the tensor's name as well.
template <class F>
decltype(auto) naming(std::string_view tensor_name, F&& f) {
  auto const named = [&](error const& e) { return lowrank::detail::join("\"", tensor_name, "\": ", e.what()); };
  try {
    return std::forward<F>(f)();
  } catch (shape_error const& e) { throw shape_error{named(e)}; } catch (argument_error const& e) {
    throw argument_error{named(e)};
  } catch (state_error const& e) { throw state_error{named(e)}; } catch (io_error const& e) {
    throw io_error{named(e)};
  }
}

/// The adapter of `settings` for the matrix w, all that can be wrong looked at first. Layers differ in `key.tensor`.
/// Throws: shape_error, argument_error; w is unchanged then.
template <class T = float, class E, class S>
[[nodiscard]] auto make_adapter(E& exec, S const& settings, std::type_identity_t<matrix_view<T>> w,
                                rng_key const& key) {
  static_assert(adapter_settings<S, T>, "lowrank: needs the settings of an adapter (adapt/adapter.hpp)");
  settings.check(w.shape());
  require(detail::all_finite<T>(exec, w), "make_adapter", "needs finite weights, got NaN or infinity in a matrix of ",
          w.shape());
  return settings.template make<T>(exec, w, key);
}

/// The adapter that settings make.
template <class S, class T = float>
using adapter_of = decltype(std::declval<S const&>().template make<T>(std::declval<host_executor&>(),
                                                                      std::declval<matrix_view<T>>(), rng_key{}));

/// Bytes of the trained numbers alone: what a file of the adapter holds.
template <weight_change A>
[[nodiscard]] index_t trained_bytes(A const& a) {
  return a.parameter_count() * index_t{sizeof(typename A::value_type)};
}

}  // namespace lowrank::adapt
