#include <vector>

#include "basis/engine.hpp"

#if !defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/eigen_decompositions.hpp"
#endif

namespace lowrank::bench {

exact_basis decompose(engine& exec, matrix_view<float const> g) {
  index_t const k = std::min(g.rows, g.cols);
  exact_basis out{matrix<float>{g.rows, k}, std::vector<double>(static_cast<std::size_t>(k))};
  auto const status = exact_svd(exec, g, svd_output<>{.u = out.u.view(), .values = out.values.data()});
  require(status == svd_status::converged, "bench::decompose", "needs singular vectors, got ", status);
  return out;
}

}  // namespace lowrank::bench
