// expect-error: "no known conversion .*device_space.* to .*matrix_view<const float"
#include "lowrank/linalg/host/eigen_products.hpp"

using device_view = lowrank::matrix_view<float, lowrank::device_space>;

void product(lowrank::host_executor& exec, device_view a, device_view c) {
  lowrank::multiply(exec, 1.0F, a, a.t(), 0.0F, c);
}
