// Eigen's decompositions for host_executor, compiled once for all tests (decompositions.cpp). Include this instead of
// linalg/host/eigen_decompositions.hpp.
#pragma once

#include "lowrank/linalg/host/decompositions.hpp"

namespace lowrank {

extern template svd_status exact_svd(host_executor&, matrix_view<float const>, svd_output<> const&);
extern template svd_status exact_singular_values(host_executor&, matrix_view<float const>, double*);
extern template void householder_qr(host_executor&, matrix_view<float const>, matrix_view<float>);

}  // namespace lowrank
