#include "device/linalg/algorithm_cases.hpp"
#include "device/linalg/factorization_cases.hpp"
#include "device/linalg/primitive_cases.hpp"
#include "support/executors.hpp"

namespace lowrank_test {

using host = machine<lowrank::host_executor>;

linalg_side host_primitives() { return primitive_cases<host>{}.take(); }
linalg_side host_factorizations() { return factorization_cases<host>{}.take(); }
linalg_side host_algorithms() { return algorithm_cases<host>{}.take(); }

}  // namespace lowrank_test
