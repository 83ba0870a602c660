// Exact and randomized singular vectors of one gradient. `captured` is ‖PᵀG‖² by the best any basis of that rank can do.
#include <map>

#include "lowrank/linalg/host/eigen_decompositions.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/linalg/randomized_svd.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/shapes.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif

namespace {

using namespace lowrank;

/// U diag(i^-0.7) Vᵀ with random orthonormal U and V: the decay of gradients early in training.
struct problem {
  matrix<float> g;
  double best{};  ///< energy of the r leading values

  problem(extents shape, index_t r) : g{shape} {
    host_executor exec{};
    index_t const k = std::min(shape.rows, shape.cols);
    exec.reserve(orthonormalize_bytes({std::max(shape.rows, shape.cols), k}));
    auto u = bench::gaussian_matrix(exec, {shape.rows, k}, 1), v = bench::gaussian_matrix(exec, {shape.cols, k}, 2);
    orthonormalize(exec, u.view(), {1, 0, 1, rng_purpose::completion});
    orthonormalize(exec, v.view(), {1, 0, 2, rng_purpose::completion});
    for (index_t j = 0; j < k; ++j) {
      double const value = std::pow(static_cast<double>(j + 1), -0.7);
      if (j < r) best += value * value;
      for (index_t i = 0; i < shape.rows; ++i) u(i, j) *= static_cast<float>(value);
    }
    multiply(exec, 1.0F, bench::read(u), bench::read(v).t(), 0.0F, g.view());
  }
  /// One of each, because making it takes longer than most of what is measured.
  [[nodiscard]] static problem const& of(extents shape, index_t r) {
    static std::map<std::pair<index_t, index_t>, problem> made;
    return made.try_emplace({shape.rows, shape.cols}, shape, r).first->second;
  }
};

template <class E>
void count_captured(benchmark::State& state, E& exec, problem const& it, matrix<float> const& u) {
  matrix<float> inner{u.shape().cols, it.g.shape().cols};
  multiply(exec, 1.0F, u.view().t(), it.g.view(), 0.0F, inner.view());
  double energy = 0;
  squared_norm(exec, bench::read(inner), &energy);
  state.counters["captured"] = energy / it.best;
}

template <class E>
void exact(benchmark::State& state, extents shape, index_t r, int threads) {
  E exec{{.threads = threads}};
  auto const& it = problem::of(shape, r);
  index_t const k = std::min(shape.rows, shape.cols);
  matrix<float> u{shape.rows, k}, leading{shape.rows, r};
  for (auto _ : state)
    if (exact_svd(exec, it.g.view(), svd_output<>{.u = u.view()}) != svd_status::converged)
      return state.SkipWithError("did not converge");
  copy(exec, bench::read(u).col_range(0, r), leading.view());
  count_captured(state, exec, it, leading);
}

template <class E>
void randomized(benchmark::State& state, extents shape, index_t r, index_t power_iterations, int threads) {
  E exec{{.threads = threads}};
  auto const& it = problem::of(shape, r);
  range_options const options{.power_iterations = power_iterations};
  exec.reserve(randomized_svd_bytes(shape, r, options));
  matrix<float> u{shape.rows, r};
  for (auto _ : state)
    randomized_svd(exec, it.g.view(), r, svd_output<>{.u = u.view()}, options, {1, 0, 3, rng_purpose::sketch});
  auto const l = static_cast<double>(r + options.oversampling), q = static_cast<double>(power_iterations);
  bench::count_rates(state, 0, (2 * q + 2) * 2 * static_cast<double>(shape.size()) * l);  // products with G alone
  count_captured(state, exec, it, u);
}

template <class E>
void add_all(std::string const& executor, int threads) {
  for (auto const& layer : bench::layers) {
    bool const large = layer.weight.size() > 1 << 20;
    if (layer.weight.size() >= bench::huge || (large && threads == 1)) continue;
    auto const shape = layer.weight;
    auto const r = layer.rank();
    auto const name =
        bench::path({bench::label(layer), bench::setting("rank", r), executor, bench::setting("threads", threads)});
    if (!large) bench::add(bench::path({"exact", name}), [=](benchmark::State& s) { exact<E>(s, shape, r, threads); });
    if (large && shape.rows != shape.cols) continue;  // making 2048 x 5461 takes longer than it tells
    for (index_t const q : {0, 1, 2})
      bench::add(bench::path({"randomized", bench::setting("q", q), name}),
                 [=](benchmark::State& s) { randomized<E>(s, shape, r, q, threads); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int const threads : {1, 2}) {
    bench::add_yardsticks(threads);
    add_all<host_executor>("eigen", threads);
#if defined(LOWRANK_HAS_BLAS)
    add_all<blas_executor>("blas", threads);
#endif
  }
  return bench::run(argc, argv);
}
