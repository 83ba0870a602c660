#include "device/device_machine.cuh"
#include "device/linalg/factorization_cases.hpp"
#include "device/linalg/primitive_cases.hpp"
#include "lowrank/linalg/cuda/decompositions.cuh"

namespace lowrank_test {

using device = machine<lowrank::cuda_executor>;

linalg_side device_primitives() { return primitive_cases<device>{}.take(); }
linalg_side device_factorizations() { return factorization_cases<device>{}.take(); }

std::vector<std::string> device_refusals() {
  using lowrank::device_space;
  lowrank::cuda_executor exec;
  lowrank::matrix<float, device_space> memory{40, 40};
  lowrank::matrix<double, device_space> wide{4, 4};
  auto const all = memory.view();
  auto const a = all.sub({0, 4, 0, 4}), tall = all.sub({0, 5, 0, 4});
  lowrank::matrix_view<float, device_space> const strided{memory.data(), 4, 4, 12, 3}, overlapping{memory.data(), 4, 4, 2, 1};
  std::vector<std::string> said;
  auto const refuses = [&](auto const& call) {
    try {
      call();
      said.emplace_back("nothing");
    } catch (lowrank::shape_error const& error) {
      said.emplace_back(error.what());
    }
  };
  refuses([&] { copy(exec, a, tall); });
  refuses([&] { multiply(exec, 1.0F, a, tall, 0.0F, a); });
  refuses([&] { multiply(exec, 1.0F, strided, a, 0.0F, a); });
  refuses([&] { multiply(exec, 1.0F, a, overlapping, 0.0F, a); });
  refuses([&] { multiply(exec, 1.0F, a, a, 0.0F, strided); });
  refuses([&] { gram(exec, lowrank::matrix_view<float const, device_space>(tall), wide.view().sub({0, 3, 0, 3})); });
  refuses([&] { factor_cholesky(exec, wide.view().row_range(0, 3), nullptr); });
  refuses([&] { invert_lower(exec, wide.view().t()); });
  refuses([&] { exact_svd(exec, tall, {.u = a}); });
  refuses([&] { householder_qr(exec, lowrank::matrix_view<float const, device_space>(tall), a); });
  return said;
}

}  // namespace lowrank_test
