#include "device/sides.hpp"
#include "device/tile_cases.hpp"

lowrank_test::side lowrank_test::host_tile_cases() {
  using host = machine<lowrank::host_executor>;
  return on_machine(tile_cases<host>::all());
}
