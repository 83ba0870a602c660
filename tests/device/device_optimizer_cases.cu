#include "device/device_machine.cuh"
#include "device/optimizer_cases.hpp"
#include "device/sides.hpp"

lowrank_test::side lowrank_test::device_optimizer_cases() {
  using device = machine<lowrank::cuda_executor>;
  return on_machine(optimizer_cases<device>::all());
}
