/// @file
/// y += s last W_k ... W_1 first x with square W between two outer factors: forward, backward, and its tensors by name.
#pragma once

#include <vector>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/adapt/random_combination.hpp"
#include "lowrank/linalg/orthonormalize.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank::adapt::detail {

inline constexpr index_t most_factors = 16;

/// How the tensors of a chain are called: W1 ... for all factors, or for the inner ones, between "right" and "left".
enum class chain_names : std::uint8_t { in_a_row, outer_apart };

/// "W1", "W2", ...
[[nodiscard]] constexpr std::string_view factor_name(std::size_t number) noexcept {
  constexpr std::array<std::string_view, most_factors> names{"W1", "W2",  "W3",  "W4",  "W5",  "W6",  "W7",  "W8",
                                                             "W9", "W10", "W11", "W12", "W13", "W14", "W15", "W16"};
  return names[number - 1];
}

/// Q = size times orthonormal rows or columns, whichever there are fewer of: a Gaussian matrix made orthonormal in fp32.
template <class E, class T>
void fill_orthonormal(E& exec, rng_key const& key, T size, matrix_view<T> q) {
  auto const tall = q.rows >= q.cols ? q : q.t();
  matrix<float> random{tall.shape()};
  fill_gaussian(exec, key, random.view());
  exec.reserve(orthonormalize_bytes(tall.shape()));
  orthonormalize(exec, random.view(), key);
  lowrank::detail::for_row_groups(exec, tall.shape(), [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < tall.cols; ++j) tall(i, j) = size * static_cast<T>(random(i, j));
  });
}

/// Cost: that of LoRA with the one r x r matrix that the inner factors are together.
template <class T>
struct factor_chain {
  /// W_1, W_2 W_1, ...
  using partial_products = std::array<matrix_view<T const>, most_factors>;

  matrix<T> first;               ///< r x n
  std::vector<matrix<T>> inner;  ///< r x r, W_1 first
  matrix<T> last;                ///< m x r

  factor_chain(extents shape, index_t rank, index_t inner_count) : first{rank, shape.cols}, last{shape.rows, rank} {
    for (index_t l = 0; l < inner_count; ++l) inner.emplace_back(rank, rank);
  }

  [[nodiscard]] index_t rank() const noexcept { return first.shape().rows; }
  [[nodiscard]] extents shape() const noexcept { return {last.shape().rows, first.shape().cols}; }
  [[nodiscard]] index_t bytes() const noexcept {
    return first.bytes() + last.bytes() + inner_count() * rank() * rank() * index_t{sizeof(T)};
  }
  [[nodiscard]] index_t inner_count() const noexcept { return static_cast<index_t>(inner.size()); }

  /// All factors are W1 ... in a row, or the inner ones are, between "right" and "left" of another rate.
  [[nodiscard]] std::vector<tensor<T>> tensors(chain_names names, float outer_rate) noexcept {
    return list<T>(*this, names, outer_rate);
  }
  [[nodiscard]] std::vector<tensor<T const>> tensors(chain_names names, float outer_rate) const noexcept {
    return list<T const>(*this, names, outer_rate);
  }

  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept {
    return 2 * scratch_bytes<T>(tokens * rank()) + (inner_count() + 3) * scratch_bytes<T>(rank() * rank());
  }
  /// W_k ... W_1 into scratch that holds W_1, W_2 W_1, ... one after the other; the last of them. I where there are none.
  template <class E>
  [[nodiscard]] matrix_view<T const> multiply_inner(E& exec, partial_products* partial) const {
    extents const square{rank(), rank()};
    if (inner.empty()) {
      auto const identity = take_matrix<T>(exec, square);
      fill(exec, identity, T{0});
      for (index_t i = 0; i < rank(); ++i) identity(i, i) = T{1};
      return identity;
    }
    matrix_view<T const> at = inner.front().view();
    if (partial != nullptr) (*partial)[0] = at;
    for (std::size_t l = 1; l < inner.size(); ++l) {
      auto const next = take_matrix<T>(exec, square);
      multiply(exec, T{1}, inner[l].view(), at, T{0}, next);
      at = next;
      if (partial != nullptr) (*partial)[l] = at;
    }
    return at;
  }

