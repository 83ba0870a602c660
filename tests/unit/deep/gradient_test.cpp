#include "lowrank/deep/gradient.hpp"

#include <doctest/doctest.h>

#include "problems.hpp"

namespace gradient_test {

namespace {

using namespace lowrank_test;
using lowrank::host_executor;

deep::deep_matrix<double> random_chain(std::vector<index_t> const& sides, bool offsets) {
  std::vector<deep::layer<double>> factors;
  for (std::size_t k = 1; k < sides.size(); ++k) {
    factors.push_back({"X" + std::to_string(k), matrix<double>{sides[k], sides[k - 1]}});
    auto const values = random_matrix({sides[k], sides[k - 1]}, 40 + k);
    for (index_t e = 0; e < values.shape().size(); ++e)
      factors.back().values.data()[e] = 0.5 * static_cast<double>(values.data()[e]);
  }
  deep::deep_matrix<double> w{std::move(factors)};
  if (offsets) {
    w.add_offsets(0.3);
    for (std::size_t l = w.factor_count(); l < w.layer_count(); ++l)
      for (index_t e = 0; e < w.at(l).values.shape().size(); ++e)
        w.at(l).values.data()[e] = 0.1 * static_cast<double>(e % 5);
  }
  return w;
}

template <class Target>
void check_gradients(deep::deep_matrix<double>&& w, Target const& target, matrix<double> const& phi,
                     matrix<double> const& weight) {
  host_executor exec{{.threads = 2}};
  auto const expected_loss = [&] {
    auto const product = product_of(w);
    double sum = 0;
    for (index_t e = 0; e < phi.shape().size(); ++e)
      sum += weight.data()[e] * std::pow(product.data()[e] - phi.data()[e], 2);
    return sum / 2;
  };
  exec.reserve(deep::gradients_bytes(w, target));
  std::vector<matrix<double>> memory;
  std::vector<matrix_view<double>> out;
  for (std::size_t l = 0; l < w.layer_count(); ++l) memory.push_back(matrix<double>{w.at(l).values.shape()});
  for (auto& m : memory) out.push_back(m.view());
  double const value = deep::gradients(exec, w, target, std::span<matrix_view<double> const>(out));
  CHECK(value == doctest::Approx(expected_loss()).epsilon(1e-12));
  CHECK(deep::loss(exec, w, target) == doctest::Approx(value).epsilon(1e-14));
  double largest = 0;
  for (auto const& m : memory) largest = std::max(largest, std::sqrt(squared_norm_of(m.view())));
  for (std::size_t l = 0; l < w.layer_count(); ++l)
    for (index_t e = 0; e < w.at(l).values.shape().size(); e += 3) {
      double& x = w.at(l).values.data()[e];
      double const kept = x, h = 1e-5;
      x = kept + h;
      double const above = expected_loss();
      x = kept - h;
      double const below = expected_loss();
      x = kept;
      CHECK(std::abs((above - below) / (2 * h) - memory[l].data()[e]) < 2e-7 * largest);
    }
  // What is not asked for is not computed, and changes nothing of the rest.
  auto const first = copy_of(cast<float>(memory[0]).view());
  out[1] = {};
  std::ignore = deep::gradients(exec, w, target, std::span<matrix_view<double> const>(out));
  CHECK(same_bits(first, cast<float>(memory[0])));
}

TEST_CASE("gradients of a deep matrix equal finite differences") {
  for (auto const& sides : std::vector<std::vector<index_t>>{{9, 4, 7}, {7, 4, 4, 9}, {6, 5, 3, 4, 11}}) {
    extents const shape{sides.back(), sides.front()};
    auto const phi = low_rank_target(shape, 2, 3);
    matrix<double> ones{shape}, some{shape};
    lowrank::host_executor exec{{.threads = 1}};
    fill(exec, ones.view(), 1.0);
    auto list = observed<double>(phi, 0.4);
    for (std::size_t k = 0; k < list.size(); ++k) {
      list[k].weight = k % 3 == 0 ? 0.5 : 1.0;
      some(list[k].row, list[k].col) = list[k].weight;
    }
    for (bool const offsets : {false, true}) {
      check_gradients(random_chain(sides, offsets), deep::dense_target<double>{phi.view()}, phi, ones);
      check_gradients(random_chain(sides, offsets), deep::observations<double>{shape, list}, phi, some);
    }
  }
}

TEST_CASE("entries and panels are two routes to the same gradients") {
  extents const shape{300, 90};  // more than one panel
  auto const phi = low_rank_target(shape, 3, 20);
  deep::observations<double> const target{shape, observed<double>(phi, 0.5)};
  CHECK(deep::route_of(target, 64) == deep::residual_route::panels);
  CHECK(deep::route_of(target, 63) == deep::residual_route::entries);
  auto const w = random_chain({90, 64, 300}, true);
  host_executor exec{{.threads = 2}};
  exec.reserve(deep::gradients_bytes(w, target) + (1 << 20));
  auto const a = w.factor(1).values.view();
  matrix<double> b{90, 64}, rb{300, 64}, rta{90, 64}, rb2{300, 64}, rta2{90, 64}, p{300, 1}, p2{300, 1}, q{1, 90},
      q2{1, 90};
  copy(exec, w.factor(0).values.view(), b.view().t());
  deep::low_rank_view<double> const view{.a = a, .b = b.view(), .mean = 0.5};
  double const by_panels = deep::multiply_residual(
      exec, target, view, deep::residual_products<double>{rb.view(), rta.view(), p.view(), q.view()});
  double const by_entries = deep::detail::products_by_entries(
      exec, target, view, deep::residual_products<double>{rb2.view(), rta2.view(), p2.view(), q2.view()});
  CHECK(by_panels == doctest::Approx(by_entries).epsilon(1e-12));
  CHECK(largest_difference(rb.view(), rb2.view()) < 1e-9);
  CHECK(largest_difference(rta.view(), rta2.view()) < 1e-9);
  CHECK(largest_difference(p.view(), p2.view()) < 1e-9);
  CHECK(largest_difference(q.view(), q2.view()) < 1e-9);
}

TEST_CASE("a compressed gradient takes scratch of order |Ω| + (m + n) k, which is known before") {
  extents const shape{400, 500};
  auto const phi = low_rank_target(shape, 3, 20);
  deep::observations<double> const target{shape, observed<double>(phi, 0.1)};
  auto const w = random_chain({500, 6, 6, 6, 6, 400}, false);
  auto const bytes = deep::gradients_bytes(w, target);
  CHECK(bytes < 8 * (target.count() + 6 * 6 * (400 + 500) + 2000));
  host_executor exec{{.threads = 1, .scratch_bytes = bytes}};
  deep::trainer<double> by{exec, w};
  auto moved = random_chain({500, 6, 6, 6, 6, 400}, false);
  std::ignore = by.step(exec, moved, target, 1e-6);
  CHECK(exec.arena().peak() <= bytes);
  CHECK(exec.arena().peak() > bytes / 2);
}

TEST_SUITE("threads") {
  TEST_CASE("gradients do not depend on the number of threads") {
    extents const shape{120, 150};
    auto const phi = low_rank_target(shape, 3, 20);
    deep::observations<double> const target{shape, observed<double>(phi, 0.3)};
    auto const run = [&](int threads) {
      host_executor exec{{.threads = threads}};
      auto w = random_chain({150, 8, 8, 120}, true);
      exec.reserve(deep::trainer<double>::workspace_bytes(w, target));
      train(exec, w, target, 1e-5, 5, 0.1);
      return product_of(w);
    };
    CHECK(same_bits(run(1), run(3)));
  }
}

TEST_CASE("chains and gradients that do not fit are refused") {
  std::vector<deep::layer<double>> one;
  one.push_back({"X1", matrix<double>{3, 4}});
  CHECK_THROWS_AS(deep::deep_matrix<double>{std::move(one)}, lowrank::argument_error);
  std::vector<deep::layer<double>> two;
  two.push_back({"X1", matrix<double>{3, 4}});
  two.push_back({"X2", matrix<double>{5, 4}});
  CHECK_THROWS_AS(deep::deep_matrix<double>{std::move(two)}, lowrank::shape_error);
  auto const w = random_chain({9, 4, 7}, false);
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  matrix<double> const phi{9, 7};
  std::vector<matrix_view<double>> none(2);
  CHECK_THROWS_AS(std::ignore = deep::gradients(exec, w, deep::dense_target<double>{phi.view()},
                                                std::span<matrix_view<double> const>(none)),
                  lowrank::shape_error);
  none.pop_back();
  matrix<double> const right{7, 9};
  CHECK_THROWS_AS(std::ignore = deep::gradients(exec, w, deep::dense_target<double>{right.view()},
                                                std::span<matrix_view<double> const>(none)),
                  lowrank::shape_error);
}

}  // namespace

}  // namespace gradient_test
