// How far a fused step is from the time that its bytes need, and what moments in codes add: goals, so both run in turns.
#include "lowrank/lowrank.hpp"
#include "lowrank/rule/quantized_moment.hpp"
#include "support/moving_bytes.hpp"
#include "support/numbers.hpp"
#include "support/turns.hpp"

namespace {

using namespace lowrank;

template <class Optimizer = adamw>
struct layer {
  host_executor exec;
  Optimizer optimizer{};
  matrix<float> g, w;
  typename Optimizer::template state<host_space> memory;
  matrix<float> a, b, c, d;  ///< what the loop moves: arrays of its own

  explicit layer(benchmark::State const& state)
      : exec{{.threads = static_cast<int>(state.range(1))}},
        g{bench::gaussian_matrix(exec, {state.range(0), state.range(0)}, 1, 1e-3F)},
        w{bench::gaussian_matrix(exec, g.shape(), 2, 0.02F)},
        memory{optimizer.init(exec, g.shape(), 1)},
        a{g.shape()},
        b{g.shape()},
        c{g.shape()},
        d{g.shape()} {
    exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w.view()}));
  }
  void step() {
    optimizer.step(exec, memory, w.view(), bench::read(g), {.learning_rate = 1e-6F, .weight_decay = 0.01F});
  }
  void pass() {
    optimizer.rule.apply(exec, memory.rule, bench::read(g), lowrank::fp32_tiles{w.data()}, memory.record.data());
  }
  void move() { bench::adam_shaped_loop(exec, a.data(), b.data(), c.data(), d.data(), a.shape().size()); }
};

/// first: a step of AdamW, which reads the gradient once to see that it is finite and then passes over everything once.
/// second: a loop that reads one array, then a loop that moves 28 bytes an element; together the same 32.
void adamw_step_and_its_bytes(benchmark::State& state) {
  layer<> it{state};
  bench::compare(
      state, [&] { it.step(); },
      [&] {
        bench::read_loop(it.exec, it.a.data(), it.a.shape().size());
        it.move();
      });
}
/// first: the fused pass alone. second: the loop that moves the same 28 bytes an element.
void adamw_pass_and_its_bytes(benchmark::State& state) {
  layer<> it{state};
  it.step();  // leaves a record of the step in the state
  bench::compare(
      state, [&] { it.pass(); }, [&] { it.move(); });
}
/// first: the fused pass with both moments in codes. second: the same pass with moments in fp32.
template <class Kind>
void coded_pass_and_fp32_pass(benchmark::State& state) {
  using coded = full_rank<rule::elementwise<rule::adam_formula, rule::quantized_moment<Kind>>>;
  layer<coded> it{state};
  layer<> plain{state};
  it.step();
  plain.step();
  bench::compare(
      state, [&] { it.pass(); }, [&] { plain.pass(); });
}
void sizes(benchmark::internal::Benchmark* b) {
  b->ArgsProduct({{2048, 4096}, {1, 2}})->ArgNames({"size", "threads"})->Iterations(41);
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK(adamw_step_and_its_bytes)->Apply(sizes);
BENCHMARK(adamw_pass_and_its_bytes)->Apply(sizes);
BENCHMARK(coded_pass_and_fp32_pass<rule::moments::bitsandbytes>)->Name("bitsandbytes_pass_and_fp32_pass")->Apply(sizes);
BENCHMARK(coded_pass_and_fp32_pass<rule::moments::torchao_8bit>)->Name("torchao_8bit_pass_and_fp32_pass")->Apply(sizes);
BENCHMARK(coded_pass_and_fp32_pass<rule::moments::torchao_4bit>)->Name("torchao_4bit_pass_and_fp32_pass")->Apply(sizes);
BENCHMARK(coded_pass_and_fp32_pass<rule::moments::torchao_fp8>)->Name("torchao_fp8_pass_and_fp32_pass")->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
