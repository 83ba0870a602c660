// Products in the shapes of a low-rank step: R = PᵀG, W -= P N, and a square one to compare with.
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/shapes.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#endif

namespace {

using namespace lowrank;

enum class product { square, project, lift, gram };

template <class E>
void multiply_shape(benchmark::State& state, product kind, extents weight, index_t r, int threads) {
  E exec{{.threads = threads}};
  auto const m = std::min(weight.rows, weight.cols), n = std::max(weight.rows, weight.cols);
  auto const g = bench::gaussian_matrix(exec, {m, n}, 1), p = bench::gaussian_matrix(exec, {m, r}, 2, 0.02F);
  auto inner = bench::gaussian_matrix(exec, {r, n}, 3, 1e-3F), w = bench::gaussian_matrix(exec, {m, n}, 4);
  matrix<double> c{r, r};
  auto const md = static_cast<double>(m), nd = static_cast<double>(n), rd = static_cast<double>(r);
  double elements = md * nd + md * rd + rd * nd, flops = 2 * md * nd * rd;
  for (auto _ : state) {
    switch (kind) {
      case product::square:
        multiply(exec, 1.0F, g.view(), p.view(), 0.0F, w.view());
        break;
      case product::project:
        multiply(exec, 1.0F, g.view().t(), p.view(), 0.0F, inner.view().t());
        break;
      case product::lift:
        multiply(exec, -1.0F, p.view(), bench::read(inner), 1.0F, w.view()), elements += md * nd;
        break;
      case product::gram:
        gram(exec, p.view(), c.view()), elements = md * rd, flops = md * rd * rd;
        break;
    }
    benchmark::ClobberMemory();
  }
  bench::count_rates(state, 4 * elements, flops);
}

template <class E>
void add_products(std::string const& executor, int threads) {
  auto const end = bench::path({executor, bench::setting("threads", threads)});
  for (index_t const size : {512, 2048})
    bench::add(bench::path({"square", std::to_string(size), end}), [=](benchmark::State& s) {
      multiply_shape<E>(s, product::square, {size, size}, size, threads);
    });
  for (auto const& layer : bench::layers) {
    if (layer.weight.size() >= bench::huge || (threads == 1 && layer.weight.size() > 4 << 20)) continue;
    for (auto const& [name, kind] :
         {std::pair{"project", product::project}, {"lift", product::lift}, {"gram", product::gram}})
      bench::add(bench::path({name, bench::label(layer), bench::setting("rank", layer.rank()), end}),
                 [=](benchmark::State& s) { multiply_shape<E>(s, kind, layer.weight, layer.rank(), threads); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int const threads : {1, 2}) {
    bench::add_yardsticks(threads);
    add_products<host_executor>("eigen", threads);
#if defined(LOWRANK_HAS_BLAS)
    add_products<blas_executor>("blas", threads);
#endif
  }
  return bench::run(argc, argv);
}
