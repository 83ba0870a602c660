// A LoRA from what fine-tuning changed.
#include <doctest/doctest.h>

#include "lowrank/adapt/extract.hpp"
#include "support/adapters.hpp"
#include "support/executors.hpp"

namespace extract_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("extract");

constexpr extents shape{40, 56};

struct pair_of_models {
  matrix<float> base = random_matrix(shape, 1), tuned{shape};

  explicit pair_of_models(matrix<float> const& change) {
    for (index_t e = 0; e < shape.size(); ++e) tuned.data()[e] = base.data()[e] + change.data()[e];
  }
};

TEST_CASE_TEMPLATE("a change of low rank comes back whole", E, LOWRANK_TEST_EXECUTORS) {
  E exec{{.threads = 2}};
  auto const change = with_spectrum(shape, {3, 2, 1, 0.5}, 7);
  pair_of_models const models{change};
  auto const found = extract(exec, models.base.view(), models.tuned.view(), {.rank = 6});
  CHECK(found.adapter.scale() == 1);
  CHECK(found.change == doctest::Approx(std::sqrt(9 + 4 + 1 + 0.25)).epsilon(1e-4));
  CHECK(found.error < 1e-4);
  auto sum = copy_of(models.base.view());
  found.adapter.add_to(exec, 1, sum.view());
  CHECK(largest_difference(sum.view(), models.tuned.view()) < 1e-5);
  // √Σ on either side.
  for (index_t k = 0; k < 4; ++k) {
    double a = 0, b = 0;
    for (index_t j = 0; j < shape.cols; ++j) a += std::pow(static_cast<double>(found.adapter.a()(k, j)), 2);
    for (index_t i = 0; i < shape.rows; ++i) b += std::pow(static_cast<double>(found.adapter.b()(i, k)), 2);
    CHECK(a == doctest::Approx(std::vector<double>{3, 2, 1, 0.5}[static_cast<std::size_t>(k)]).epsilon(1e-3));
    CHECK(a == doctest::Approx(b).epsilon(1e-3));
  }
}

TEST_CASE("of any other change the best of that rank, and its error is told") {
  host_executor exec;
  auto const s = power_law(40, 1);
  pair_of_models const models{with_spectrum(shape, s, 7)};
  for (index_t const r : {1, 5, 20, 40}) {
    auto const found = extract(exec, models.base.view(), models.tuned.view(), {.rank = r});
    CHECK(found.adapter.rank() == r);
    CHECK(found.error == doctest::Approx(std::sqrt(energy(s, r, 40))).epsilon(0.01).scale(1e-3));
    auto rest = copy_of(models.tuned.view());
    axpy(exec, -1.0F, models.base.view(), rest.view());
    found.adapter.add_to(exec, -1, rest.view());
    CHECK(std::sqrt(squared_norm_of(rest.view())) == doctest::Approx(found.error).epsilon(1e-3).scale(1e-2));
  }
}

TEST_CASE("a share of the change takes no more components than it needs") {
  host_executor exec;
  pair_of_models const models{with_spectrum(shape, {2, 1, 1, 1, 0.1}, 7)};  // squares 4 5 6 7 7.01
  for (auto const& [share, rank] : {std::pair{0.5, 1}, {0.7, 2}, {0.85, 3}, {0.99, 4}, {0.9999, 5}}) {
    auto const found = extract(exec, models.base.view(), models.tuned.view(), {.rank = 16, .share = share});
    CHECK(found.adapter.rank() == rank);
    CHECK(found.adapter.settings().scale_value() == 1);
  }
}

TEST_CASE("no change: rank one of zeros") {
  host_executor exec;
  auto const w = random_matrix(shape, 1);
  auto const found = extract(exec, w.view(), w.view(), {.rank = 3, .share = 0.5});
  CHECK(found.change == 0);
  CHECK(found.error == 0);
  CHECK(found.adapter.rank() == 1);
  CHECK(squared_norm_of(change_of_weights(exec, found.adapter).view()) == 0);
}

TEST_CASE("what cannot be compared is refused") {
  host_executor exec;
  auto const w = random_matrix(shape, 1), other = random_matrix({40, 55}, 1);
  CHECK_THROWS_AS((void)extract(exec, w.view(), other.view()), shape_error);
  CHECK_THROWS_AS((void)extract(exec, w.view(), w.view(), {.rank = 41}), shape_error);
  CHECK_THROWS_AS((void)extract(exec, w.view(), w.view(), {.rank = 4, .share = 0}), argument_error);
  auto bad = copy_of(w.view());
  bad(3, 3) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(naming("model.norm.weight", [&] { (void)extract(exec, w.view(), bad.view()); }),
                       doctest::Contains("\"model.norm.weight\": lowrank::extract: needs finite"), argument_error);
}

TEST_SUITE_END();

}  // namespace

}  // namespace extract_test
