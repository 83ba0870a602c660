#include "device/device_machine.cuh"
#include "device/sides.hpp"
#include "device/tile_cases.hpp"

lowrank_test::side lowrank_test::device_tile_cases() {
  using device = machine<lowrank::cuda_executor>;
  return on_machine(tile_cases<device>::all());
}
