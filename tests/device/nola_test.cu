// The random matrices of NOLA are made anew on whatever machine needs them: host and device make the same bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "device/device_machine.cuh"
#include "lowrank/adapt/random_basis.hpp"

namespace {

using lowrank::index_t;
using lowrank::adapt::random_basis;
using device = lowrank_test::machine<lowrank::cuda_executor>;

constexpr lowrank::rng_key key{
    .seed = 0x123456789ABCDEFU, .step = 1, .tensor = 0xABCDEF, .purpose = lowrank::rng_purpose::initialisation};

/// Every matrix in tiles of `width` elements, each made by one thread.
void make_tiles(device& m, random_basis const& basis, index_t width, float* to) {
  index_t const size = basis.shape.size(), across = (size + width - 1) / width;
  m.exec.team([=] LOWRANK_DEVICE(auto const& team) {
    team.each(basis.count * across, [&](index_t task) {
      index_t const number = task / across, first = (task - number * across) * width;
      basis.tile(number, first, std::min(width, size - first), to + number * size + first);
    });
  });
}
/// Every element by itself.
void make_elements(device& m, random_basis const& basis, float* to) {
  index_t const size = basis.shape.size();
  m.exec.team([=] LOWRANK_DEVICE(auto const& team) {
    team.each(basis.count * size, [&](index_t e) { to[e] = basis.element(e / size, e % size); });
  });
}
/// What code that is compiled with contraction makes of an element that is scaled and added to: A = start + c B.
void combine_one(device& m, random_basis const& basis, float c, float start, float* to) {
  index_t const size = basis.shape.size();
  m.exec.team([=] LOWRANK_DEVICE(auto const& team) {
    team.each(size, [&](index_t e) { to[e] = start + c * basis.element(basis.count - 1, e); });
  });
}

std::size_t differing(std::vector<float> const& a, std::vector<float> const& b) {
  REQUIRE(a.size() == b.size());
  std::size_t out = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    out += std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) ? 1 : 0;
  return out;
}

}  // namespace

TEST_CASE("tiles of a basis have the same bits on host and device, whatever their width") {
  device m;
  for (lowrank::extents const shape : {lowrank::extents{8, 48}, lowrank::extents{5, 7}, lowrank::extents{1, 3}}) {
    random_basis const basis{key, 9, shape};
    index_t const size = basis.count * shape.size();
    std::vector<float> expected(static_cast<std::size_t>(size));
    for (index_t i = 0; i < basis.count; ++i) basis.tile(i, 0, shape.size(), expected.data() + i * shape.size());
    CHECK(std::any_of(expected.begin(), expected.end(), [](float x) { return x > 0.5F; }));
    for (index_t const width : {4, 32, 1024}) {
      CAPTURE(width);
      lowrank::buffer<float, lowrank::device_space> made{size};
      make_tiles(m, basis, width, made.data());
      CHECK(differing(m.download(made.data(), size), expected) == 0);
    }
    lowrank::buffer<float, lowrank::device_space> made{size};
    make_elements(m, basis, made.data());
    CHECK(differing(m.download(made.data(), size), expected) == 0);
  }
}

TEST_CASE("an element that a kernel scales and adds is the host's with one rounding") {
  device m;
  random_basis const basis{key, 3, {16, 24}};
  constexpr float c = 0.3F, start = 1.7F;
  lowrank::buffer<float, lowrank::device_space> made{basis.shape.size()};
  combine_one(m, basis, c, start, made.data());
  std::vector<float> expected(static_cast<std::size_t>(basis.shape.size()));
  for (std::size_t e = 0; e < expected.size(); ++e)
    expected[e] = std::fma(c, basis.element(2, static_cast<index_t>(e)), start);
  CHECK(differing(m.download(made.data(), basis.shape.size()), expected) == 0);
}
