// Decompositions and factors of one matrix, and its layer in each form: dense, U V, pivoted, at equal numbers of parameters.
#include <map>

#include "lowrank/factor/format.hpp"
#include "lowrank/factor/pivoted.hpp"
#include "lowrank/factor/truncated_svd.hpp"
#include "lowrank/factor/whitened.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/turns.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif

namespace {

using namespace lowrank;

inline constexpr index_t tokens = 256;

/// SmolLM2's matrices, and one of a model of 7 billion.
struct shape_of {
  char const* name;
  extents weight;
};
inline constexpr shape_of shapes[] = {
    {"576x576", {576, 576}}, {"1536x576", {1536, 576}}, {"576x1536", {576, 1536}}, {"4096x4096", {4096, 4096}}};

/// A matrix and statistics of inputs whose channels differ by two decades.
struct problem {
  matrix<float> w;
  activation_statistics inputs;

  problem(host_executor& exec, extents shape) : w{bench::gaussian_matrix(exec, shape, 1)}, inputs{shape.cols} {
    auto x = bench::gaussian_matrix(exec, {2 * tokens, shape.cols}, 2);
    scale_columns(exec, x.view(), [](index_t j) { return 1.0F / static_cast<float>(1 + j % 100); });
    exec.reserve(activation_statistics::workspace_bytes(shape.cols));
    inputs.add(exec, x.view());
  }
  [[nodiscard]] static problem const& of(extents shape) {
    static std::map<std::pair<index_t, index_t>, problem> made;
    host_executor exec{};
    return made.try_emplace({shape.rows, shape.cols}, exec, shape).first->second;
  }
};

template <class E, factorizer F>
void decompose(benchmark::State& state, extents shape, F const& method, int threads) {
  E exec{{.threads = threads}};
  auto const& it = problem::of(shape);
  for (auto _ : state) {
    auto const basis = method.decompose(exec, bench::read(it.w), it.inputs);
    benchmark::DoNotOptimize(basis.directions.data());
  }
}

template <class E>
void make_factors(benchmark::State& state, extents shape, factor_balance balance, int threads) {
  E exec{{.threads = threads}};
  auto const& it = problem::of(shape);
  factor::whitened const method{.balance = balance};
  auto const basis = method.decompose(exec, bench::read(it.w), it.inputs);
  for (auto _ : state) {
    auto const pair = factors(exec, method, basis, bench::read(it.w), it.inputs, basis.most() / 2);
    benchmark::DoNotOptimize(pair.u.data());
  }
}

factor_pair random_pair(host_executor& exec, extents shape, index_t r) {
  factor_pair pair;
  pair.u = bench::gaussian_matrix(exec, {shape.rows, r}, 3);
  pair.v = bench::gaussian_matrix(exec, {r, shape.cols}, 4);
  return pair;
}

template <class E>
void pivot(benchmark::State& state, extents shape, index_t r, int threads) {
  E exec{{.threads = threads}};
  auto const pair = random_pair(exec, shape, r);
  for (auto _ : state) {
    auto const form = pivoted(exec, pair.view());
    benchmark::DoNotOptimize(form.rows.data());
  }
}

template <class E>
void gather_statistics(benchmark::State& state, index_t features, gram_kind kind, int threads) {
  E exec{{.threads = threads, .scratch_bytes = activation_statistics::workspace_bytes(features)}};
  auto const x = bench::gaussian_matrix(exec, {4 * tokens, features}, 2);
  activation_statistics inputs{features};
  for (auto _ : state) inputs.add(exec, bench::read(x), kind);
  auto const n = static_cast<double>(features);
  bench::count_rates(state, 0, 4 * static_cast<double>(tokens) * n * n);
}

/// The dense product and a factored layer in turns; ratio > 1: the factored one is faster by that.
template <class E, class Layer>
void beside_dense(benchmark::State& state, extents shape, Layer& layer, int threads) {
  E exec{{.threads = threads}};
  auto const w = bench::gaussian_matrix(exec, shape, 1), x = bench::gaussian_matrix(exec, {tokens, shape.cols}, 2);
  matrix<float> y{tokens, shape.rows}, z{tokens, layer.rank()}, others{tokens, shape.rows - layer.rank()};
  bench::compare(
      state, [&] { multiply(exec, 1.0F, bench::read(x), bench::read(w).t(), 0.0F, y.view()); },
      [&] {
        if constexpr (std::same_as<Layer, factor_pair>) forward(exec, layer.view(), x.view(), z.view(), y.view());
        else forward(exec, layer.view(), x.view(), z.view(), others.view(), y.view());
      },
      shape.size() > 1 << 22 ? 1 : 4);
  state.counters["parameters_kept"] = static_cast<double>(layer.parameters()) / static_cast<double>(shape.size());
}

template <class E>
void add_all(std::string const& executor, int threads) {
  auto const suffix = bench::path({executor, bench::setting("threads", threads)});
  for (auto const& [name, shape] : shapes) {
    bool const huge = shape.rows == 4096;
    index_t const half = std::min(shape.rows, shape.cols) / 2;
    if (!huge) {
      bench::add(bench::path({"decompose/plain", name, suffix}),
                 [=](benchmark::State& s) { decompose<E>(s, shape, factor::truncated_svd{}, threads); });
      bench::add(bench::path({"decompose/whitened", name, suffix}),
                 [=](benchmark::State& s) { decompose<E>(s, shape, factor::whitened{}, threads); });
      bench::add(bench::path({"factors/components", name, suffix}),
                 [=](benchmark::State& s) { make_factors<E>(s, shape, factor_balance::components, threads); });
      bench::add(bench::path({"factors/spectral", name, suffix}),
                 [=](benchmark::State& s) { make_factors<E>(s, shape, factor_balance::spectral, threads); });
    } else {
      bench::add(bench::path({"huge/decompose/whitened", name, suffix}),
                 [=](benchmark::State& s) { decompose<E>(s, shape, factor::whitened{}, threads); });
    }
    bench::add(bench::path({huge ? "huge/pivoted" : "pivoted", name, bench::setting("rank", half), suffix}),
               [=](benchmark::State& s) { pivot<E>(s, shape, half, threads); });
    for (double const kept : {0.8, 0.5}) {
      auto const budget = static_cast<index_t>(kept * static_cast<double>(shape.size()));
      auto const share = bench::setting("kept_percent", static_cast<index_t>(100 * kept));
      index_t const r = largest_rank(shape, budget, factor_storage::factors);
      index_t const more = largest_rank(shape, budget, factor_storage::pivoted);
      bench::add(bench::path({"forward/factors", name, share, bench::setting("rank", r), suffix}),
                 [=](benchmark::State& s) {
                   host_executor exec{};
                   auto layer = random_pair(exec, shape, r);
                   beside_dense<E>(s, shape, layer, threads);
                 });
      bench::add(bench::path({"forward/pivoted", name, share, bench::setting("rank", more), suffix}),
                 [=](benchmark::State& s) {
                   host_executor exec{};
                   // What the numbers are does not matter here, and choosing pivots of the largest takes long.
                   pivoted_pair layer{.rows = bench::gaussian_matrix(exec, {more, shape.cols}, 3),
                                      .coefficients = bench::gaussian_matrix(exec, {shape.rows - more, more}, 4),
                                      .order = {},
                                      .bias = {}};
                   for (index_t first : {0, 1})  // every other row is a pivot, as far as they go
                     for (index_t i = first; i < shape.rows; i += 2)
                       layer.order.push_back(static_cast<std::int32_t>(i));
                   beside_dense<E>(s, shape, layer, threads);
                 });
    }
  }
  for (index_t const features : {576, 1536})
    for (auto const& [name, kind] : {std::pair{"wide", gram_kind::wide}, std::pair{"mixed", gram_kind::mixed}})
      bench::add(bench::path({"statistics", name, bench::setting("features", features), suffix}),
                 [=, kind = kind](benchmark::State& s) { gather_statistics<E>(s, features, kind, threads); });
}

}  // namespace

int main(int argc, char** argv) {
  for (int const threads : {1, 2}) {
    add_all<host_executor>("eigen", threads);
#if defined(LOWRANK_HAS_BLAS)
    add_all<blas_executor>("blas", threads);
#endif
  }
  return bench::run(argc, argv);
}
