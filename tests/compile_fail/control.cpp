// expect-success
// The same calls as in the files beside this one, used rightly: if this does not compile, their errors prove nothing.
#include "lowrank/core/view.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"

void product(lowrank::host_executor& exec, lowrank::matrix_view<float const> a, lowrank::matrix_view<float> c) {
  lowrank::multiply(exec, 1.0F, a, a.t(), 0.0F, c);
}
float element(lowrank::matrix_view<float> host) { return host(0, 0); }
