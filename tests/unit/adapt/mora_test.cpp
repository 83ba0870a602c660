#include "lowrank/adapt/mora.hpp"

#include <doctest/doctest.h>

#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace mora_test {

using namespace lowrank;
using namespace lowrank_test;
using adapt::mora;
using adapt::mora_type;

namespace {

/// Which of `side` neighbourhoods feature i of n belongs to, found by counting them off.
index_t neighbourhood(index_t i, index_t n, index_t side) {
  index_t begin = 0;
  for (index_t group = 0; group < side; ++group) {
    index_t const end = begin + n / side + (group < n % side ? 1 : 0);
    if (i < end) return group;
    begin = end;
  }
  return side;
}

/// ΔW written down element by element, from the formulas.
matrix<double> plain_change(matrix_view<double const> m, extents shape, mora_type type) {
  index_t const side = m.rows, n = shape.cols;
  matrix<double> out{shape};
  if (type != mora_type::rotated) {
    bool const strided = type == mora_type::shared || type == mora_type::strided_to_repeated;
    bool const tiled = type == mora_type::shared || type == mora_type::grouped_to_tiled;
    index_t const positions = strided ? (n + side - 1) / side * side : n;
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t t = 0; t < positions; ++t)
        out(i, t % n) +=
            m(tiled ? i % side : neighbourhood(i, shape.rows, side), strided ? t % side : neighbourhood(t, n, side));
    return out;
  }
  index_t const inputs = (n + side - 1) / side, outputs = (shape.rows + side - 1) / side;
  for (index_t t = 0; t < std::max(inputs, outputs); ++t) {
    index_t const g = t % inputs, h = t % outputs;
    for (index_t j = 0; j < side; ++j) {
      if (h * side + j >= shape.rows) continue;
      for (index_t c = 0; c < side; ++c) {
        // Column c of M Rot: feature c goes to coordinate c by the cosine, and to its partner by the sine.
        double const angle = static_cast<double>(g) *
                             std::pow(10000.0, -2.0 * static_cast<double>(c % (side / 2)) / static_cast<double>(side));
        double const partner = c < side / 2 ? m(j, c + side / 2) : -m(j, c - side / 2);
        out(h * side + j, (g * side + c) % n) += std::cos(angle) * m(j, c) + std::sin(angle) * partner;
      }
    }
  }
  return out;
}

adapt::mora_adapter<double> trained(host_executor& exec, mora const& settings, extents shape) {
  matrix<double> w{shape};
  auto out = adapt::make_adapter<double>(exec, settings, w.view(), {});
  auto const values = out.tensors()[0].values;
  for (index_t e = 0; e < values.size(); ++e)
    values.data[e] = static_cast<double>(gaussian({.seed = 4}, static_cast<std::uint64_t>(e)));
  return out;
}
matrix<double> change(host_executor& exec, adapt::mora_adapter<double> const& a) {
  matrix<double> out{a.shape()};
  a.add_to(exec, 1, out.view());
  return out;
}

constexpr std::array types{mora_type::shared, mora_type::grouped, mora_type::grouped_to_tiled,
                           mora_type::strided_to_repeated, mora_type::rotated};

}  // namespace

