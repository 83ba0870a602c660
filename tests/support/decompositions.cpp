#include "support/decompositions.hpp"

#include "lowrank/linalg/host/eigen_decompositions.hpp"

namespace lowrank {

template svd_status exact_svd(host_executor&, matrix_view<float const>, svd_output<> const&);
template svd_status exact_singular_values(host_executor&, matrix_view<float const>, double*);
template void householder_qr(host_executor&, matrix_view<float const>, matrix_view<float>);

}  // namespace lowrank
