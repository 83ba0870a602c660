/// @file
/// Two things measured in turns, A B A B, in one process: a busy machine slows both, so their ratio holds.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace lowrank::bench {

/// The value below which a quarter of `values` lies. Somebody else's turn on a core can only make a time longer, so this
/// is steadier than the median on a machine that is not ours alone.
[[nodiscard]] inline double lower_quartile(std::vector<double> values) {
  if (values.empty()) return 0;
  auto const at = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 4);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

/// Seconds of one call, as the mean of `calls`.
template <class F>
[[nodiscard]] double seconds(F const& f, int calls) {
  auto const start = std::chrono::steady_clock::now();
  for (int k = 0; k < calls; ++k) f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
}

/// Every iteration of `state` is one turn of both; who begins alternates, so that neither always finds the caches as the
/// other left them. Counters: first_ms and second_ms (lower quartiles) and ratio = expected * first / second.
template <class A, class B>
void compare(benchmark::State& state, A const& a, B const& b, int calls = 1, double expected = 1) {
  a();  // pages touched, libraries warm
  b();
  std::vector<double> first, second;
  for (auto _ : state) {
    bool const swapped = first.size() % 2 != 0;
    if (swapped) second.push_back(seconds(b, calls));
    first.push_back(seconds(a, calls));
    if (!swapped) second.push_back(seconds(b, calls));
  }
  double const x = lower_quartile(first), y = lower_quartile(second);
  state.counters["first_ms"] = 1e3 * x;
  state.counters["second_ms"] = 1e3 * y;
  state.counters["ratio"] = expected * x / y;
}

}  // namespace lowrank::bench
