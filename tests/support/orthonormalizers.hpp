// The orthonormalisers that laws are run on.
#pragma once

#include <type_traits>

#include "lowrank/linalg/householder.hpp"
#include "lowrank/linalg/polar.hpp"
#include "lowrank/linalg/sketched_cholesky.hpp"
#include "support/blind_executor.hpp"

namespace lowrank_test {

/// f(name, policy, bound on ‖QᵀQ - I‖_F in units of sqrt(l) eps).
template <class E, class F>
void for_each_orthonormalizer(F const& f) {
  namespace orthonormal = lowrank::orthonormal;
  f("cholesky", orthonormal::cholesky{}, 3.0);
  f("cholesky, last Gram mixed", orthonormal::cholesky{{.last_gram = lowrank::gram_kind::mixed}}, 3.0);
  f("cholesky in fp64", orthonormal::cholesky{{}}, 1.0);
  f("sketched", orthonormal::sketched_cholesky{}, 3.0);
  f("polar", orthonormal::polar{}, 3.0);
  if constexpr (!std::is_same_v<E, blind_executor>) f("householder", orthonormal::householder{}, 3.0);
}

}  // namespace lowrank_test
