/// @file
/// Benchmarks whose names are made at run time, the rates they are judged by, and the yardsticks beside them.
#pragma once

#include <benchmark/benchmark.h>

#include <initializer_list>
#include <string>

#include "support/moving_bytes.hpp"

namespace lowrank::bench {

/// bytes/s and flop/s from what one iteration moves and computes; 0 leaves a counter out.
inline void count_rates(benchmark::State& state, double bytes, double flops) {
  using counter = benchmark::Counter;
  auto const rate = [](double amount) { return counter(amount, counter::kIsIterationInvariantRate); };
  if (bytes > 0) state.counters["bytes/s"] = rate(bytes);
  if (flops > 0) state.counters["flop/s"] = rate(flops);
}

/// "a/b/c" from parts.
[[nodiscard]] inline std::string path(std::initializer_list<std::string> parts) {
  std::string out;
  for (auto const& part : parts) out.append(out.empty() ? "" : "/").append(part);
  return out;
}
/// "key:value"
[[nodiscard]] inline std::string setting(char const* key, index_t value) {
  return std::string(key).append(":").append(std::to_string(value));
}

/// Registers body(state) as `name`, in milliseconds of real time. What takes long runs until `seconds` have passed.
template <class F>
benchmark::internal::Benchmark* add(std::string const& name, F const& body, double seconds = 0.2) {
  return benchmark::RegisterBenchmark(name.c_str(), body)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime()
      ->MinTime(seconds);
}

/// Copy, triad and a loop that moves what Adam moves, on arrays of 2048 x 2048: every program has them, because what
/// memory allows changes from hour to hour.
inline void add_yardsticks(int threads) {
  static constexpr index_t size = 2048 * 2048;
  auto const add_one = [=](std::string const& name, double bytes, auto const& loop) {
    add(path({name, setting("threads", threads)}), [=](benchmark::State& state) {
      host_executor exec{{.threads = threads}};
      buffer<float> const g{size};
      buffer<float> w{size}, m{size}, v{size};
      for (auto _ : state) {
        loop(exec, g.data(), w.data(), m.data(), v.data());
        benchmark::ClobberMemory();
      }
      count_rates(state, bytes * size, 0);
    });
  };
  add_one("copy", 8, [](auto& exec, auto* g, auto* w, auto*, auto*) { copy_loop(exec, w, g, size); });
  add_one("triad", 12, [](auto& exec, auto* g, auto* w, auto* m, auto*) { triad_loop(exec, w, g, m, 2.0F, size); });
  add_one("adam_shaped", 28,
          [](auto& exec, auto* g, auto* w, auto* m, auto* v) { adam_shaped_loop(exec, g, w, m, v, size); });
}

/// The body of `main`.
inline int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace lowrank::bench
