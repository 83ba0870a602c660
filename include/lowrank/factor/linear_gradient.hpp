/// @file
/// What the factored forms of a linear layer share: its bias, and where gradients go.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <span>
#include <type_traits>

#include "lowrank/core/error.hpp"
#include "lowrank/core/executor.hpp"

namespace lowrank {

/// What becomes of numbers that are already where a gradient goes: micro-batches after the first add.
enum class gradient_mode : std::uint8_t { overwrite, add };

/// Gradients of the two matrices and of the bias of a layer; what is left empty is not computed.
/// Shapes: as the layer's own.
template <class T>
struct layer_gradient {
  matrix_view<T> left{};   ///< of U, or of the coefficients
  matrix_view<T> right{};  ///< of V, or of the pivot rows
  std::span<T> bias{};
  gradient_mode mode{gradient_mode::overwrite};
  gradient_mode input_mode{gradient_mode::overwrite};  ///< of dX: layers that share an input add up

  [[nodiscard]] constexpr T kept() const noexcept { return mode == gradient_mode::add ? T{1} : T{0}; }
  [[nodiscard]] constexpr T kept_input() const noexcept { return input_mode == gradient_mode::add ? T{1} : T{0}; }
};

namespace detail {

/// Y += b, row by row; an empty bias is none.
template <std::derived_from<host_executor> E, class T>
void add_to_rows(E& exec, std::span<T const> bias, matrix_view<T> y) {
  if (bias.empty()) return;
  constexpr index_t rows = 16;
  exec.parallel((y.rows + rows - 1) / rows, [&](index_t task) {
    for (index_t t = task * rows; t < std::min(y.rows, (task + 1) * rows); ++t)
      for (index_t i = 0; i < y.cols; ++i) y(t, i) += bias[static_cast<std::size_t>(i)];
  });
}

/// db = kept db + the sum of the rows of dY, in fp64 and in their order; an empty db is left alone.
template <std::derived_from<host_executor> E, class T>
void sum_rows(E& exec, matrix_view<T const> dy, T kept, std::span<T> db) {
  if (db.empty()) return;
  constexpr index_t columns = 64;
  exec.parallel((dy.cols + columns - 1) / columns, [&](index_t task) {
    index_t const begin = task * columns, count = std::min(dy.cols - begin, columns);
    std::array<double, columns> sum{};
    for (index_t t = 0; t < dy.rows; ++t)
      for (index_t i = 0; i < count; ++i) sum[static_cast<std::size_t>(i)] += static_cast<double>(dy(t, begin + i));
    for (index_t i = 0; i < count; ++i) {
      T& out = db[static_cast<std::size_t>(begin + i)];
      auto const fresh = static_cast<T>(sum[static_cast<std::size_t>(i)]);
      out = kept == T{0} ? fresh : kept * out + fresh;
    }
  });
}

/// A bias or its gradient: nothing, or one number an output.
template <class T>
void check_bias(char const* caller, std::span<T> bias, index_t outputs) {
  require<shape_error>(bias.empty() || static_cast<index_t>(bias.size()) == outputs, caller, "needs a bias of ",
                       outputs, " numbers or none, got ", bias.size());
}

template <class T>
void check_shape(char const* caller, char const* what, matrix_view<T> v, extents wanted) {
  require<shape_error>(v.shape() == wanted, caller, "needs ", what, " of ", wanted, ", got ", v.shape());
}
/// The same for what may be left out.
template <class T>
void check_optional(char const* caller, char const* what, matrix_view<T> v, extents wanted) {
  if (v.data != nullptr) check_shape(caller, what, v, wanted);
}

}  // namespace detail
}  // namespace lowrank
