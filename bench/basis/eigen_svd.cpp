#include "lowrank/core/buffer.hpp"
#include "lowrank/linalg/host/eigen_decompositions.hpp"

namespace lowrank::bench {

void eigen_svd(matrix_view<float const> g, matrix<float>& u) {
  host_executor exec{};
  auto const status = exact_svd(exec, g, svd_output<>{.u = u.view()});
  require(status == svd_status::converged, "bench::eigen_svd", "needs singular vectors, got ", status);
}

}  // namespace lowrank::bench
