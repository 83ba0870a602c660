/// @file
/// Σ c_i B_i of random matrices, and products with each of them, made in one pass in which a tile of a matrix lives no longer
/// than it takes to be used.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "lowrank/adapt/random_basis.hpp"
#include "lowrank/core/executor.hpp"
#include "lowrank/tile/philox_lanes.hpp"

namespace lowrank::adapt {

namespace detail {

/// Elements that one task sums up, and those that are random at a time.
inline constexpr index_t combination_tile = 1024, combination_chunk = 256;

[[nodiscard]] constexpr index_t combination_tiles(extents shape) noexcept {
  return (shape.size() + combination_tile - 1) / combination_tile;
}

/// One chunk of one matrix: the sum takes c times it, and its product with `g` is added to `product`.
template <class T>
void use_chunk(random_basis const& basis, index_t number, index_t first, index_t length, T c, T* sum, T const* g,
               double* product) {
  std::array<std::uint32_t, combination_chunk> words;
  random_words<combination_chunk / 4>(basis.key, basis.block_of(number, first), words);
  std::array<T, combination_chunk> element;
  for (std::size_t j = 0; j < element.size(); ++j) element[j] = static_cast<T>(symmetric_uniform(words[j]));
  if (sum != nullptr)
    for (index_t j = 0; j < length; ++j) sum[j] += c * element[static_cast<std::size_t>(j)];
  if (g == nullptr) return;
  // Sixteen sums, because one alone waits for itself.
  std::array<T, 16> lanes{};
  index_t j = 0;
  for (; j + 16 <= length; j += 16)
    for (index_t k = 0; k < 16; ++k)
      lanes[static_cast<std::size_t>(k)] += g[j + k] * element[static_cast<std::size_t>(j + k)];
  for (; j < length; ++j) lanes[static_cast<std::size_t>(j % 16)] += g[j] * element[static_cast<std::size_t>(j)];
  double total = 0;
  for (T const part : lanes) total += static_cast<double>(part);
  *product += total;
}

/// The pass over the basis; either half may be missing.
template <class E, class T>
void use_basis(E& exec, random_basis const& basis, std::span<T const> coefficients, T scale, matrix_view<T> sum,
               matrix_view<T const> g, double* products) {
  index_t const size = basis.shape.size();
  exec.parallel(combination_tiles(basis.shape), [&](index_t tile) {
    index_t const begin = tile * combination_tile, end = std::min(size, begin + combination_tile);
    double* const mine = products == nullptr ? nullptr : products + tile * basis.count;
    for (index_t i = 0; i < basis.count; ++i) {
      T const c = sum.empty() ? T{} : scale * coefficients[static_cast<std::size_t>(i)];
      double product = 0;
      for (index_t first = begin; first < end; first += combination_chunk)
        use_chunk<T>(basis, i, first, std::min(combination_chunk, end - first), c,
                     sum.empty() ? nullptr : sum.data + first, mine == nullptr ? nullptr : g.data + first, &product);
      if (mine != nullptr) mine[i] = product;
    }
  });
}

template <class T>
void check_combination(char const* caller, random_basis const& basis, std::span<T const> coefficients,
                       matrix_view<T const> sum) {
  require<shape_error>(static_cast<index_t>(coefficients.size()) == basis.count, caller, "needs ", basis.count,
                       " coefficients, got ", coefficients.size());
  require<shape_error>(sum.shape() == basis.shape && sum.is_row_major(), caller, "needs a packed matrix of ",
                       basis.shape, ", got ", sum.shape());
}

}  // namespace detail

/// Scratch that `project` and `combine_and_project` take.
[[nodiscard]] constexpr index_t project_bytes(random_basis const& basis) noexcept {
  return scratch_bytes<double>(detail::combination_tiles(basis.shape) * basis.count);
}

/// M += scale Σ c_i B_i.
/// Shapes: M as the basis, packed row-major; one coefficient a matrix.
/// Cost: count · size random numbers and 2 flops for each; workspace 0. Bits do not depend on the number of threads.
/// Throws: shape_error.
template <std::derived_from<host_executor> E, class T>
void combine(E& exec, random_basis const& basis, std::type_identity_t<std::span<T const>> coefficients,
             std::type_identity_t<T> scale, matrix_view<T> sum) {
  detail::check_combination<T>("combine", basis, coefficients, sum);
  detail::use_basis<E, T>(exec, basis, coefficients, scale, sum, {}, nullptr);
}

/// M += scale Σ c_i B_i and p_i = scale ⟨G, B_i⟩ in one pass, where each matrix is made once. Without M (empty), the products
/// alone; without p, the sum alone.
/// Shapes: M and G as the basis, packed row-major.
/// Cost: count · size random numbers; workspace project_bytes. The products are summed in fp64 over tiles of 1024 elements.
/// Throws: shape_error.
template <std::derived_from<host_executor> E, class T>
void combine_and_project(E& exec, random_basis const& basis, std::type_identity_t<std::span<T const>> coefficients,
                         std::type_identity_t<T> scale, std::type_identity_t<matrix_view<T>> sum,
                         matrix_view<T const> g, std::type_identity_t<std::span<T>> products) {
  constexpr auto* caller = "combine_and_project";
  if (products.empty()) return combine<E, T>(exec, basis, coefficients, scale, sum);
  if (!sum.empty()) detail::check_combination<T>(caller, basis, coefficients, sum);
  detail::check_combination<T>(caller, basis, products, g);
  scratch_scope const scope{exec};
  index_t const tiles = detail::combination_tiles(basis.shape);
  auto* const parts = exec.arena().template take<double>(tiles * basis.count);
  detail::use_basis<E, T>(exec, basis, coefficients, scale, sum, g, parts);
  for (index_t i = 0; i < basis.count; ++i) {
    double total = 0;
    for (index_t tile = 0; tile < tiles; ++tile) total += parts[tile * basis.count + i];
    products[static_cast<std::size_t>(i)] = static_cast<T>(static_cast<double>(scale) * total);
  }
}

}  // namespace lowrank::adapt
