// What every factorizer promises, whatever it knows about the inputs, and what the two factored forms have in common.
#include <doctest/doctest.h>

#include "lowrank/factor/factorizer.hpp"
#include "lowrank/factor/format.hpp"
#include "lowrank/factor/pivoted.hpp"
#include "lowrank/factor/truncated_svd.hpp"
#include "lowrank/factor/whitened.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/statistics.hpp"

namespace factor_laws {

using namespace lowrank;
using namespace lowrank_test;

#define LOWRANK_TEST_FACTORIZERS \
  factor::truncated_svd, factor::whitened, factor::centred, factor::channel_scaled  // a new one joins here

namespace {

inline constexpr extents shapes[] = {{24, 24}, {40, 24}, {24, 40}, {1, 9}, {9, 1}};

matrix<double> product_of(factor_pair const& pair) { return plain_product(pair.u.view(), pair.v.view()); }

}  // namespace

TEST_SUITE("factorizers") {
  TEST_CASE_TEMPLATE("all of the rank leaves the matrix unchanged to rounding, in both forms", F,
                     LOWRANK_TEST_FACTORIZERS) {
    host_executor exec{{.threads = 2}};
    for (extents const shape : shapes)
      for (index_t const rows : {3, 200}) {
        CAPTURE(shape);
        CAPTURE(rows);
        auto const w = random_matrix(shape, 1);
        auto const inputs = statistics_of(exec, shape.cols, rows, 5);
        auto const pair = factorize(exec, F{}, w.view(), inputs, std::min(shape.rows, shape.cols));
        CHECK(largest_difference(product_of(pair).view(), w.view()) <= 4e-6);
        auto const form = pivoted(exec, pair.view());
        matrix<float> merged{shape};
        merge(exec, form.view(), merged.view());
        CHECK(largest_difference(merged.view(), w.view()) <= 8e-6);
        CHECK(form.parameters() - static_cast<index_t>(form.bias.size()) == shape.size());
        for (float const b : pair.bias) CHECK(std::abs(b) <= 1e-5F);
      }
  }
  TEST_CASE_TEMPLATE("the decomposition tells the spectrum, and losses fall with the rank", F,
                     LOWRANK_TEST_FACTORIZERS) {
    host_executor exec{{.threads = 2}};
    for (extents const shape : shapes) {
      auto const w = random_matrix(shape, 2);
      auto const inputs = statistics_of(exec, shape.cols, 100, 5);
      auto const basis = F{}.decompose(exec, matrix_view<float const>(w.view()), inputs);
      auto const values = basis.values();
      CHECK_NOTHROW(values.check());
      CHECK(values.complete());
      CHECK(departure_from_orthonormal(basis.directions.view()) <= 1e-12);
      for (index_t r = 0; r <= basis.most(); ++r)
        CHECK(values.tail(r) == doctest::Approx(basis.loss(r)).epsilon(1e-12));
      CHECK(basis.loss(basis.most()) == 0);
      CHECK(basis.bytes() == 8 * (shape.rows * basis.most() + basis.most()));
    }
  }
  TEST_CASE_TEMPLATE("how a product is split does not change it", F, LOWRANK_TEST_FACTORIZERS) {
    host_executor exec{{.threads = 1}};
    for (extents const shape : {extents{40, 24}, extents{24, 40}}) {
      auto const w = random_matrix(shape, 3);
      auto const inputs = statistics_of(exec, shape.cols, 100, 5);
      F method{};
      auto const with = [&](factor_balance balance) {
        method.balance = balance;
        return factorize(exec, method, w.view(), inputs, 10);
      };
      auto const even = with(factor_balance::components), singular = with(factor_balance::spectral),
                 plain = with(factor_balance::orthonormal);
      CHECK(largest_difference(product_of(even).view(), product_of(plain).view()) <= 4e-6);
      CHECK(largest_difference(product_of(singular).view(), product_of(plain).view()) <= 4e-6);
      CHECK(departure_from_orthonormal(plain.u.view()) <= 1e-5);
      for (index_t k = 0; k < 10; ++k)
        for (auto const* pair : {&even, &singular})
          CHECK(squared_norm_of(pair->u.view().col_range(k, k + 1)) ==
                doctest::Approx(squared_norm_of(pair->v.view().row_range(k, k + 1))).epsilon(1e-5));
    }
  }
  TEST_CASE_TEMPLATE("a matched bias keeps the mean output", F, LOWRANK_TEST_FACTORIZERS) {
    host_executor exec{{.threads = 1}};
    auto const w = random_matrix({24, 40}, 3);
    auto const inputs = statistics_of(exec, 40, 100, 5);
    F method{};
    method.bias = output_bias::matched;
    auto const pair = factorize(exec, method, w.view(), inputs, 5);
    auto const product = product_of(pair);
    for (index_t i = 0; i < 24; ++i) {
      double wanted = 0, found = static_cast<double>(pair.bias[static_cast<std::size_t>(i)]);
      for (index_t j = 0; j < 40; ++j) {
        wanted += static_cast<double>(w(i, j)) * inputs.mean()[static_cast<std::size_t>(j)];
        found += product(i, j) * inputs.mean()[static_cast<std::size_t>(j)];
      }
      CHECK(found == doctest::Approx(wanted).epsilon(1e-5));
    }
  }
  TEST_CASE_TEMPLATE("both forms compute the same outputs and the same gradients of inputs", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (extents const shape : {extents{40, 24}, extents{24, 40}, extents{24, 24}})
      for (index_t const r : {1, 7, 24}) {
        CAPTURE(shape);
        CAPTURE(r);
        auto const w = random_matrix(shape, 6), x = random_matrix({30, shape.cols}, 7),
                   dy = random_matrix({30, shape.rows}, 8);
        auto const inputs = statistics_of(exec, shape.cols, 100, 5);
        auto const pair = factorize(exec, factor::centred{}, w.view(), inputs, r);
        auto const form = pivoted(exec, pair.view());
        matrix<float> z{30, r}, y{30, shape.rows}, dx{30, shape.cols};
        matrix<float> other_z{30, r}, others{30, shape.rows - r}, other_y{30, shape.rows}, other_dx{30, shape.cols};
        forward(exec, pair.view(), x.view(), z.view(), y.view());
        forward(exec, form.view(), x.view(), other_z.view(), others.view(), other_y.view());
        CHECK(largest_difference(y.view(), other_y.view()) <= 1e-4);
        std::vector<float> db(static_cast<std::size_t>(shape.rows)), other_db(db);
        backward(exec, pair.view(), x.view(), z.view(), dy.view(), z.view(), dx.view(), {.bias = db});
        backward(exec, form.view(), x.view(), other_z.view(), dy.view(), other_z.view(), others.view(), other_dx.view(),
                 {.bias = other_db});
        CHECK(largest_difference(dx.view(), other_dx.view()) <= 1e-4);
        CHECK(db == other_db);
        CHECK(form.parameters() <= pair.parameters());
        CHECK(form.parameters() ==
              stored_parameters(shape, r, storage_form::pivoted) + static_cast<index_t>(form.bias.size()));
      }
  }
}

TEST_SUITE("threads") {
  TEST_CASE_TEMPLATE("factors have the same bits for any number of threads", F, LOWRANK_TEST_FACTORIZERS) {
    for (extents const shape : {extents{90, 70}, extents{70, 90}}) {
      auto const w = random_matrix(shape, 4);
      auto const with = [&](int threads) {
        host_executor exec{{.threads = threads}};
        return factorize(exec, F{}, w.view(), statistics_of(exec, shape.cols, 60, 5), 20);
      };
      auto const one = with(1), two = with(2), five = with(5);
      CHECK((same_bits(one.u, two.u) && same_bits(one.u, five.u)));
      CHECK((same_bits(one.v, two.v) && same_bits(one.v, five.v)));
      CHECK((one.bias == two.bias && one.bias == five.bias));
    }
  }
}

}  // namespace factor_laws
