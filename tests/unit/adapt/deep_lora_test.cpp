#include "lowrank/adapt/deep_lora.hpp"

#include <doctest/doctest.h>

#include "lowrank/adapt/recovered_rank.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace deep_lora_test {

using namespace lowrank;
using namespace lowrank_test;
using adapt::deep_lora;
using adapt::deep_lora_form;

namespace {

constexpr rng_key key{.seed = 11, .step = 0, .tensor = 2, .purpose = rng_purpose::initialisation};

struct fitted {
  double error{};   ///< ‖ΔW - Φ‖ / ‖Φ‖ at the end
  int halfway{-1};  ///< the update after which it was first below a half
};

/// Gradient descent on ‖ΔW - Φ‖² / 2, with every tensor's own rate.
template <class Adapter>
fitted fit(host_executor& exec, Adapter& a, matrix<float> const& target, float rate, int updates) {
  extents const shape = target.shape();
  matrix<float> x{shape.cols, shape.cols}, y{shape.cols, shape.rows};
  fill_identity(exec, x.view());
  std::vector<matrix<float>> gradients;
  std::vector<matrix_view<float>> views;
  for (auto const& one : a.tensors()) gradients.emplace_back(one.values.shape());
  for (auto& one : gradients) views.push_back(one.view());
  std::vector<float> kept(static_cast<std::size_t>(a.kept_size(shape.cols)));
  exec.reserve(a.workspace_bytes(shape.cols));
  fitted out;
  for (int step = 0; step <= updates; ++step) {
    fill(exec, y.view(), 0.0F);
    a.forward(exec, x.view(), kept, y.view());
    axpy(exec, -1.0F, target.view().t(), y.view());
    out.error = std::sqrt(squared_norm_of(y.view()) / squared_norm_of(target.view()));
    if (out.halfway < 0 && out.error < 0.5) out.halfway = step;
    if (step == updates) break;
    a.backward(exec, x.view(), kept, y.view(), views, {});
    std::size_t number = 0;
    for (auto const& one : a.tensors()) axpy(exec, -rate * one.rate, gradients[number++].view(), one.values);
  }
  return out;
}

}  // namespace