TEST_SUITE("MoRA") {
  TEST_CASE("the change is that of the formulas, element by element") {
    host_executor exec{{.threads = 2}};
    for (auto const type : types)
      for (extents const shape : {extents{12, 12}, extents{7, 23}, extents{23, 7}, extents{20, 21}, extents{5, 40},
                                  extents{40, 5}, extents{2, 9}})
        for (index_t const rank : {1, 2}) {
          CAPTURE(type);
          CAPTURE(shape);
          CAPTURE(rank);
          auto const a = trained(exec, {.rank = rank, .type = type}, shape);
          auto const expected = plain_change(a.tensors()[0].values, shape, type);
          CHECK(largest_difference(expected.view(), change(exec, a).view()) <= 1e-12);
        }
  }

  TEST_CASE("sides: as many numbers as a LoRA, even where pairs are turned, never beyond the matrix") {
    CHECK(mora{.rank = 8}.side({4096, 4096}) == 256);
    CHECK(mora{.rank = 8}.parameter_count({4096, 4096}) == 8 * (4096 + 4096));
    CHECK(mora{.rank = 8, .type = mora_type::shared}.side({11008, 4096}) == 348);  // √120832 = 347.6
    CHECK(mora{.rank = 1, .type = mora_type::shared}.side({12, 13}) == 5);
    CHECK(mora{.rank = 1, .type = mora_type::rotated}.side({12, 13}) == 4);
    CHECK(mora{.rank = 5, .type = mora_type::shared}.side({5, 40}) == 5);
    CHECK(mora{.rank = 5, .type = mora_type::rotated}.side({5, 40}) == 4);
  }

  TEST_CASE("every input has an effect and every output a cause, more inputs than outputs or fewer") {
    host_executor exec{{.threads = 2}};
    for (auto const type : types)
      for (extents const shape : {extents{16, 43}, extents{43, 16}, extents{10, 64}, extents{31, 31}}) {
        CAPTURE(type);
        CAPTURE(shape);
        auto const w = change(exec, trained(exec, {.rank = 1, .type = type}, shape));
        for (index_t j = 0; j < shape.cols; ++j)
          CHECK(squared_norm_of(matrix_view<double const>(w.view()).col_range(j, j + 1)) > 1e-6);
        for (index_t i = 0; i < shape.rows; ++i)
          CHECK(squared_norm_of(matrix_view<double const>(w.view()).row_range(i, i + 1)) > 1e-6);
      }
  }

  TEST_CASE("the rank is that of the square matrix, or more where pieces have outputs of their own") {
    host_executor exec{{.threads = 2}};
    auto const rank = [&](mora_type type, extents shape) {
      auto const a = trained(exec, {.rank = 1, .type = type}, shape);
      auto const w = change(exec, a);
      matrix<float> narrow{shape};
      convert(exec, w.view(), narrow.view());
      index_t const most = std::min(shape.rows, shape.cols);
      std::vector<double> values(static_cast<std::size_t>(most));
      exact_singular_values(exec, matrix_view<float const>(narrow.view()), values.data());
      return std::count_if(values.begin(), values.end(), [&](double s) { return s > 1e-5 * values[0]; });
    };
    CHECK(rank(mora_type::shared, {24, 26}) == 7);  // √50 = 7.1
    CHECK(rank(mora_type::grouped, {24, 26}) == 7);
    CHECK(rank(mora_type::rotated, {24, 24}) == 24);  // four blocks of side 6 on the diagonal
  }

  TEST_CASE("long batches come in blocks, and rows that are not neighbours in memory are read as they lie") {
    host_executor exec{{.threads = 2}};
    for (auto const type : types) {
      CAPTURE(type);
      extents const shape{50, 70};
      constexpr index_t tokens = 8000;  // several blocks of about 2^17 numbers
      matrix<float> w{shape};
      auto a = adapt::make_adapter(exec, mora{.rank = 3, .type = type}, w.view(), {});
      auto const values = random_matrix(a.tensors()[0].values.shape(), 4);
      copy(exec, values.view(), a.tensors()[0].values);
      auto const x = random_matrix({tokens, shape.cols}, 5), dy = random_matrix({tokens, shape.rows}, 6);
      matrix<float> y{tokens, shape.rows}, expected{tokens, shape.rows}, d{a.side(), a.side()},
          other{a.side(), a.side()};
      a.add_to(exec, 1, w.view());
      multiply(exec, 1.0F, x.view(), w.view().t(), 0.0F, expected.view());
      exec.reserve(a.workspace_bytes(tokens));
      CHECK(a.workspace_bytes(tokens) == a.workspace_bytes(2 * tokens));
      a.forward(exec, x.view(), {}, y.view());
      CHECK(largest_difference(y.view(), expected.view()) <= 1e-3);

      std::array const gradients{d.view()};
      matrix<float> dx{x.shape()};
      a.backward(exec, x.view(), {}, dy.view(), gradients, dx.view());
      strided_copy apart_x{x.view()}, apart_dy{dy.view()}, apart_dx{matrix<float>{x.shape()}.view()};
      std::array const others{other.view()};
      a.backward(exec, apart_x.view(), {}, apart_dy.view(), others, apart_dx.view());
      CHECK(largest_difference(d.view(), other.view()) <= 1e-2);
      CHECK(largest_difference(dx.view(), apart_dx.view()) <= 1e-5);
    }
  }

  TEST_CASE("what is refused") {
    CHECK_THROWS_AS((mora{.rank = 1, .type = static_cast<mora_type>(5)}.check({8, 8})), argument_error);
    CHECK_THROWS_AS((mora{.rank = 1, .type = static_cast<mora_type>(0)}.check({8, 8})), argument_error);
    CHECK_THROWS_AS((mora{.rank = 1, .type = mora_type::rotated}.check({1, 8})), shape_error);
    CHECK_NOTHROW((mora{.rank = 1, .type = mora_type::shared}.check({1, 8})));
  }
}

}  // namespace mora_test
