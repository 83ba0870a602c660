// Fills from Philox streams: what a sketch, a rounding or a random basis costs.
#include "support/numbers.hpp"
#include "support/program.hpp"

namespace {

using namespace lowrank;

/// 32 random bits an element and nothing else: what the other fills are built on.
void fill_words(host_executor& exec, rng_key const& key, matrix_view<float> b) {
  exec.parallel((b.size() + 16383) / 16384, [&](index_t task) {
    for (index_t i = task * 16384; i < std::min(b.size(), (task + 1) * 16384); i += 4) {
      auto const words = random_block(key, static_cast<std::uint64_t>(i / 4));
      std::memcpy(b.data + i, words.data(), sizeof words);
    }
  });
}

template <class Fill>
void add_fill(std::string const& name, int threads, Fill const& fill) {
  bench::add(bench::path({name, "2048x512", bench::setting("threads", threads)}), [=](benchmark::State& state) {
    host_executor exec{{.threads = threads}};
    matrix<float> b{2048, 512};
    std::uint32_t step = 0;
    for (auto _ : state) {
      fill(exec, rng_key{1, step++, 0, rng_purpose::sketch}, b.view());
      benchmark::ClobberMemory();
    }
    auto const size = static_cast<double>(b.shape().size());
    bench::count_rates(state, 4 * size, 0);
    state.counters["elements/s"] = benchmark::Counter(size, benchmark::Counter::kIsIterationInvariantRate);
  });
}

}  // namespace

int main(int argc, char** argv) {
  for (int const threads : {1, 2}) {
    bench::add_yardsticks(threads);
    add_fill("words", threads, [](auto& exec, auto const& key, auto b) { fill_words(exec, key, b); });
    add_fill("rademacher", threads, [](auto& exec, auto const& key, auto b) { fill_rademacher(exec, key, b); });
    add_fill("gaussian", threads, [](auto& exec, auto const& key, auto b) { fill_gaussian(exec, key, b); });
  }
  return bench::run(argc, argv);
}
