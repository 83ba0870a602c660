// A GaLore step on the layers of LLaMA models with r = d / 4: with and without a new basis, dense and factored gradient.
// The layers of the 7B model take minutes and gigabytes: name them, --benchmark_filter=7B.
#include <string_view>

#include "lowrank/lowrank.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/shapes.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif

namespace {

using namespace lowrank;

enum class gradient_form { dense, factored };
struct job {
  extents shape;
  index_t rank, period;  ///< period 1: every step finds a basis
  gradient_form form;
  int threads;
};

template <class E>
void step(benchmark::State& state, job const& it) {
  E exec{{.threads = it.threads}};
  galore_adamw optimizer{.rank = it.rank};
  optimizer.refresh.period = it.period;
  bool const factored = it.form == gradient_form::factored;
  index_t const t = factored ? bench::tokens : 0;
  auto w = bench::gaussian_matrix(exec, it.shape, 1, 0.02F);
  auto const g = bench::gaussian_matrix(exec, factored ? extents{} : it.shape, 2, 1e-3F);
  auto const dy = bench::gaussian_matrix(exec, {t, it.shape.rows}, 3, 1e-3F),
             x = bench::gaussian_matrix(exec, {t, it.shape.cols}, 4);
  auto memory = optimizer.init(exec, it.shape, 1);
  exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w.view()}, t));
  auto const step = [&] {
    if (factored)
      return optimizer.step(exec, memory, w.view(), outer_product<>{dy.view(), x.view()}, {.learning_rate = 1e-6F});
    return optimizer.step(exec, memory, w.view(), g.view(), {.learning_rate = 1e-6F});
  };
  if (it.period > 1) step();  // the first basis
  for (auto _ : state)
    if (step() != step_status::stepped) return state.SkipWithError("the step was not taken");

  auto const m = static_cast<double>(it.shape.rows), n = static_cast<double>(it.shape.cols),
             r = static_cast<double>(it.rank), tokens = static_cast<double>(t);
  auto const with_g = [&](double k) { return factored ? 2 * tokens * k * (m + n) : 2 * m * n * k; };
  double flops = with_g(r) + 2 * m * n * r;
  if (it.period == 1) {
    auto const& range = optimizer.finder.range;
    flops += static_cast<double>(2 * range.power_iterations + 2) * with_g(r + static_cast<double>(range.oversampling));
  }
  double const inner = r * std::max(m, n), basis = r * std::min(m, n);
  double const gradient = factored ? tokens * (m + n) : m * n;
  bench::count_rates(state, 4 * (gradient + 2 * m * n + 2 * basis + 10 * inner), flops);
  state.counters["state_bytes"] = static_cast<double>(optimizer.bytes(it.shape));
}

template <class E>
void add_layer(bench::layer const& layer, std::string const& executor, int threads) {
  auto const end = bench::path(
      {bench::label(layer), bench::setting("rank", layer.rank()), executor, bench::setting("threads", threads)});
  constexpr auto never = index_t{1} << 40;
  for (auto const form : {gradient_form::dense, gradient_form::factored})
    for (auto const period : {never, index_t{1}}) {
      auto const name =
          bench::path({period == 1 ? "refresh" : "step", form == gradient_form::dense ? "dense" : "factored", end});
      bench::add(
          name,
          [=](benchmark::State& s) {
            step<E>(s, {layer.weight, layer.rank(), period, form, threads});
          },
          0.1);
    }
}

[[nodiscard]] bool asks_for_7b(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]).find("7B") != std::string_view::npos) return true;
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  bool const with_7b = asks_for_7b(argc, argv);
  bench::add_yardsticks(2);
  for (auto const& layer : bench::layers) {
    bool const of_7b = layer.weight.size() >= bench::huge;
    if (of_7b && !with_7b) continue;
    for (int const threads : {1, 2}) {
      if (threads == 1 && layer.weight.size() > 1 << 20) continue;
      if (!of_7b) add_layer<host_executor>(layer, "eigen", threads);
#if defined(LOWRANK_HAS_BLAS)
      add_layer<blas_executor>(layer, "blas", threads);
#endif
    }
  }
  return bench::run(argc, argv);
}
