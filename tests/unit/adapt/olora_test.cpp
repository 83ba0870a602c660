// OLoRA: what is taken out of the base, and how it is put back.
#include <doctest/doctest.h>

#include "lowrank/adapt/olora.hpp"
#include "support/adapters.hpp"
#include "support/executors.hpp"

namespace olora_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("olora");

TEST_CASE_TEMPLATE("W = Q R, unpivoted: B is orthonormal and spans the first columns, A is triangular, the sum is W", E,
                   LOWRANK_TEST_EXECUTORS) {
  E exec{{.threads = 2}};
  for (extents const shape : {extents{30, 20}, {20, 30}, {12, 12}})
    for (float const alpha : {4.0F, 10.0F}) {
      constexpr index_t r = 5;
      auto const original = random_matrix(shape, 3);
      auto w = copy_of(original.view());
      auto const adapter = make_adapter(exec, olora{.rank = r, .alpha = alpha}, w.view(), {.seed = 1});
      auto const [a, b] = adapter.tensors();
      CHECK(departure_from_orthonormal(b.values) < 1e-6);
      for (index_t k = 0; k < r; ++k) {
        CHECK(a.values(k, k) > 0);
        for (index_t j = 0; j < k; ++j) CHECK(std::abs(a.values(k, j)) < 1e-5);
      }
      // The first r columns of W are B times the first r columns of A.
      auto const head = plain_product(b.values, a.values.col_range(0, r));
      CHECK(largest_difference(head.view(), original.view().col_range(0, r)) < 1e-5);
      auto sum = copy_of(w.view());
      adapter.add_to(exec, 1, sum.view());
      CHECK(largest_difference(sum.view(), original.view()) < 2e-6 * static_cast<double>(alpha));
      CHECK(largest_difference(w.view(), original.view()) > 0.1);
    }
}

TEST_CASE("a base whose first columns depend on each other still sums up to what it was") {
  host_executor exec;
  auto original = random_matrix({16, 14}, 3);
  for (index_t i = 0; i < 16; ++i) original(i, 1) = 2 * original(i, 0), original(i, 2) = 0;
  auto w = copy_of(original.view());
  auto const adapter = make_adapter(exec, olora{.rank = 4, .alpha = 4}, w.view(), {.seed = 1});
  CHECK(departure_from_orthonormal(adapter.tensors()[1].values) < 1e-6);
  adapter.add_to(exec, 1, w.view());
  CHECK(largest_difference(w.view(), original.view()) < 1e-5);
}

TEST_CASE("trained, it is a change of rank 2r of the original matrix, for those who have that") {
  host_executor exec;
  auto const original = random_values<double>({15, 22}, 3);
  matrix<double> w{original.shape()};
  std::copy(original.data(), original.data() + original.shape().size(), w.data());
  auto adapter = make_adapter<double>(exec, olora{.rank = 4, .alpha = 6}, w.view(), {.seed = 1});
  auto const zero = adapter.factors_for_original(exec);
  CHECK(zero.rank() == 8);
  CHECK(largest_difference(plain_product(zero.left.view(), zero.right.view()).view(), matrix<double>{15, 22}.view()) <
        1e-12);
  stir(adapter, 5);
  auto const pair = adapter.factors_for_original(exec), relative = adapter.factors(exec);
  CHECK(pair.shape() == original.shape());
  CHECK(relative.rank() == 4);
  auto on_original = plain_product(pair.left.view(), pair.right.view());
  auto on_changed = plain_product(relative.left.view(), relative.right.view());
  for (index_t e = 0; e < original.shape().size(); ++e)
    on_original.data()[e] += original.data()[e], on_changed.data()[e] += w.data()[e];
  CHECK(largest_difference(on_original.view(), on_changed.view()) < 1e-12);
  adapter.add_to(exec, 1, w.view());
  CHECK(largest_difference(on_original.view(), w.view()) < 1e-12);
}

TEST_CASE("gradients, counts, and what forgetting the start costs") {
  host_executor exec;
  auto w = random_values<double>({6, 9}, 3);
  auto adapter = make_adapter<double>(exec, olora{.rank = 3, .alpha = 5, .dropout = 0.25F}, w.view(), {.seed = 1});
  CHECK(gradient_error(exec, adapter, 8, {.mode = pass::training, .step = 2}) < 1e-8);
  CHECK(adapter.parameter_count() == 3 * 15);
  CHECK(adapter.bytes() == 2 * 8 * 3 * 15);

  auto light = make_adapter<double>(exec, olora{.rank = 3, .start = start_factors::dropped}, w.view(), {.seed = 1});
  CHECK(light.bytes() == 8 * 3 * 15);
  CHECK_THROWS_AS((void)light.factors_for_original(exec), state_error);
}

TEST_CASE("a refused matrix is as it was") {
  host_executor exec;
  auto w = random_matrix({6, 9}, 3);
  auto const before = copy_of(w.view());
  CHECK_THROWS_AS((void)make_adapter(exec, olora{.rank = 7}, w.view(), {}), shape_error);
  CHECK_THROWS_AS((void)make_adapter(exec, olora{.rank = 3, .alpha = -1}, w.view(), {}), argument_error);
  CHECK(same_bits(w, before));
  w(5, 8) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS((void)make_adapter(exec, olora{.rank = 3}, w.view(), {}), argument_error);
  w(5, 8) = before(5, 8);
  CHECK(same_bits(w, before));
}

TEST_SUITE_END();

}  // namespace

}  // namespace olora_test
