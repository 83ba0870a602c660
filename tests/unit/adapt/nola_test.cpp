#include "lowrank/adapt/nola.hpp"

#include <doctest/doctest.h>

#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace nola_test {

using namespace lowrank;
using namespace lowrank_test;
using adapt::nola;
using adapt::nola_variant;

namespace {

constexpr rng_key key{.seed = 11, .step = 0, .tensor = 2, .purpose = rng_purpose::initialisation};

template <class T>
adapt::nola_adapter<T> made(host_executor& exec, nola const& settings, extents shape, rng_key const& its_key = key) {
  matrix<T> w{shape};
  return adapt::make_adapter<T>(exec, settings, w.view(), its_key);
}

}  // namespace

TEST_SUITE("NOLA") {
  TEST_CASE("a 70B model needs 573 440 numbers") {
    // Seven matrices of each of the 80 layers of LLaMA-2 70B.
    index_t const d = 8192, heads = 1024, wide = 28672;
    std::array const layer{extents{d, d},    extents{heads, d}, extents{heads, d}, extents{d, d},
                           extents{wide, d}, extents{wide, d},  extents{d, wide}};
    nola const settings{.rank = 16, .right_count = 512, .left_count = 512};
    index_t count = 0, held = 0, scratch = 0;
    for (extents const shape : layer) {
      settings.check(shape);
      adapt::nola_adapter<float> const one{settings, shape, key};
      count += 80 * one.parameter_count();
      held += 80 * one.bytes();
      scratch = std::max(scratch, one.workspace_bytes(2048));
    }
    CHECK(count == 573440);
    CHECK(held == 4 * 573440);
    // Of the largest matrix alone the bases would be 1.2 GB.
    index_t const bases = 4 * 512 * 16 * (wide + d);
    CHECK(bases > 1'200'000'000);
    CHECK(100 * scratch < bases);
    CHECK(nola{.right_count = 128, .left_count = 128}.parameter_count({}) * 7 * 32 == 57344);
    CHECK(nola{.right_count = 256, .left_count = 256}.parameter_count({}) * 7 * 40 == 143360);
  }

  TEST_CASE("factors are the combinations that the paper writes, element by element") {
    host_executor exec{{.threads = 2}};
    extents const shape{9, 14};
    for (auto const variant : {nola_variant::language, nola_variant::vision}) {
      CAPTURE(variant);
      bool const language = variant == nola_variant::language;
      index_t const r = 3, k = 6, l = 4;
      auto a =
          made<double>(exec, {.rank = r, .right_count = k, .left_count = l, .alpha = 6, .variant = variant}, shape);
      auto const [alpha, beta] = a.tensors();
      for (index_t i = 0; i < k; ++i) CHECK(alpha.values(0, i) == (language ? 0 : 1.0 / static_cast<double>(k)));
      for (index_t j = 0; j < l; ++j) CHECK(beta.values(0, j) == (language ? 0 : 1.0 / static_cast<double>(l)));
      for (index_t i = 0; i < k; ++i) alpha.values(0, i) = std::sin(1.0 + static_cast<double>(i));
      for (index_t j = 0; j < l; ++j) beta.values(0, j) = std::cos(1.0 + static_cast<double>(j));
      auto const pair = a.factors(exec);
      double const right_size = 1 / std::sqrt(language ? 6.0 : 3.0 * 14),
                   left_size = 1 / std::sqrt(language ? 4.0 : 9.0 * 3), scale = language ? 6.0 / 3 : 1.0 / 3;
      auto const& right = a.right_basis();
      auto const& left = a.left_basis();
      double beyond = 0, largest = 0;
      for (index_t e = 0; e < r * shape.cols; ++e) {
        double sum = 0;
        for (index_t i = 0; i < k; ++i)
          sum += right_size * alpha.values(0, i) * static_cast<double>(right.element(i, e));
        double const rest = pair.right.data()[e] - sum;  // A₀: uniform in ±1/√n, or nothing
        largest = std::max(largest, std::abs(rest));
        beyond = std::max(beyond, std::abs(rest) - 1 / std::sqrt(14.0));
      }
      CHECK(beyond <= 0);
      if (language) CHECK(largest > 0.9 / std::sqrt(14.0));
      else CHECK(largest <= 1e-15);
      for (index_t e = 0; e < shape.rows * r; ++e) {
        double sum = 0;
        for (index_t j = 0; j < l; ++j)
          sum += scale * left_size * beta.values(0, j) * static_cast<double>(left.element(j, e));
        CHECK(pair.left.data()[e] == doctest::Approx(sum).epsilon(1e-12));
      }
    }
  }

  TEST_CASE("a seed is a basis: equal keys share it, other tensors and the two sides do not") {
    host_executor exec{{.threads = 2}};
    nola const settings{.rank = 3, .right_count = 6, .left_count = 6, .variant = nola_variant::vision};
    extents const shape{12, 12};
    auto const factors = [&](rng_key const& its_key) {
      return made<float>(exec, settings, shape, its_key).factors(exec);
    };
    auto const first = factors(key), again = factors(key);
    CHECK(same_bits(first.left, again.left));
    CHECK(same_bits(first.right, again.right));
    auto other = key;
    other.tensor = 3;
    CHECK_FALSE(same_bits(first.right, factors(other).right));
    other = key;
    other.seed = 12;
    CHECK_FALSE(same_bits(first.left, factors(other).left));
    auto const a = made<float>(exec, settings, shape);
    index_t equal = 0;
    for (index_t e = 0; e < 36; ++e) equal += a.right_basis().element(0, e) == a.left_basis().element(0, e) ? 1 : 0;
    CHECK(equal == 0);
  }

  TEST_CASE("forward and backward never hold a basis: nothing is allocated, scratch is that of four factors") {
    constexpr index_t tokens = 16;
    extents const shape{256, 384};
    host_executor exec{{.threads = 2}};
    auto a = made<float>(exec, {.rank = 8, .right_count = 40, .left_count = 60}, shape);
    auto const [alpha, beta] = a.tensors();
    fill(exec, alpha.values, 0.1F);
    fill(exec, beta.values, 0.1F);
    auto const x = random_matrix({tokens, shape.cols}, 2), dy = random_matrix({tokens, shape.rows}, 3);
    matrix<float> y{tokens, shape.rows}, dx{x.shape()}, d_alpha{1, 40}, d_beta{1, 60};
    std::vector<float> kept(static_cast<std::size_t>(a.kept_size(tokens)));
    std::array const gradients{d_alpha.view(), d_beta.view()};
    exec.reserve(a.workspace_bytes(tokens));
    exec.arena().reset_peak();
    {
      allocation_counter const watched;
      a.forward(exec, x.view(), kept, y.view());
      a.backward(exec, x.view(), kept, dy.view(), gradients, dx.view());
      CHECK(watched.count() == 0);
    }
    index_t const factors = 4 * 8 * (256 + 384), bases = 4 * 8 * (40 * 384 + 60 * 256);
    CHECK(exec.arena().peak() <= a.workspace_bytes(tokens));
    CHECK(exec.arena().peak() >= 2 * factors);
    CHECK(exec.arena().peak() + a.bytes() + 4 * a.kept_size(tokens) < 3 * factors);
    CHECK(exec.arena().peak() * 10 < bases);
    CHECK(squared_norm_of(d_alpha.view()) > 0);
    CHECK(squared_norm_of(d_beta.view()) > 0);
  }

  TEST_CASE("what is refused") {
    extents const shape{9, 14};
    CHECK_THROWS_AS((nola{.rank = 3, .right_count = 0}.check(shape)), argument_error);
    CHECK_THROWS_AS((nola{.rank = 3, .left_count = -1}.check(shape)), argument_error);
    CHECK_THROWS_AS((nola{.rank = 3, .alpha = 0}.check(shape)), argument_error);
    CHECK_THROWS_AS((nola{.rank = 3, .variant = static_cast<nola_variant>(7)}.check(shape)), argument_error);
  }
}

}  // namespace nola_test
