#include "device/sides.hpp"
#include "lowrank/lowrank.hpp"

#include "device/optimizer_cases.hpp"

lowrank_test::side lowrank_test::host_optimizer_cases() {
  using host = machine<lowrank::host_executor>;
  return on_machine(optimizer_cases<host>::all());
}