TEST_SUITE("Deep LoRA") {
  TEST_CASE("numbers of the forms") {
    extents const shape{100, 60};
    CHECK(deep_lora{.rank = 8}.parameter_count(shape) == 8 * 160 + 64);
    CHECK(deep_lora{.rank = 8, .depth = 2}.parameter_count(shape) == 8 * 160);
    CHECK(deep_lora{.rank = 8, .form = deep_lora_form::compressed}.parameter_count(shape) == 8 * 160 + 3 * 64);
    CHECK(deep_lora{.rank = 8, .gamma = 0, .form = deep_lora_form::compressed}.parameter_count(shape) == 3 * 64);
    CHECK(deep_lora{.rank = 8, .form = deep_lora_form::scaled_chain}.parameter_count(shape) == 8 * 160 + 64);
  }

  TEST_CASE("a chain begins with small orthonormal factors, all of them different") {
    host_executor exec{{.threads = 2}};
    matrix<float> w{20, 31};
    auto const a = deep_lora{.rank = 6, .depth = 4, .init_scale = 0.01F}.make<float>(exec, w.view(), key);
    auto const all = a.tensors();
    REQUIRE(all.size() == 4);
    std::vector<float> corners;
    for (auto const& one : all) {
      CAPTURE(one.name);
      CHECK(one.rate == 1);
      auto q = copy_of(one.values.rows >= one.values.cols ? one.values : one.values.t());
      for (index_t e = 0; e < q.shape().size(); ++e) q.data()[e] *= 100;
      CHECK(departure_from_orthonormal(q.view()) <= 1e-5);
      for (float const corner : corners) CHECK(q(0, 0) != corner);
      corners.push_back(q(0, 0));
    }
    CHECK(all.front().name == "W1");
    CHECK(all.front().values.shape() == extents{6, 31});
    CHECK(all.back().name == "W4");
    CHECK(all.back().values.shape() == extents{20, 6});
  }

  TEST_CASE("the chain of the fork: A uniform, inner factors I, B = 0, scale alpha / r^(L - 1)") {
    host_executor exec{{.threads = 2}};
    matrix<double> w{20, 31};
    auto a = deep_lora{.rank = 3, .alpha = 6, .form = deep_lora_form::scaled_chain}.make<double>(exec, w.view(), key);
    auto const all = a.tensors();
    REQUIRE(all.size() == 3);
    double largest = 0;
    for (index_t e = 0; e < all[0].values.size(); ++e) largest = std::max(largest, std::abs(all[0].values.data[e]));
    CHECK(largest <= 1 / std::sqrt(31.0));
    CHECK(largest > 0.9 / std::sqrt(31.0));
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 3; ++j) CHECK(all[1].values(i, j) == (i == j ? 1 : 0));
    CHECK(squared_norm_of(all[2].values) == 0);
    all[2].values(4, 1) = 1;
    matrix<double> change{20, 31};
    a.add_to(exec, 1, change.view());
    for (index_t j = 0; j < 31; ++j) CHECK(change(4, j) == doctest::Approx(6.0 / 9 * all[0].values(1, j)));
  }

  TEST_CASE("compression: orthonormal outer factors, singular vectors of the gradient crossed with random ones") {
    host_executor exec{{.threads = 2}};
    for (extents const shape : {extents{20, 31}, extents{31, 20}, extents{8, 8}}) {
      CAPTURE(shape);
      index_t const r = 8;
      auto const gradient = with_spectrum(shape, {5, 4, 3, 2}, 21);
      matrix<float> w{shape};
      deep_lora const settings{.rank = r, .gamma = 0.25F, .form = deep_lora_form::compressed};
      auto const a = settings.make<float>(exec, w.view(), key, gradient.view());
      auto const all = a.tensors();
      REQUIRE(all.size() == 5);
      CHECK(all.front().name == "right");
      CHECK(all.back().name == "left");
      CHECK(all.front().rate == 0.25F);
      CHECK(all.back().rate == 0.25F);
      auto const right = all.front().values.t(), left = all.back().values;
      CHECK(departure_from_orthonormal(right) <= 1e-5);
      CHECK(departure_from_orthonormal(left) <= 1e-5);
      for (std::size_t l = 1; l < 4; ++l) {
        CHECK(all[l].rate == 1);
        for (index_t i = 0; i < r; ++i)
          for (index_t j = 0; j < r; ++j) CHECK(all[l].values(i, j) == (i == j ? settings.init_scale : 0.0F));
      }
      // The last half of `left` and the first of `right` hold the gradient, the others nothing of it.
      double const energy = squared_norm_of(gradient.view());
      CHECK(captured_energy(left.col_range(4, 8), gradient.view()) == doctest::Approx(energy).epsilon(1e-5));
      CHECK(captured_energy(left.col_range(0, 4), gradient.view()) <= 1e-5 * energy);
      CHECK(captured_energy(right.col_range(0, 4), gradient.view().t()) == doctest::Approx(energy).epsilon(1e-5));
      CHECK(captured_energy(right.col_range(4, 8), gradient.view().t()) <= 1e-5 * energy);
    }
  }

  TEST_CASE("a gradient given by its factors is the gradient") {
    host_executor exec{{.threads = 2}};
    auto const dy = random_matrix({40, 12}, 1), x = random_matrix({40, 17}, 2);
    matrix<float> g{12, 17}, w{12, 17};
    multiply(exec, 1.0F, dy.view().t(), x.view(), 0.0F, g.view());
    deep_lora const settings{.rank = 6, .form = deep_lora_form::compressed};
    auto const dense = settings.make<float>(exec, w.view(), key, g.view());
    auto const factored = settings.make<float>(exec, w.view(), key, outer_product<>{dy.view(), x.view()});
    for (std::size_t i : {0, 4})
      CHECK(largest_difference(dense.tensors()[i].values, factored.tensors()[i].values) <= 1e-3);
  }

  TEST_CASE("compressed by one gradient it finds a target of low rank with frozen outer factors") {
    host_executor exec{{.threads = 2}};
    extents const shape{36, 28};
    auto const target = with_spectrum(shape, {8, 6}, 3);
    auto gradient = copy_of(target.view());  // of ‖ΔW - Φ‖² / 2 at ΔW = 0
    scale(exec, -1.0F, gradient.view());
    matrix<float> w{shape};
    constexpr int updates = 1000;
    deep_lora settings{.rank = 4, .init_scale = 0.03F, .gamma = 0, .form = deep_lora_form::compressed};
    auto frozen = settings.make<float>(exec, w.view(), key, gradient.view());
    CHECK(fit(exec, frozen, target, 0.02F, updates).error <= 1e-4);
    CHECK(adapt::recovered_rank(exec, frozen) == 2);
    // Twice the rank that is needed does no harm.
    settings.rank = 8;
    auto wide = settings.make<float>(exec, w.view(), key, gradient.view());
    CHECK(fit(exec, wide, target, 0.02F, updates).error <= 1e-4);
    CHECK(adapt::recovered_rank(exec, wide) == 2);
    // By a gradient of something else it finds nothing.
    auto const other = random_matrix(shape, 9);
    settings.rank = 4;
    auto lost = settings.make<float>(exec, w.view(), key, other.view());
    CHECK(fit(exec, lost, target, 0.02F, updates).error > 0.5);
  }

  TEST_CASE("compressed it learns as fast as the chain of full width, a random narrow one later") {
    host_executor exec{{.threads = 2}};
    constexpr index_t d = 40;
    auto const target = with_spectrum({d, d}, {8, 6}, 3);
    auto gradient = copy_of(target.view());
    scale(exec, -1.0F, gradient.view());
    matrix<float> w{d, d};
    deep_lora settings{.rank = d, .init_scale = 0.01F};
    auto full = settings.make<float>(exec, w.view(), key);
    settings.rank = 4;
    auto narrow = settings.make<float>(exec, w.view(), key);
    settings.form = deep_lora_form::compressed;
    settings.gamma = 0;
    auto compressed = settings.make<float>(exec, w.view(), key, gradient.view());
    constexpr int updates = 2500;
    auto const [full_error, full_at] = fit(exec, full, target, 0.01F, updates);
    auto const [error, at] = fit(exec, compressed, target, 0.01F, updates);
    auto const [narrow_error, narrow_at] = fit(exec, narrow, target, 0.01F, updates);
    CHECK(full_error <= 1e-4);
    CHECK(error <= 1e-4);
    CHECK(std::abs(at - full_at) <= full_at / 10);
    CHECK(narrow_at < 0);
    CHECK(narrow_error > 0.9);
  }

  TEST_CASE("what is refused") {
    host_executor exec{{.threads = 1}};
    extents const shape{9, 14};
    matrix<float> w{shape}, gradient = random_matrix(shape, 1), other{14, 9};
    deep_lora const compressed{.rank = 4, .form = deep_lora_form::compressed};
    CHECK_THROWS_AS(std::ignore = compressed.make<float>(exec, w.view(), key), argument_error);
    CHECK_THROWS_AS(std::ignore = compressed.make<float>(exec, w.view(), key, other.view()), shape_error);
    gradient(2, 3) = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS(std::ignore = compressed.make<float>(exec, w.view(), key, gradient.view()), argument_error);
    CHECK_THROWS_AS((deep_lora{.rank = 3, .form = deep_lora_form::compressed}.check(shape)), shape_error);
    CHECK_NOTHROW((deep_lora{.rank = 3}.check(shape)));
    for (index_t const depth : {1, 17})
      CHECK_THROWS_AS((deep_lora{.rank = 4, .depth = depth}.check(shape)), argument_error);
    CHECK_THROWS_AS((deep_lora{.rank = 4, .init_scale = 0}.check(shape)), argument_error);
    CHECK_THROWS_AS((deep_lora{.rank = 4, .gamma = -1}.check(shape)), argument_error);
    CHECK_THROWS_AS((deep_lora{.rank = 4, .form = static_cast<deep_lora_form>(3)}.check(shape)), argument_error);
  }
}

