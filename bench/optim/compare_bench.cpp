// A GaLore step beside the products that bound it: goals, so both run in turns.
#include "lowrank/lowrank.hpp"
#include "support/numbers.hpp"
#include "support/shapes.hpp"
#include "support/turns.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif

namespace {

using namespace lowrank;

[[nodiscard]] galore_adamw optimizer_of(index_t rank) {
  galore_adamw out{.rank = rank};
  out.refresh.period = index_t{1} << 40;  // the first step finds the basis, and no other
  return out;
}
constexpr step_options options{.learning_rate = 1e-6F};

template <class E>
struct layer {
  E exec;
  galore_adamw optimizer;
  matrix<float> w;
  typename galore_adamw::state<host_space> memory;

  layer(int threads, extents shape, index_t rank, index_t tokens)
      : exec{{.threads = threads}},
        optimizer{optimizer_of(rank)},
        w{bench::gaussian_matrix(exec, shape, 2, 0.02F)},
        memory{optimizer.init(exec, shape, 1)} {
    fp32_weight<> const weight{w.view()};
    exec.reserve(
        std::max(optimizer.workspace_bytes(weight), tokens > 0 ? optimizer.workspace_bytes(weight, tokens) : 0));
  }
  template <gradient G>
  void step(G const& g) {
    optimizer.step(exec, memory, w.view(), g, options);
  }
};

/// first: a step without refresh, 4 m n r flops in products. second: a square product on the same executor.
/// ratio: flop/s in the step's products, everything else of the step counted as waste, by flop/s of the square product.
template <class E>
void galore_step_and_square_product(benchmark::State& state) {
  index_t const size = state.range(0), rank = size / 4, square = 2048;
  layer<E> it{static_cast<int>(state.range(1)), {size, size}, rank, 0};
  auto const g = bench::gaussian_matrix(it.exec, {size, size}, 1, 1e-3F);
  auto const a = bench::gaussian_matrix(it.exec, {square, square}, 3),
             b = bench::gaussian_matrix(it.exec, {square, square}, 4);
  matrix<float> c{square, square};
  bench::compare(
      state, [&] { multiply(it.exec, 1.0F, a.view(), b.view(), 0.0F, c.view()); }, [&] { it.step(g.view()); }, 1,
      4.0 * static_cast<double>(size * size * rank) / (2.0 * static_cast<double>(square * square * square)));
}

/// first: G = dYᵀ X, then a step on it. second: a step on dY and X. Both start from what a backward pass has and end with
/// the new weight. Counters: flops of the first by flops of the second, the speed-up measured, and ratio, the second by the first.
template <class E>
void factored_and_dense_gradient(benchmark::State& state) {
  index_t const size = state.range(0), rank = state.range(1), tokens = state.range(2);
  layer<E> it{static_cast<int>(state.range(3)), {size, size}, rank, tokens};
  auto const dy = bench::gaussian_matrix(it.exec, {tokens, size}, 1, 1e-3F),
             x = bench::gaussian_matrix(it.exec, {tokens, size}, 3);
  matrix<float> g{size, size};
  auto const mnr = static_cast<double>(size * size * rank), mnt = static_cast<double>(size * size * tokens);
  double const dense = 2 * mnt + 4 * mnr, factored = 2.0 * static_cast<double>(tokens * rank * 2 * size) + 2 * mnr;
  bench::compare(
      state,
      [&] {
        multiply(it.exec, 1.0F, bench::read(dy).t(), x.view(), 0.0F, g.view());
        it.step(bench::read(g));
      },
      [&] {
        it.step(outer_product<>{dy.view(), x.view()});
      },
      1, factored / dense);
  state.counters["flop_ratio"] = dense / factored;
  state.counters["speed_up"] = state.counters["ratio"] * dense / factored;
}

void steps(benchmark::internal::Benchmark* b) {
  b->ArgNames({"size", "threads"})->Args({2048, 1})->Args({2048, 2})->Args({4096, 2});
  b->Iterations(15)->Unit(benchmark::kMillisecond)->UseRealTime();
}
void gradients(benchmark::internal::Benchmark* b) {
  b->ArgNames({"size", "rank", "tokens", "threads"})->Args({2048, 256, 512, 2})->Args({2048, 512, 1024, 2});
  b->Iterations(21)->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK(galore_step_and_square_product<host_executor>)->Apply(steps);
BENCHMARK(factored_and_dense_gradient<host_executor>)->Apply(gradients);
#if defined(LOWRANK_HAS_BLAS)
BENCHMARK(galore_step_and_square_product<blas_executor>)->Apply(steps);
BENCHMARK(factored_and_dense_gradient<blas_executor>)->Apply(gradients);
#endif

}  // namespace

BENCHMARK_MAIN();
