// LoRA-XS: frozen bases with signs of their own, and an R that knows them.
#include <doctest/doctest.h>

#include "lowrank/adapt/lora_xs.hpp"
#include "support/adapters.hpp"
#include "support/executors.hpp"

namespace lora_xs_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("lora_xs");

matrix<float> weights(extents shape = {26, 34}) { return with_spectrum(shape, power_law(20, 0.7), 5); }

TEST_CASE_TEMPLATE("bases are the leading singular triplets, with signs that do not depend on luck", E,
                   LOWRANK_TEST_EXECUTORS) {
  E exec{{.threads = 2}};
  for (extents const shape : {extents{26, 34}, {34, 26}}) {
    constexpr index_t r = 6;
    auto w = weights(shape);
    auto const before = copy_of(w.view());
    auto const adapter = make_adapter(exec, lora_xs{.rank = r}, w.view(), {.seed = 1});
    CHECK(same_bits(w, before));
    CHECK(departure_from_orthonormal(adapter.b()) < 2e-6);
    auto const s = power_law(20, 0.7);
    for (index_t k = 0; k < r; ++k) {
      double length = 0;
      for (index_t j = 0; j < shape.cols; ++j) length += std::pow(static_cast<double>(adapter.a()(k, j)), 2);
      CHECK(std::sqrt(length) == doctest::Approx(s[static_cast<std::size_t>(k)]).epsilon(1e-3));
      float most = 0;
      for (index_t i = 0; i < shape.rows; ++i)
        if (std::abs(adapter.b()(i, k)) > std::abs(most)) most = adapter.b()(i, k);
      CHECK(most > 0);
    }
    // B A is W's best approximation, whose error is known.
    auto rest = plain_product(adapter.b(), adapter.a());
    for (index_t e = 0; e < shape.size(); ++e) rest.data()[e] -= static_cast<double>(w.data()[e]);
    CHECK(std::sqrt(squared_norm_of(rest.view())) == doctest::Approx(std::sqrt(energy(s, r, 20))).epsilon(1e-3));
    // Another sketch finds the same bases, signs included.
    auto const other = make_adapter(exec, lora_xs{.rank = r}, w.view(), {.seed = 99});
    CHECK(largest_difference(adapter.b(), other.b()) < 0.05);
  }
}

TEST_CASE("R is tiny at first, so the outputs are those of the base to 1e-4") {
  host_executor exec;
  auto w = weights();
  auto const adapter = make_adapter(exec, lora_xs{.rank = 8, .alpha = 8}, w.view(), {.seed = 1});
  double const spread = std::sqrt(squared_norm_of(adapter.core()) / 64);
  CHECK(spread * 1e5 == doctest::Approx(1).epsilon(0.15));
  auto const x = random_matrix({5, 34}, 2);
  auto const y = change_of_outputs(exec, adapter, x.view());
  CHECK(squared_norm_of(y.view()) > 0);
  CHECK(std::sqrt(squared_norm_of(y.view())) <
        1e-4 * std::sqrt(squared_norm_of(plain_product(x.view(), w.view().t()).view())));
}

TEST_CASE("ΔW = s B R A everywhere; gradients are those of finite differences") {
  host_executor exec{{.threads = 2}};
  auto w = random_values<double>({7, 9}, 2);
  for (auto const rule : {scaling::rank, scaling::rank_root}) {
    auto adapter = make_adapter<double>(exec, lora_xs{.rank = 4, .alpha = 3, .scale = rule}, w.view(), {.seed = 1});
    stir(adapter, 3);
    auto const turned = plain_product(adapter.b(), adapter.core());
    auto wanted = plain_product(turned.view(), adapter.a());
    for (index_t e = 0; e < 63; ++e) wanted.data()[e] *= rule == scaling::rank ? 0.75 : 1.5;
    CHECK(largest_difference(change_of_weights(exec, adapter).view(), wanted.view()) < 1e-12);
    auto const pair = adapter.factors(exec);
    CHECK(largest_difference(plain_product(pair.left.view(), pair.right.view()).view(), wanted.view()) < 1e-12);
    auto const x = random_values<double>({6, 9}, 8);
    auto const y = change_of_outputs(exec, adapter, matrix_view<double const>(x.view()));
    CHECK(largest_difference(y.view(), plain_product(x.view(), wanted.view().t()).view()) < 1e-12);
    CHECK(gradient_error(exec, adapter, 6) < 1e-8);
  }
}