  /// Z = X firstᵀ, kept; Y += s Z Cᵀ lastᵀ with C the product of the inner factors.
  template <class E>
  void forward(E& exec, T s, matrix_view<T const> x, T* kept, matrix_view<T> y) const {
    scratch_scope const scope{exec};
    auto const z = row_major(kept, {x.rows, rank()});
    multiply(exec, T{1}, x, first.view().t(), T{0}, z);
    auto const h = take_matrix<T>(exec, z.shape());
    multiply(exec, s, matrix_view<T const>(z), multiply_inner(exec, nullptr).t(), T{0}, h);
    multiply(exec, T{1}, matrix_view<T const>(h), last.view().t(), T{1}, y);
  }
  /// dH = s dY last, dC = dHᵀ Z, dW_l = (W_k ... W_{l+1})ᵀ dC (W_{l-1} ... W_1)ᵀ, dZ = dH C.
  template <class E>
  void backward(E& exec, T s, matrix_view<T const> x, T const* kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx) const {
    std::size_t const k = inner.size();
    auto const d_first = wanted(gradients, 0), d_last = wanted(gradients, k + 1);
    scratch_scope const scope{exec};
    auto const z = row_major(kept, {x.rows, rank()});
    partial_products partial;
    auto const c = multiply_inner(exec, &partial);
    auto const h = take_matrix<T>(exec, z.shape()), dh = take_matrix<T>(exec, z.shape());
    if (!d_last.empty()) {
      multiply(exec, s, z, c.t(), T{0}, h);
      multiply(exec, T{1}, dy.t(), matrix_view<T const>(h), T{0}, d_last);
    }
    multiply(exec, s, dy, last.view(), T{0}, dh);
    matrix_view<T const> const read = dh;
    inner_gradients(exec, partial, read, z, gradients);
    if (d_first.empty() && dx.empty()) return;
    multiply(exec, T{1}, read, c, T{0}, h);
    if (!d_first.empty()) multiply(exec, T{1}, matrix_view<T const>(h).t(), x, T{0}, d_first);
    if (!dx.empty()) multiply(exec, T{1}, matrix_view<T const>(h), first.view(), T{1}, dx);
  }

 private:
  template <class U, class Chain>
  static std::vector<tensor<U>> list(Chain& chain, chain_names names, float outer_rate) {
    bool const apart = names == chain_names::outer_apart;
    std::size_t number = 1;
    std::vector<tensor<U>> out;
    out.push_back({apart ? std::string_view{"right"} : factor_name(number++), chain.first.view(), outer_rate});
    for (auto& factor : chain.inner) out.push_back({factor_name(number++), factor.view()});
    out.push_back({apart ? std::string_view{"left"} : factor_name(number), chain.last.view(), outer_rate});
    return out;
  }
  template <class E>
  void inner_gradients(E& exec, partial_products const& partial, matrix_view<T const> dh, matrix_view<T const> z,
                       std::span<matrix_view<T> const> gradients) const {
    bool any = false;
    for (std::size_t l = 0; l < inner.size(); ++l) any = any || !wanted(gradients, l + 1).empty();
    if (!any) return;
    scratch_scope const scope{exec};
    auto at = take_matrix<T>(exec, {rank(), rank()}), next = take_matrix<T>(exec, {rank(), rank()});
    multiply(exec, T{1}, dh.t(), z, T{0}, at);
    for (std::size_t l = inner.size(); l-- > 0;) {
      matrix_view<T const> const above = at;
      if (auto const out = wanted(gradients, l + 1); !out.empty()) {
        if (l > 0) multiply(exec, T{1}, above, partial[l - 1].t(), T{0}, out);
        else copy(exec, above, out);
      }
      if (l == 0) return;
      multiply(exec, T{1}, inner[l].view().t(), above, T{0}, next);
      std::swap(at, next);
    }
  }
};

}  // namespace lowrank::adapt::detail
