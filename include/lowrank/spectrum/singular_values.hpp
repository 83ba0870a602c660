/// @file
/// Singular values of a matrix without its singular vectors, by the cheapest route that is accurate enough.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "lowrank/core/buffer.hpp"
#include "lowrank/linalg/eigenvalue_problem.hpp"
#include "lowrank/linalg/primitives.hpp"
#include "lowrank/linalg/randomized_svd.hpp"
#include "lowrank/linalg/svd_output.hpp"
#include "lowrank/spectrum/spectrum.hpp"

namespace lowrank {

enum class spectrum_route : std::uint8_t {
  automatic,  ///< the first of gram and exact whose error is known to be small enough; randomized where that was asked for
  gram,       ///< eigenvalues of the fp64 Gram of the shorter side: s_i² to n eps s_1², so s_i to n eps s_1² / s_i
  exact,      ///< bidiagonalisation in fp64: s_i to n eps s_1, at several times the price
  randomized,  ///< the leading values and the energy; from below, a few percent off where the spectrum is flat
};

struct spectrum_options {
  double accuracy{1e-8};  ///< error of a singular value that is allowed, as a share of the largest
  spectrum_route route{spectrum_route::automatic};
  index_t leading{0};  ///< values that the randomized route looks for; 0: a quarter of all
  range_options search{.oversampling = 16, .power_iterations = 2, .space = search_space::every_block};
  rng_key key{};

  void check() const {
    require(accuracy >= 0, "spectrum_options", "accuracy must be >= 0, got ", accuracy);
    require(leading >= 0, "spectrum_options", "leading must be >= 0, got ", leading);
  }
};

/// The largest error, relative to s_1, of singular values that come from the eigenvalues of a Gram of an m x n matrix: with
/// |λ - s²| <= d s_1², a value is off by at most d s_1² / s, and by sqrt(d) s_1 where that says nothing. Here d = (sqrt(m) + n)
/// eps for the shorter side n, ten times what random matrices show.
[[nodiscard]] inline double gram_error(spectrum const& s) {
  auto const length = static_cast<double>(s.length()),
             depth = static_cast<double>(std::max(s.shape.rows, s.shape.cols));
  double const d = (std::sqrt(depth) + length) * std::numeric_limits<double>::epsilon();
  if (s.largest() <= 0) return 0;
  double const least = s.values.back() / s.largest();
  return least > std::sqrt(d) ? d / least : std::sqrt(2 * d);
}

namespace detail {

/// The view whose columns are the shorter side.
template <class E>
[[nodiscard]] const_view_of<E> upright(const_view_of<E> w) noexcept {
  return w.rows >= w.cols ? w : w.t();
}

/// From eigenvalues of the Gram to singular values, in place. A rank-deficient Gram has eigenvalues below zero.
inline void take_roots(spectrum& s) noexcept {
  for (double& value : s.values) value = std::sqrt(std::max(value, 0.0));
}

/// Refuses what a route could not do, by the matrix's name.
inline void require_solved(std::string_view name, svd_status status) {
  require(status == svd_status::converged, "singular_values", name, name.empty() ? "" : ": ", status);
}

template <class E>
[[nodiscard]] spectrum exact_spectrum(E& exec, const_view_of<E> w, std::string_view name) {
  spectrum out{.shape = w.shape(), .values = std::vector<double>(static_cast<std::size_t>(std::min(w.rows, w.cols)))};
  if constexpr (requires { exact_singular_values(exec, w, out.values.data()); })
    require_solved(name, exact_singular_values(exec, w, out.values.data()));
  else
    require(false, "singular_values",
            "the exact route needs lowrank/linalg/host/decompositions.hpp or blas.hpp, included "
            "before it is called");
  return out;
}

template <class E>
[[nodiscard]] spectrum randomized_spectrum(E& exec, const_view_of<E> w, spectrum_options const& options,
                                           std::string_view name) {
  spectrum out{.shape = w.shape()};
  index_t const all = out.length(), wanted = options.leading > 0 ? options.leading : (all + 3) / 4;
  index_t const r = std::min(wanted, all);
  out.values.resize(static_cast<std::size_t>(r));
  if (r == 0) return out;
  exec.reserve(randomized_svd_bytes(w.shape(), r, options.search) + scratch_bytes<double>(1));
  range_report report;
  randomized_svd(exec, w, r, svd_output<>{.values = out.values.data()}, options.search, options.key, &report);
  squared_norm(exec, w, &out.whole);
  require_solved(name, report.failed != 0 || !is_finite(out.whole) ? svd_status::not_finite : svd_status::converged);
  std::ranges::sort(out.values, std::greater<>{});
  return out;
}

/// A spectrum under way: its Gram in memory of the caller.
struct gram_spectrum {
  spectrum result;
  eigenvalue_problem problem;

  /// C is the Gram of w, n x n for the shorter side n, in `memory`. `w` is not needed any more.
  template <class E>
  void begin(E& exec, const_view_of<E> w, double* memory) {
    result = {.shape = w.shape()};
    result.values.resize(static_cast<std::size_t>(result.length()));
    problem = {.c = row_major(memory, {result.length(), result.length()}), .values = result.values.data()};
    gram(exec, upright<E>(w), problem.c);
  }
  /// After the problem was solved.
  void finish(std::string_view name) {
    require_solved(name, problem.failed != 0 ? svd_status::not_finite : svd_status::converged);
    take_roots(result);
  }
};

}  // namespace detail

/// The singular values of W, in fp64 whatever the route.
/// Shapes: W m x n, any strides.  Requires: an executor on the host with its products and factorizations included.
/// Ensures: every value within options.accuracy times the largest of the true one; `gram` and `randomized`, asked for by name,
/// promise only what their descriptions say.
/// Cost: m n² + 4 n³ / 3 flops for the Gram route (n <= m) and 8 n² bytes; the exact route 2 m n² + 2 n³ at a lower rate and
/// 8 m n bytes. Allocates.
/// Throws: argument_error, with `name`, for NaN or Inf in W or where LAPACK gave up.
template <class E>
[[nodiscard]] spectrum singular_values(E& exec, const_view_of<E> w, spectrum_options const& options = {},
                                       std::string_view name = {}) {
  options.check();
  if (options.route == spectrum_route::randomized) return detail::randomized_spectrum<E>(exec, w, options, name);
  if (options.route == spectrum_route::exact || w.empty()) return detail::exact_spectrum<E>(exec, w, name);
  index_t const n = std::min(w.rows, w.cols);
  detail::gram_spectrum one;
  {
    matrix<double> c{n, n};
    one.begin(exec, w, c.data());
    symmetric_eigenvalues(exec, std::span{&one.problem, 1});
  }
  one.finish(name);
  if (options.route == spectrum_route::gram || gram_error(one.result) <= options.accuracy) return std::move(one.result);
  return detail::exact_spectrum<E>(exec, w, name);
}

}  // namespace lowrank
