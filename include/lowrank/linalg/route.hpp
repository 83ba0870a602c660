/// @file
/// What the ways to a basis cost, in flops, and which is the cheapest: from shapes alone, before anything runs.
#pragma once

#include <algorithm>

#include "lowrank/core/view.hpp"

namespace lowrank {

/// Flops (2 per multiply-add) by the precision they are done in.
struct flop_count {
  double narrow{};  ///< fp32
  double wide{};    ///< fp64: Grams, which are half of a product, and eigenproblems

  /// Time in units of one fp32 flop, where one in fp64 takes as long as `wide_cost` of them.
  [[nodiscard]] constexpr double cost(double wide_cost = 1) const noexcept { return narrow + wide_cost * wide; }
  friend constexpr flop_count operator+(flop_count a, flop_count b) noexcept {
    return {a.narrow + b.narrow, a.wide + b.wide};
  }
  friend constexpr flop_count operator*(double times, flop_count a) noexcept {
    return {times * a.narrow, times * a.wide};
  }
  friend constexpr bool operator==(flop_count, flop_count) = default;
};

enum class range_start : std::uint8_t {
  cold,  ///< from signs: `find_range` with `passes` power steps, or one iteration more on C, to the same effect
  warm,  ///< from the basis before
};

/// A basis of r columns for a gradient of that shape over `tokens` rows (0: dense).
struct range_work {
  extents g;
  index_t r;
  index_t oversampling{8};
  index_t passes{2};  ///< times that GGᵀ is applied
  index_t tokens{0};
  range_start start{range_start::warm};
};

namespace detail {

[[nodiscard]] constexpr double columns(range_work const& work) noexcept {
  return static_cast<double>(std::min({work.r + work.oversampling, work.g.rows}));
}
[[nodiscard]] constexpr double cube(double x) noexcept { return x * x * x; }

}  // namespace detail

/// A product of the gradient, or of its transpose, with k columns.
[[nodiscard]] constexpr flop_count product_flops(extents g, double k, index_t tokens) noexcept {
  auto const m = static_cast<double>(g.rows), n = static_cast<double>(g.cols), t = static_cast<double>(tokens);
  return {.narrow = tokens <= 0 ? 2 * m * n * k : 2 * t * k * (m + n)};
}
/// Half of C = G Gᵀ, in fp64. A factored gradient is formed on the way, panel by panel.
[[nodiscard]] constexpr flop_count gram_flops(extents g, index_t tokens) noexcept {
  auto const m = static_cast<double>(g.rows), n = static_cast<double>(g.cols);
  return {.narrow = 2 * static_cast<double>(std::max<index_t>(tokens, 0)) * m * n, .wide = n * m * m};
}
/// The same as `gram_solver::subspace` does it: in fp32 for a dense gradient in fp32.
[[nodiscard]] constexpr flop_count narrow_gram_flops(extents g, index_t tokens) noexcept {
  auto const all = gram_flops(g, tokens);
  return tokens == 0 ? flop_count{.narrow = all.wide} : all;
}
/// `passes` of `orthonormalize` over m x l: 2 for a basis that is handed out, 1 between steps.
[[nodiscard]] constexpr flop_count orthonormalize_flops(index_t m, double l, double passes) noexcept {
  double const half = static_cast<double>(m) * l * l;
  return passes * flop_count{.narrow = half, .wide = half + 2 * detail::cube(l) / 3};
}

/// `find_range` with `passes` power steps.
[[nodiscard]] constexpr flop_count find_range_flops(range_work const& work) noexcept {
  auto const [m, n] = work.g;
  double const l = detail::columns(work), r = static_cast<double>(work.r), steps = static_cast<double>(work.passes);
  flop_count const rotation{.narrow = 2 * static_cast<double>(m) * l * r,
                            .wide = static_cast<double>(n) * l * l + 9 * detail::cube(l)};
  return (2 * steps + 2) * product_flops(work.g, l, work.tokens) +
         steps * (orthonormalize_flops(m, l, 1) + orthonormalize_flops(n, l, 1)) + orthonormalize_flops(m, l, 2) +
         rotation + orthonormalize_flops(m, r, 2);
}
/// Warm passes Y = G (Gᵀ P), orthonormal at the end.
[[nodiscard]] constexpr flop_count warm_range_flops(range_work const& work) noexcept {
  double const l = detail::columns(work), passes = static_cast<double>(work.passes);
  return 2 * passes * product_flops(work.g, l, work.tokens) + orthonormalize_flops(work.g.rows, l, passes + 1);
}
/// `find_range_by_gram` by block subspace iteration.
[[nodiscard]] constexpr flop_count gram_subspace_flops(range_work const& work) noexcept {
  auto const m = static_cast<double>(work.g.rows), r = static_cast<double>(work.r), l = detail::columns(work);
  double const iterations = static_cast<double>(work.passes) + (work.start == range_start::cold ? 1 : 0);
  flop_count const rotation{.narrow = 2 * m * l * (l + r), .wide = 9 * detail::cube(l)};
  return narrow_gram_flops(work.g, work.tokens) + flop_count{.narrow = (iterations + 1) * 2 * m * m * l} +
         orthonormalize_flops(work.g.rows, l, iterations + 1) + rotation + orthonormalize_flops(work.g.rows, r, 2);
}
/// `find_range_by_gram` by eigenvectors, whatever the passes.
[[nodiscard]] constexpr flop_count gram_eigen_flops(range_work const& work) noexcept {
  return gram_flops(work.g, work.tokens) + flop_count{.wide = 9 * detail::cube(static_cast<double>(work.g.rows))} +
         orthonormalize_flops(work.g.rows, static_cast<double>(work.r), 1);
}

/// Whether the products alone cost less by way of C: passes 4 m n l > n m² + passes 2 m² l for a dense gradient.
/// With 2 passes that is l > m / 4 at n = m and l > 0.15 m at n = 2.7 m; far below m / 16 it never is.
[[nodiscard]] constexpr bool gram_saves_products(range_work const& work, double wide_cost = 2) noexcept {
  auto const m = static_cast<double>(work.g.rows), passes = static_cast<double>(work.passes);
  double const l = detail::columns(work), direct = 2 * passes * product_flops(work.g, l, work.tokens).cost();
  return direct > narrow_gram_flops(work.g, work.tokens).cost(wide_cost) + passes * 2 * m * m * l;
}

enum class range_route : std::uint8_t {
  direct,         ///< products with G: `find_range` from a cold start, warm passes otherwise
  gram_subspace,  ///< `find_range_by_gram`, iterating on C
  gram_eigen,     ///< `find_range_by_gram`, by eigenvectors: exact, and the same cost for any number of passes
};

[[nodiscard]] constexpr flop_count route_flops(range_route route, range_work const& work) noexcept {
  if (route == range_route::gram_subspace) return gram_subspace_flops(work);
  if (route == range_route::gram_eigen) return gram_eigen_flops(work);
  return work.start == range_start::cold ? find_range_flops(work) : warm_range_flops(work);
}

/// The route of least cost; `direct` where it costs no more than another, because it needs no m x m matrix.
/// `wide_cost`: 2 on processors and on accelerators with fp64 units, 30 and more on others. Eigenproblems also run at a
/// lower rate than products, which flops do not say.
[[nodiscard]] constexpr range_route cheapest_route(range_work const& work, double wide_cost = 2) noexcept {
  auto best = range_route::direct;
  for (auto const route : {range_route::gram_subspace, range_route::gram_eigen})
    if (route_flops(route, work).cost(wide_cost) < route_flops(best, work).cost(wide_cost)) best = route;
  return best;
}

}  // namespace lowrank
