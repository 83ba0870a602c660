#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "lowrank/tile/tile.hpp"
#include "support/matrices.hpp"

namespace tile_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("tile");

TEST_CASE("packs do to every element what floats do") {
  auto const x = random_matrix({3, pack::width}, 1);
  auto const a = pack::load(x.data()), b = pack::load(x.data() + pack::width),
             c = pack::load(x.data() + 2 * pack::width);
  auto const check = [&](pack value, auto const& expected) {
    std::vector<float> got(static_cast<std::size_t>(pack::width));
    value.store(got.data());
    for (index_t i = 0; i < pack::width; ++i)
      CHECK(got[static_cast<std::size_t>(i)] == expected(x(0, i), x(1, i), x(2, i)));
  };
  check(a + b, [](float p, float q, float) { return p + q; });
  check(a - b, [](float p, float q, float) { return p - q; });
  check(a * b, [](float p, float q, float) { return p * q; });
  check(a / b, [](float p, float q, float) { return p / q; });
  check(-a, [](float p, float, float) { return -p; });
  check(pack{2.5F} * a, [](float p, float, float) { return 2.5F * p; });
  check(square_root(a * a), [](float p, float, float) { return std::sqrt(p * p); });
  check(sign(a), [](float p, float, float) { return p > 0 ? 1.0F : -1.0F; });
  check(sign(a - a), [](float, float, float) { return 0.0F; });
  // Products and sums of a pack and of a float are rounded equally often.
  check(fused_multiply_add(a, b, c), [](float p, float q, float r) { return fused_multiply_add(p, q, r); });
}

TEST_CASE_TEMPLATE("load and store keep what is valid and touch nothing beyond", T, float, bf16, fp16) {
  host_tile const tile;
  std::vector<T> from(host_tile::size + 8), to(host_tile::size + 8);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = from_float<T>(static_cast<float>(i % 97) - 48);
  for (index_t const valid : {index_t{0}, index_t{1}, index_t{host_tile::size / 2 + 1}, index_t{host_tile::size}}) {
    std::fill(to.begin(), to.end(), from_float<T>(7));
    tile.store(to.data(), tile.load(from.data(), valid), valid);
    for (std::size_t i = 0; i < to.size(); ++i)
      CHECK(to_float(to[i]) == (static_cast<index_t>(i) < valid ? to_float(from[i]) : 7.0F));
  }
}

TEST_CASE("every element belongs to one tile, rows to no other row, whatever the number of threads") {
  for (int const threads : {1, 3}) {
    host_executor exec{{.threads = threads}};
    for (index_t const count : {0, 1, 255, 256, 257, 100000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      launch_tiles(exec, count, [&](auto, index_t first, index_t valid) {
        for (index_t i = first; i < first + valid; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      CHECK(std::all_of(seen.begin(), seen.end(), [](auto const& n) { return n == 1; }));
    }
    for (extents const shape : {extents{0, 5}, extents{5, 0}, extents{3, 600}, extents{700, 1}, extents{1, 20000}}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(shape.size()));
      launch_rows(exec, shape, [&](auto, index_t row, index_t first, index_t valid) {
        for (index_t j = first; j < first + valid; ++j) ++seen[static_cast<std::size_t>(row * shape.cols + j)];
      });
      CHECK(std::all_of(seen.begin(), seen.end(), [](auto const& n) { return n == 1; }));
    }
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace tile_test
