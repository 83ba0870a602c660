// Eigen's bidiagonalisation, compiled apart.
#include "lowrank/linalg/host/eigen_decompositions.hpp"

namespace lowrank {

template svd_status exact_singular_values(host_executor&, matrix_view<float const>, double*);

}  // namespace lowrank
