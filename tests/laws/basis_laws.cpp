// What every finder must obey, seen through the optimizers that use it.
#include <doctest/doctest.h>

#include <string>

#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace basis_laws {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("basis laws");

/// The bases an optimizer keeps, as facing columns, widened to fp32.
std::vector<matrix<float>> bases_of(any_optimizer const& o, extents weight, bool narrow) {
  std::vector<matrix<float>> out;
  index_t const r = o.rank();
  auto const add = [&](std::string const& name, bool rows) {
    std::vector<float> wide;
    if (narrow)
      for (auto const x : values_of<bf16>(o, name)) wide.push_back(x.value());
    else wide = values_of<float>(o, name);
    if (wide.empty()) return;
    index_t const m = static_cast<index_t>(wide.size()) / r;
    matrix<float> p{m, r};
    for (index_t i = 0; i < m; ++i)
      for (index_t c = 0; c < r; ++c) p(i, c) = wide[static_cast<std::size_t>(rows ? c * m + i : i * r + c)];
    out.push_back(std::move(p));
  };
  bool const right = values_of<side>(o, "side").at(0) == side::right;
  add("basis.values", right);
  add("basis.left.values", false);
  add("basis.right.values", true);
  for (auto const& p : out) CHECK((p.shape().rows == weight.rows || p.shape().rows == weight.cols));
  return out;
}

TEST_CASE("orthonormal as stored: 20 sqrt(r) eps in fp32, 2^-7 sqrt(r) in bf16") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 24}};
  for (std::string const finder :
       {"randomized", "randomized, power_iterations=0, oversampling=0", "svd", "stiefel", "warm",
        "warm, fresh=0, passes=1, align=nearest", "tracked", "tracked, fresh=4, align=signs"})
    for (bool const narrow : {false, true})
      for (std::string const side : {"std", "reverse_std", "left", "right", "full"})
        for (extents const shape :
             {extents{60, 90}, extents{90, 60}, extents{48, 48}, extents{1, 40}, extents{40, 1}, extents{70, 5}})
          for (index_t const rank : {1, 16, 500}) {
            CAPTURE(finder);
            CAPTURE(narrow);
            CAPTURE(side);
            CAPTURE(shape);
            auto o = make_named(exec, "galore_adamw",
                                "rank=" + std::to_string(rank) + ", update_proj_gap=2, proj_type=" + side +
                                    (narrow ? ", basis_format=bf16" : "") + ", finder=" + finder,
                                shape);
            auto w = random_matrix(shape, 1);
            for (index_t k = 0; k < 3; ++k)
              REQUIRE(o->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step(shape, k)), {}) ==
                      step_status::stepped);
            index_t const r = std::min({rank, shape.rows, shape.cols});
            CHECK(o->rank() == r);
            auto const bases = bases_of(*o, shape, narrow);
            REQUIRE(bases.size() == (side == "full" ? 2 : 1));
            for (auto const& p : bases)
              CHECK(departure_from_orthonormal(read(p)) <=
                    std::sqrt(static_cast<double>(r)) * (narrow ? 0x1p-7 : 20 * eps));
          }
}

TEST_CASE("the sides: what GaLore's names mean, also for square weights") {
  CHECK(choose_side(side_choice::keep_large, {9, 4}) == side::right);
  CHECK(choose_side(side_choice::keep_large, {4, 9}) == side::left);
  CHECK(choose_side(side_choice::keep_large, {4, 4}) == side::right);
  CHECK(choose_side(side_choice::keep_small, {9, 4}) == side::left);
  CHECK(choose_side(side_choice::keep_small, {4, 9}) == side::right);
  CHECK(choose_side(side_choice::keep_small, {4, 4}) == side::left);
  for (extents const shape : {extents{9, 4}, extents{4, 9}, extents{4, 4}}) {
    CHECK(choose_side(side_choice::left, shape) == side::left);
    CHECK(choose_side(side_choice::right, shape) == side::right);
  }
}