TEST_CASE("r² numbers: Mistral 7B with r = 64 on seven matrices of 32 layers trains 917 504") {
  host_executor exec;
  CHECK(7 * 32 * lora_xs{.rank = 64}.parameter_count({4096, 14336}) == 917504);
  auto w = weights();
  auto const adapter = make_adapter(exec, lora_xs{.rank = 5}, w.view(), {});
  CHECK(adapter.parameter_count() == 25);
  CHECK(adapter.bytes() == 4 * (25 + 5 * (26 + 34)));
  host_executor tight{{.threads = 1, .scratch_bytes = adapter.workspace_bytes(9)}};
  std::vector<float> kept(45);
  matrix<float> y{9, 26}, dx{9, 34}, dr{5, 5};
  auto const x = random_matrix({9, 34}, 2);
  std::vector<matrix_view<float>> const gradients{dr.view()};
  adapter.forward(tight, x.view(), kept, y.view());
  adapter.backward(tight, x.view(), kept, y.view(), gradients, dx.view());
  CHECK(tight.arena().peak() == adapter.workspace_bytes(9));
}

TEST_CASE("a saved R is only taken between the bases it was trained with") {
  host_executor exec;
  auto w = weights();
  lora_xs const settings{.rank = 5};
  auto const trained = make_adapter(exec, settings, w.view(), {.seed = 4});
  auto again = make_adapter(exec, settings, w.view(), {.seed = 4});
  CHECK(again.basis_hash() == trained.basis_hash());
  auto const core = random_matrix({5, 5}, 1);
  again.load(exec, core.view(), trained.basis_hash());
  CHECK(largest_difference(again.core(), core.view()) == 0);

  // One component with its sign turned: an even number of signs, which a hash must not overlook.
  matrix<float> a = copy_of(trained.a()), b = copy_of(trained.b());
  for (index_t j = 0; j < 34; ++j) a(2, j) = -a(2, j);
  for (index_t i = 0; i < 26; ++i) b(i, 2) = -b(i, 2);
  lora_xs_adapter<float> turned{settings, copy_of(a.view()), copy_of(b.view())};
  CHECK(turned.basis_hash() != trained.basis_hash());
  CHECK_THROWS_WITH_AS(turned.load(exec, core.view(), trained.basis_hash()),
                       doctest::Contains("lora_xs_R was trained between other bases"), argument_error);
  CHECK(squared_norm_of(turned.core()) == 0);
  // Bases that were saved are as good as found ones.
  lora_xs_adapter<float> restored{settings, copy_of(trained.a()), copy_of(trained.b())};
  restored.load(exec, core.view(), trained.basis_hash());
  CHECK(largest_difference(change_of_weights(exec, restored).view(), change_of_weights(exec, again).view()) == 0);
  auto bad = copy_of(core.view());
  bad(0, 0) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(restored.load(exec, bad.view(), trained.basis_hash()), argument_error);
  CHECK_THROWS_AS(restored.load(exec, a.view(), trained.basis_hash()), shape_error);
  CHECK(largest_difference(restored.core(), core.view()) == 0);
}

TEST_CASE("what cannot be meant is refused") {
  host_executor exec;
  CHECK_THROWS_AS(lora_xs{.rank = 27}.check({26, 34}), shape_error);
  CHECK_THROWS_AS(lora_xs{.alpha = 0}.check({64, 64}), argument_error);
  CHECK_THROWS_AS(lora_xs{.deviation = -1}.check({64, 64}), argument_error);
  CHECK_THROWS_AS(lora_xs{.search = {.oversampling = -1}}.check({64, 64}), argument_error);
  CHECK_THROWS_AS((lora_xs_adapter<float>{lora_xs{.rank = 4}, matrix<float>{5, 30}, matrix<float>{30, 5}}),
                  shape_error);
}

TEST_SUITE_END();

}  // namespace

}  // namespace lora_xs_test
