// Products with few columns beside a BLAS: what a step at a small rank does with its gradient.
#include <cstdio>

#include "lowrank/linalg/host/eigen_products.hpp"
#include "support/numbers.hpp"
#include "support/program.hpp"
#include "support/turns.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include <cblas.h>

#include "lowrank/linalg/host/blas_executor.hpp"

namespace {

using namespace lowrank;

enum class product {
  project,        ///< R = PᵀG, P m x r: G is read against its rows
  project_right,  ///< R = G P, P n x r
};

[[nodiscard]] double relative_difference(matrix_view<float const> a, matrix_view<float const> b) {
  double difference = 0, size = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) {
      difference += std::pow(static_cast<double>(a(i, j)) - static_cast<double>(b(i, j)), 2);
      size += std::pow(static_cast<double>(a(i, j)), 2);
    }
  return std::sqrt(difference / size);
}

/// first: sgemm with threads of its own. second: ours. Both read the same row-major G. ratio: how many times as fast ours is.
void sgemm_and_ours(benchmark::State& state, product kind, extents g_shape, index_t r, int threads) {
  host_executor exec{{.threads = threads}};
  auto const g = bench::gaussian_matrix(exec, g_shape, 1);
  index_t const inner = kind == product::project ? g_shape.rows : g_shape.cols;
  index_t const outer = kind == product::project ? g_shape.cols : g_shape.rows;
  auto const p = bench::gaussian_matrix(exec, {inner, r}, 2);
  matrix<float> library{outer, r}, ours{outer, r};
  auto const size = [](index_t x) { return static_cast<int>(x); };
  int const before = openblas_get_num_threads != nullptr ? openblas_get_num_threads() : 0;
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
  bench::compare(
      state,
      [&] {
        cblas_sgemm(CblasRowMajor, kind == product::project ? CblasTrans : CblasNoTrans, CblasNoTrans, size(outer),
                    size(r), size(inner), 1.0F, g.data(), size(g_shape.cols), p.data(), size(r), 0.0F, library.data(),
                    size(r));
      },
      [&] { multiply(exec, 1.0F, kind == product::project ? g.view().t() : g.view(), p.view(), 0.0F, ours.view()); });
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(before);
  state.counters["difference"] = relative_difference(library.view(), ours.view());
}

}  // namespace

int main(int argc, char** argv) {
  for (int const threads : {1, 2})
    for (extents const shape : {extents{2048, 2048}, extents{2048, 5461}, extents{4096, 11008}})
      for (index_t const r : {4, 16, 32, 64})
        for (auto const& [name, kind] :
             {std::pair{"project", product::project}, {"project_right", product::project_right}})
          benchmark::RegisterBenchmark(
              bench::path({name, std::to_string(shape.rows) + "x" + std::to_string(shape.cols),
                           bench::setting("rank", r), bench::setting("threads", threads)})
                  .c_str(),
              [=, kind = kind](benchmark::State& s) { sgemm_and_ours(s, kind, shape, r, threads); })
              ->Iterations(25)
              ->UseRealTime();
  return bench::run(argc, argv);
}
#else
int main() {
  std::fputs("narrow_bench: built without a BLAS, so there is nothing to compare with\n", stderr);
  return 1;
}
#endif
