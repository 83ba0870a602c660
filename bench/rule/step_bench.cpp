// One step of each rule on a whole parameter, and after each the loop that moves the bytes such a step has to move.
#include "lowrank/lowrank.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/shapes.hpp"

namespace {

using namespace lowrank;

template <class Optimizer>
void step(benchmark::State& state, Optimizer const& optimizer, extents shape, double bytes, int threads) {
  host_executor exec{{.threads = threads}};
  auto const g = bench::gaussian_matrix(exec, shape, 1, 1e-3F);
  auto w = bench::gaussian_matrix(exec, shape, 2, 0.02F);
  auto memory = optimizer.init(exec, shape, 1);
  exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w.view()}));
  for (auto _ : state)
    optimizer.step(exec, memory, w.view(), g.view(), {.learning_rate = 1e-6F, .weight_decay = 0.01F});
  bench::count_rates(state, bytes * static_cast<double>(shape.size()), 0);
  state.counters["elements/s"] =
      benchmark::Counter(static_cast<double>(shape.size()), benchmark::Counter::kIsIterationInvariantRate);
}

void moved_bytes(benchmark::State& state, int moments, extents shape, double bytes, int threads) {
  host_executor exec{{.threads = threads}};
  matrix<float> const g{shape};
  matrix<float> w{shape}, m{shape}, v{shape};
  for (auto _ : state) {
    bench::read_loop(exec, g.data(), shape.size());  // a step looks at the gradient before it changes anything
    bench::step_shaped_loop(exec, moments, g.data(), w.data(), m.data(), v.data(), shape.size());
    benchmark::ClobberMemory();
  }
  bench::count_rates(state, bytes * static_cast<double>(shape.size()), 0);
}

void add_rules(bench::layer const& layer, int threads) {
  auto const shape = layer.weight;
  auto const end = bench::path({bench::label(layer), bench::setting("threads", threads)});
  auto const add = [&](std::string const& name, auto const& optimizer, int moments) {
    double const bytes = 16 + 8 * moments;
    bench::add(
        bench::path({name, end}), [=](benchmark::State& s) { step(s, optimizer, shape, bytes, threads); }, 0.1);
    bench::add(
        bench::path({"bytes_of", name, end}),
        [=](benchmark::State& s) { moved_bytes(s, moments, shape, bytes, threads); }, 0.1);
  };
  add("adamw", adamw{}, 2);
  add("sgd_momentum", sgd{.rule = {{.momentum = 0.9}}}, 1);
  add("lion", lion{}, 1);
  add("adafactor", adafactor{}, 0);
}

}  // namespace

int main(int argc, char** argv) {
  for (int const threads : {1, 2}) {
    bench::add_yardsticks(threads);
    for (auto const& layer : bench::layers)
      if (layer.weight.size() <= bench::huge && (threads == 2 || layer.weight.rows == layer.weight.cols))
        add_rules(layer, threads);
  }
  return bench::run(argc, argv);
}
