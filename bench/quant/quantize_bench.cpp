// What codes cost beside memory that is only moved: goals, so both run in turns.
#include <cstring>

#include "lowrank/quant/blockwise.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/turns.hpp"

namespace {

using namespace lowrank;

/// Copies `count` bytes, in stretches that threads share out.
void parallel_memcpy(host_executor& exec, std::uint8_t* to, std::uint8_t const* from, index_t count) {
  constexpr index_t stretch = 1 << 18;
  exec.parallel((count + stretch - 1) / stretch, [=](index_t task) {
    index_t const begin = task * stretch, end = std::min(count, begin + stretch);
    std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
  });
}

/// first: a copy that reads and writes as many bytes together as the codec. second: the codec. ratio: the codec's share of
/// the copy's bandwidth.
template <int Block, class Codec, class Work>
void beside_copy(benchmark::State& state, extents shape, int threads, Codec codec, Work const& work) {
  host_executor exec{{.threads = threads}};
  auto values = bench::gaussian_matrix(exec, shape, 1, 0.02F);
  blockwise<Codec, Block> kept{{1, shape.size()}, codec};
  quantize(exec, values.data(), kept.view());
  index_t const bytes = values.bytes() + kept.bytes(), copied = bytes / 2;
  buffer<std::uint8_t> from{copied}, to{copied};
  bench::compare(
      state, [&] { parallel_memcpy(exec, to.data(), from.data(), copied); },
      [&] { work(exec, values.data(), kept.view()); });
  state.counters["bytes_an_element"] = static_cast<double>(bytes) / static_cast<double>(shape.size());
}

void add_codecs(index_t size, int threads) {
  auto const add = [=]<int Block>(std::string const& name, auto codec, std::integral_constant<int, Block>) {
    auto const add_one = [&](std::string const& verb, auto const& work) {
      auto const full = bench::path({verb, name, bench::setting("size", size), bench::setting("threads", threads)});
      auto const body = [=](benchmark::State& state) { beside_copy<Block>(state, {size, size}, threads, codec, work); };
      benchmark::RegisterBenchmark(full.c_str(), body)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(41);
    };
    add_one("nearest", [](auto& exec, float const* values, auto codes) { quantize(exec, values, codes); });
    add_one("dequantize", [](auto& exec, float* values, auto codes) { dequantize(exec, codes, values); });
    if constexpr (decltype(codec)::dithers)
      add_one("stochastic", [](auto& exec, float const* values, auto codes) {
        quantize_stochastic(exec, values, codes, {.seed = 1});
      });
  };
  add("int8", codec::affine<8>{}, std::integral_constant<int, 256>{});
  add("int4", codec::affine<4>{}, std::integral_constant<int, 256>{});
  add("symmetric8", codec::symmetric<8>{}, std::integral_constant<int, 256>{});
  add("dynamic8", codec::dynamic8<>{}, std::integral_constant<int, 256>{});
  add("dynamic8_unsigned", codec::dynamic8<>{signedness::nonnegative}, std::integral_constant<int, 256>{});
  add("dynamic4", codec::book4<>{codec::book4_name::dynamic}, std::integral_constant<int, 128>{});
  add("nf4", codec::book4<>{}, std::integral_constant<int, 64>{});
  add("fp8", codec::fp8<>{}, std::integral_constant<int, 256>{});
}

}  // namespace

int main(int argc, char** argv) {
  for (index_t const size : {2048, 4096})
    for (int const threads : {1, 2}) add_codecs(size, threads);
  return bench::run(argc, argv);
}
