#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/interop/raw.hpp"

namespace raw_test {

using namespace lowrank;

TEST_SUITE("raw") {
  TEST_CASE("orders, leading dimensions and vectors point where they say") {
    std::vector<float> memory(60);
    std::iota(memory.begin(), memory.end(), 0.0F);
    CHECK(raw::row_major(memory.data(), 5, 12)(2, 3) == 2 * 12 + 3);
    CHECK(raw::row_major(memory.data(), 5, 7, 12)(2, 3) == 2 * 12 + 3);
    CHECK(raw::column_major(memory.data(), 12, 5)(3, 2) == 2 * 12 + 3);
    CHECK(raw::column_major(memory.data(), 7, 5, 12)(3, 2) == 2 * 12 + 3);
    CHECK(raw::strided(memory.data(), 3, 4, 20, 5)(2, 3) == 2 * 20 + 3 * 5);
    auto const v = raw::vector(memory.data() + 1, 9);
    CHECK(v.shape() == extents{1, 9});
    CHECK(v(0, 8) == 9);
    CHECK(v.is_row_major());
    static_assert(
        std::is_same_v<decltype(raw::vector<device_space>(memory.data(), 9)), matrix_view<float, device_space>>);
    static_assert(std::is_same_v<decltype(raw::vector(std::as_const(memory).data(), 9)), matrix_view<float const>>);
  }

  TEST_CASE("what cannot be meant is refused") {
    std::array<float, 12> memory{};
    float* const none = nullptr;
    CHECK_THROWS_AS(std::ignore = raw::row_major(none, 3, 4), argument_error);
    CHECK_THROWS_WITH(std::ignore = raw::vector(none, 5),
                      doctest::Contains("needs memory for 1x5 elements, got a null pointer"));
    CHECK_NOTHROW(std::ignore = raw::row_major(none, 0, 4));
    CHECK_NOTHROW(std::ignore = raw::row_major(none, 3, 0));
    CHECK_THROWS_AS(std::ignore = raw::row_major(memory.data(), -1, 4), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::strided(memory.data(), 3, 4, -4, 1), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::row_major(memory.data(), 3, 4, 3), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::column_major(memory.data(), 4, 3, 3), shape_error);
    index_t const huge = std::numeric_limits<index_t>::max() / 4;
    CHECK_THROWS_AS(std::ignore = raw::strided(memory.data(), 3, 4, huge, 1), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::strided(memory.data(), 1, huge, huge, huge), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::row_major(memory.data(), index_t{1} << 40, index_t{1} << 40), shape_error);
    auto* const crooked = reinterpret_cast<float*>(reinterpret_cast<char*>(memory.data()) + 2);
    CHECK_THROWS_WITH(std::ignore = raw::vector(crooked, 2), doctest::Contains("must be aligned to 4 bytes"));
  }

  TEST_CASE("writable elements share memory exactly where counting addresses says so") {
    std::array<float, 128> memory{};
    for (index_t rows = 0; rows <= 4; ++rows)
      for (index_t cols = 0; cols <= 4; ++cols)
        for (index_t rs = 0; rs <= 9; ++rs)
          for (index_t cs = 0; cs <= 9; ++cs) {
            std::array<int, 128> hits{};
            bool shared = false;
            for (index_t i = 0; i < rows; ++i)
              for (index_t j = 0; j < cols; ++j) shared |= ++hits[static_cast<std::size_t>(i * rs + j * cs)] > 1;
            CAPTURE(rows);
            CAPTURE(cols);
            CAPTURE(rs);
            CAPTURE(cs);
            if (shared) CHECK_THROWS_AS(std::ignore = raw::strided(memory.data(), rows, cols, rs, cs), shape_error);
            else CHECK_NOTHROW(std::ignore = raw::strided(memory.data(), rows, cols, rs, cs));
            CHECK_NOTHROW(std::ignore = raw::strided<host_space, float const>(memory.data(), rows, cols, rs, cs));
          }
  }

  TEST_CASE("a flat buffer is cut as llm.c cuts it") {
    index_t const layers = 3, channels = 4, words = 5;
    std::vector<float> memory(
        static_cast<std::size_t>(words * channels + layers * channels + layers * 3 * channels * channels));
    std::iota(memory.begin(), memory.end(), 0.0F);
    raw::flat_buffer flat{memory.data(), static_cast<index_t>(memory.size())};
    auto const embedding = flat.matrix(words, channels);
    auto const norms = flat.layers(layers, 1, channels);
    CHECK(flat.left() == layers * 3 * channels * channels);
    CHECK_THROWS_AS(flat.require_used_up(), state_error);
    auto const attention = flat.layers(layers, 3 * channels, channels);
    CHECK_NOTHROW(flat.require_used_up());
    CHECK(embedding(4, 3) == 19);
    CHECK(norms[2](0, 1) == 20 + 2 * 4 + 1);
    CHECK(attention[1](11, 3) == 20 + 12 + 48 + 47);
    CHECK(attention[1].shape() == extents{12, 4});
    CHECK_THROWS_AS(std::ignore = attention[3], shape_error);
    CHECK_THROWS_AS(std::ignore = attention[-1], shape_error);
    CHECK_THROWS_WITH(std::ignore = flat.vector(1),
                      doctest::Contains("needs 1 matrices of 1x1 at element 176, only 0 are left"));
    CHECK(flat.used() == 176);
  }

  TEST_CASE("sizes whose product overflows do not fit either") {
    std::array<float, 8> memory{};
    index_t const huge = index_t{1} << 62;
    raw::flat_buffer flat{memory.data(), 8};
    CHECK_THROWS_AS(std::ignore = flat.matrix(huge, 4), shape_error);
    CHECK_THROWS_AS(std::ignore = flat.layers(huge, 2, 2), shape_error);
    CHECK_THROWS_AS(std::ignore = flat.layers(-1, 2, 2), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::layers(memory.data(), huge, 2, 2), shape_error);
    CHECK_THROWS_AS(std::ignore = raw::layers(memory.data(), -1, 2, 2), shape_error);
    CHECK(raw::layers(memory.data(), 2, 2, 2)[1].data == memory.data() + 4);
  }
}

}  // namespace raw_test