TEST_CASE("every finder but stiefel takes the leading directions of the gradient; and each side its own") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  extents const shape{40, 64};
  auto const g = with_spectrum(shape, {9, 7, 5, 4, 3, .01, .005, .001}, 3);
  for (std::string const finder :
       {"randomized", "randomized, sketch=gaussian", "svd", "stiefel", "warm", "warm, order=by_energy", "tracked"})
    for (std::string const side : {"left", "right", "full"}) {
      CAPTURE(finder);
      CAPTURE(side);
      auto o =
          make_named(exec, "galore_sgd", "rank=5, measure=at_refresh, proj_type=" + side + ", finder=" + finder, shape);
      auto w = random_matrix(shape, 1);
      o->step(exec, fp32_weight<>{w.view()}, read(g), {});
      double const all = squared_norm_of(read(g));
      auto const bases = bases_of(*o, shape, false);
      double share = 0;
      if (side == "full") {
        auto const inner = plain_product(plain_product(read(bases[0]).t(), read(g)).view(), read(bases[1]));
        share = squared_norm_of(inner.view()) / all;
      } else {
        share = captured_energy(read(bases[0]), side == "left" ? read(g) : read(g).t()) / all;
      }
      if (finder == "stiefel") CHECK(share < 0.6);
      else CHECK(share > 0.9999);
      CHECK(o->captured() == doctest::Approx(share).epsilon(1e-4));
    }
}

TEST_CASE("what is random depends on seed, tensor and call, and on nothing else") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  extents const shape{20, 30};
  auto const first = [&](std::string const& options, std::uint32_t tensor, index_t steps) {
    auto o = make_named(exec, "galore_sgd", "rank=4, finder=stiefel, update_proj_gap=1" + options, shape, tensor);
    auto w = random_matrix(shape, 1);
    for (index_t k = 0; k < steps; ++k)
      o->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step(shape, 10 * steps + k)), {});
    return values_of<float>(*o, "basis.values");
  };
  auto const base = first("", 1, 1);
  CHECK(first("", 1, 1) == base);
  CHECK(first("", 2, 1) != base);
  CHECK(first(", seed=7", 1, 1) != base);
  CHECK(first("", 1, 2) != base);
  auto full = make_named(exec, "galore_sgd", "rank=4, finder=stiefel, proj_type=full", {20, 20}, 1);
  auto w = random_matrix({20, 20}, 1);
  full->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step({20, 20}, 0)), {});
  auto const left = values_of<float>(*full, "basis.left.values"), right = values_of<float>(*full, "basis.right.values");
  CHECK(largest_difference(row_major(left.data(), {20, 4}), row_major(right.data(), {4, 20}).t()) > 0.1);
}

TEST_CASE("a gradient of lower rank than asked still gives an orthonormal basis, and the step is exact") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  extents const shape{30, 50};
  struct poor {
    std::string name;
    matrix<float> g;
  };
  std::vector<poor> cases;
  cases.push_back({"rank 2", with_spectrum(shape, {3, 1}, 5)});
  cases.push_back({"one entry", matrix<float>{shape}});
  cases.back().g(3, 4) = 2;
  cases.push_back({"equal columns", matrix<float>{shape}});
  for (index_t i = 0; i < 30; ++i)
    for (index_t j = 0; j < 50; ++j) cases.back().g(i, j) = static_cast<float>(i % 7) - 3;
  cases.push_back({"tiny", random_matrix(shape, 3)});
  for (index_t e = 0; e < shape.size(); ++e) cases.back().g.data()[e] *= 1e-18F;
  cases.push_back({"huge", with_spectrum(shape, {3, 1}, 5)});
  for (index_t e = 0; e < shape.size(); ++e) cases.back().g.data()[e] *= 1e18F;
  for (std::string const finder : {"randomized", "svd", "warm", "tracked", "tracked, fresh=4"})
    for (auto const& [name, g] : cases) {
      CAPTURE(finder);
      CAPTURE(name);
      auto o = make_named(exec, "galore_sgd", "rank=8, scale=1, update_proj_gap=1, finder=" + finder, shape);
      matrix<float> w{shape};
      for (int k = 0; k < 3; ++k)
        REQUIRE(o->step(exec, fp32_weight<>{w.view()}, read(g), {.learning_rate = 1}) == step_status::stepped);
      CHECK(departure_from_orthonormal(read(bases_of(*o, shape, false).at(0))) <= 20 * std::sqrt(8.0) * eps);
      // At rank <= 8 nothing of G is outside the subspace.
      for (float& x : std::span<float>{w.data(), static_cast<std::size_t>(shape.size())}) x /= -3;
      if (name != "tiny") CHECK(largest_difference(read(w), read(g)) <= 1e-5 * std::sqrt(squared_norm_of(read(g))));
    }
}

TEST_SUITE_END();

}  // namespace

}  // namespace basis_laws
