#include "device/device_machine.cuh"
#include "device/factor_cases.hpp"

lowrank_test::factor_answer lowrank_test::device_factors(std::vector<float> const& values, lowrank::extents shape,
                                                         lowrank::index_t r, lowrank::factor_balance balance,
                                                         lowrank::output_bias bias) {
  machine<lowrank::cuda_executor> m;
  return factors_on(m, values, shape, r, balance, bias);
}