TEST_SUITE("recovered rank") {
  TEST_CASE("singular values of a change that is never formed") {
    host_executor exec{{.threads = 2}};
    std::vector<double> const wanted{3, 1, 1e-3, 1e-6, 0};
    auto const u = orthonormal_columns(20, 5, 1), v = orthonormal_columns(31, 5, 2),
               turn = orthonormal_columns(5, 5, 3);
    adapt::low_rank_factors<double> pair{matrix<double>{20, 5}, matrix<double>{5, 31}};
    // U S Q and Qᵀ Vᵀ: neither factor shows the values.
    for (index_t k = 0; k < 5; ++k)
      for (index_t c = 0; c < 5; ++c) {
        for (index_t i = 0; i < 20; ++i) pair.left(i, c) += u(k, i) * wanted[static_cast<std::size_t>(k)] * turn(k, c);
        for (index_t j = 0; j < 31; ++j) pair.right(c, j) += turn(k, c) * v(k, j);
      }
    auto const found = adapt::change_spectrum(exec, pair);
    REQUIRE(found.values.size() == 5);
    for (std::size_t k = 0; k < 4; ++k) CHECK(found.values[k] == doctest::Approx(wanted[k]).epsilon(1e-3));
    CHECK(found.values[4] <= 1e-7);
    CHECK(found.energy() == doctest::Approx(10 + 1e-6 + 1e-12));
    CHECK_NOTHROW(found.check());
    CHECK(adapt::recovered_rank(found) == 2);
    CHECK(adapt::recovered_rank(found, {.relative = 1e-4}) == 3);
    CHECK(adapt::recovered_rank(found, {.relative = 0, .absolute = 2}) == 1);
    CHECK(adapt::recovered_rank(found, {.absolute = 10}) == 0);
    CHECK(adapt::recovered_rank(spectrum{.shape = {20, 31}, .values = {0, 0}}) == 0);
  }
}

}  // namespace deep_lora_test
