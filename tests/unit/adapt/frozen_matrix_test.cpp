// Frozen matrices: what a format keeps, in how many bytes, and products through panels of it.
#include <doctest/doctest.h>

#include <bit>

#include "lowrank/adapt/frozen_matrix.hpp"
#include "support/executors.hpp"
#include "support/optimizers.hpp"

namespace frozen_matrix_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

TEST_SUITE_BEGIN("frozen matrix");

constexpr std::array formats{frozen_format::fp32, frozen_format::bf16, frozen_format::int8, frozen_format::nf4};

template <class E>
matrix<float> dense_of(E& exec, frozen_matrix const& w) {
  exec.reserve(w.workspace_bytes());
  matrix<float> out{w.shape()};
  w.dense(exec, out.view());
  return out;
}

TEST_CASE("bytes are exact: 4.127 bits a weight for nf4, 8.125 for int8") {
  host_executor exec{{.threads = 1}};
  for (extents const shape : {extents{1, 1}, {3, 5}, {64, 64}, {37, 96}, {130, 300}, {0, 8}})
    for (auto const format : formats) {
      auto const w = random_matrix(shape, 1);
      frozen_matrix const kept{exec, w.view(), format};
      CHECK(kept.shape() == shape);
      CHECK(kept.format() == format);
      CHECK(kept.bytes() == frozen_matrix::bytes(shape, format));
      index_t held = 0;
      if (auto const* const a = kept.stored<matrix<float>>()) held = a->bytes();
      if (auto const* const a = kept.stored<matrix<bf16>>()) held = a->bytes();
      if (auto const* const a = kept.stored<frozen_matrix::int8_codes>()) held = a->bytes();
      if (auto const* const a = kept.stored<frozen_matrix::nf4_codes>()) held = state_bytes(*a);
      CHECK(held == kept.bytes());
    }
  constexpr extents large{4096, 4096};
  auto const bits = [&](frozen_format format) {
    return 8 * static_cast<double>(frozen_matrix::bytes(large, format)) / static_cast<double>(large.size());
  };
  CHECK(bits(frozen_format::nf4) == doctest::Approx(4.127).epsilon(1e-4));
  CHECK(frozen_matrix::bytes(large, frozen_format::nf4) ==
        large.size() / 2 + large.size() / 64 + large.size() / 64 / 256 * 4 + 4);
  CHECK(bits(frozen_format::int8) == 8.125);
  CHECK(bits(frozen_format::bf16) == 16);
  CHECK(bits(frozen_format::fp32) == 32);
}

TEST_CASE("fp32 and bf16 are rounded once; coded formats are as near as their steps") {
  host_executor exec{{.threads = 2}};
  auto w = random_matrix({70, 90}, 3);
  auto const whole = dense_of(exec, frozen_matrix{exec, w.view(), frozen_format::fp32});
  CHECK(same_bits(whole, w));
  auto const half = dense_of(exec, frozen_matrix{exec, w.view(), frozen_format::bf16});
  auto const eight = dense_of(exec, frozen_matrix{exec, w.view(), frozen_format::int8});
  auto const four = dense_of(exec, frozen_matrix{exec, w.view(), frozen_format::nf4});
  int wrong = 0;
  double squares = 0;
  for (index_t i = 0; i < 70; ++i) {
    float most = 0;
    for (index_t j = 0; j < 90; ++j) most = std::max(most, std::abs(w(i, j)));
    for (index_t j = 0; j < 90; ++j) {
      wrong += half(i, j) != to_bf16(w(i, j)).value();
      wrong += std::abs(eight(i, j) - w(i, j)) > 0.5001F * most / 127;
      squares += std::pow(static_cast<double>(four(i, j) - w(i, j)), 2);
    }
  }
  CHECK(wrong == 0);
  double const relative = std::sqrt(squares / squared_norm_of(w.view()));
  CHECK(relative < 0.1);
  CHECK(relative > 0.05);
  // Rounding what was rounded changes nothing where the format has the largest number of a block exactly.
  for (auto const* const once : {&half, &eight}) {
    auto const format = once == &half ? frozen_format::bf16 : frozen_format::int8;
    CHECK(largest_difference(dense_of(exec, frozen_matrix{exec, once->view(), format}).view(), once->view()) < 1e-6);
  }
}

TEST_CASE("any strides, and matrices that are given away") {
  host_executor exec{{.threads = 2}};
  auto const w = random_matrix({33, 40}, 3);
  strided_copy strided{w.view()};
  auto const turned = random_matrix({40, 33}, 8);
  for (auto const format : formats) {
    auto const packed = dense_of(exec, frozen_matrix{exec, w.view(), format});
    CHECK(same_bits(packed, dense_of(exec, frozen_matrix{exec, strided.view(), format})));
    frozen_matrix const flipped{exec, turned.view().t(), format};
    CHECK(flipped.shape() == extents{33, 40});
    CHECK(largest_difference(dense_of(exec, flipped).view(), turned.view().t()) < 0.5);
  }
  auto given = copy_of(w.view());
  auto const* const place = given.data();
  frozen_matrix const kept{std::move(given)};
  CHECK(kept.stored<matrix<float>>()->data() == place);
  CHECK(kept.workspace_bytes() == 0);
  matrix<bf16> narrow{w.shape()};
  convert(exec, w.view(), narrow.view());
  CHECK(frozen_matrix{std::move(narrow)}.format() == frozen_format::bf16);
}

TEST_CASE_TEMPLATE("products are those with the dense matrix, whatever the panels are", E, LOWRANK_TEST_EXECUTORS) {
  // The last one has panels of its own: rows of 16 400 numbers, of which nf4 opens 60, a multiple of four.
  for (extents const shape : {extents{5, 3}, {64, 96}, {131, 70}, {65, 16400}})
    for (auto const format : formats) {
      CAPTURE(shape.rows);
      E exec{{.threads = 2}};
      auto const w = random_matrix(shape, 2);
      frozen_matrix const kept{exec, w.view(), format};
      auto const dense = dense_of(exec, kept);
      index_t const tokens = 3;
      auto const x = random_matrix({tokens, shape.cols}, 4), dy = random_matrix({tokens, shape.rows}, 5);
      matrix<float> y{dy.shape()};
      auto dx = random_matrix(x.shape(), 6);
      auto const before = copy_of(dx.view());
      E tight{{.threads = 2, .scratch_bytes = kept.workspace_bytes()}};
      kept.apply(tight, x.view(), y.view());
      auto const wanted = plain_product(x.view(), dense.view().t());
      CHECK(largest_difference(y.view(), wanted.view()) < 2e-6 * static_cast<double>(shape.cols));
      kept.apply_transposed(tight, dy.view(), 0.5F, dx.view());
      auto back = plain_product(dy.view(), dense.view());
      for (index_t e = 0; e < back.shape().size(); ++e) back.data()[e] += 0.5 * static_cast<double>(before.data()[e]);
      CHECK(largest_difference(dx.view(), back.view()) < 2e-6 * static_cast<double>(shape.rows));
      kept.apply_transposed(tight, dy.view(), 0.0F, dx.view());
      CHECK(largest_difference(dx.view(), plain_product(dy.view(), dense.view()).view()) <
            2e-6 * static_cast<double>(shape.rows));
      CHECK(tight.arena().peak() <= kept.workspace_bytes());
    }
}

TEST_CASE("products refuse what is narrower or wider than they are") {
  host_executor exec{{.threads = 1}};
  auto const w = random_matrix({8, 64}, 1);
  frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
  exec.reserve(kept.workspace_bytes());
  auto const x = random_matrix({3, 64}, 2), dy = random_matrix({3, 8}, 3), wide = random_matrix({3, 65}, 4);
  matrix<float> y{3, 9}, dx{3, 65}, right_y{3, 8}, right_dx{3, 64};
  CHECK_THROWS_AS(kept.apply(exec, x.view(), y.view()), shape_error);
  CHECK_THROWS_AS(kept.apply(exec, wide.view(), right_y.view()), shape_error);
  CHECK_THROWS_AS(kept.apply_transposed(exec, x.view(), 0, right_dx.view()), shape_error);
  CHECK_THROWS_AS(kept.apply_transposed(exec, dy.view(), 0, dx.view()), shape_error);
  CHECK_NOTHROW(kept.apply(exec, x.view(), right_y.view()));
  CHECK_NOTHROW(kept.apply_transposed(exec, dy.view(), 0, right_dx.view()));
}

TEST_CASE("panels are rows of the whole") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  auto const w = random_matrix({700, 48}, 2);  // nf4: 525 blocks, in three groups of scales
  for (auto const format : formats) {
    frozen_matrix const kept{exec, w.view(), format};
    CHECK(kept.row_quantum() == (format == frozen_format::nf4 ? 4 : 1));
    auto const dense = dense_of(exec, kept);
    for (auto const& [begin, end] :
         {std::pair<index_t, index_t>{0, 700}, {4, 9}, {340, 350}, {344, 345}, {696, 700}, {8, 8}}) {
      scratch_scope const scope{exec};
      auto const panel = kept.open(exec, begin, end);
      CHECK(panel.shape() == extents{end - begin, 48});
      CHECK(largest_difference(panel, dense.view().row_range(begin, end)) == 0);
    }
    CHECK_THROWS_AS((void)kept.open(exec, 0, 701), shape_error);
    if (format == frozen_format::nf4) CHECK_THROWS_AS((void)kept.open(exec, 2, 8), shape_error);
  }
}

/// FNV-1a over bytes.
template <class T>
std::uint64_t hash_of(std::vector<T> const& values) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (T const v : values)
    for (auto const byte : std::bit_cast<std::array<std::uint8_t, sizeof(T)>>(v)) hash = (hash ^ byte) * 0x100000001B3U;
  return hash;
}

TEST_CASE("nf4 and its scales are bitsandbytes's, bit for bit") {
  // Recorded from bitsandbytes 0.50.2, quantize_4bit(compress_statistics=True) on the host. All sums here are exact, because
  // its mean of the scales depends on the order of summation otherwise, and with it the last bit of everything after.
  host_executor exec{{.threads = 2}};
  matrix<float> w{300, 130};
  for (index_t e = 0; e < w.shape().size(); ++e)
    w.data()[e] = static_cast<float>(e * 7919 % 2003 - 1001) / 1024 * static_cast<float>(1 + e / 64 * 37 % 11) / 16;
  frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
  auto const& codes = *kept.stored<frozen_matrix::nf4_codes>();
  auto const elements = values_of<std::uint8_t>(codes, "codes"), scales = values_of<std::uint8_t>(codes, "scale.codes");
  CHECK(elements.size() == 19500);
  CHECK(scales.size() == 610);
  CHECK(hash_of(elements) == 0x5d50eea097ad1afbU);
  CHECK(hash_of(scales) == 0x1283916dc9ad2b6dU);
  CHECK(values_of<float>(codes, "scale.mean") == std::vector{0x1.731078p-2F});
  CHECK(values_of<float>(codes, "scale.scales") == std::vector{0x1.3d1f88p-2F, 0x1.3c6f88p-2F, 0x1.3d1f88p-2F});
  auto const dense = dense_of(exec, kept);
  CHECK(hash_of(std::vector<float>(dense.data(), dense.data() + dense.shape().size())) == 0xdd3bea87327a55cfU);
}

TEST_CASE("names") {
  for (auto const format : formats) CHECK(frozen_format_named(name(format)) == format);
  CHECK_FALSE(frozen_format_named("fp8").has_value());
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("threads");

TEST_CASE("frozen matrices: the same bits on any number of threads") {
  auto const run = [](int threads) {
    std::vector<float> all;
    host_executor exec{{.threads = threads}};
    auto const w = random_matrix({230, 192}, 2), x = random_matrix({70, 192}, 4), dy = random_matrix({70, 230}, 5);
    for (auto const format : formats) {
      frozen_matrix const kept{exec, w.view(), format};
      exec.reserve(kept.workspace_bytes());
      matrix<float> y{dy.shape()}, dx{x.shape()};
      kept.apply(exec, x.view(), y.view());
      kept.apply_transposed(exec, dy.view(), 0.0F, dx.view());
      all.insert(all.end(), y.data(), y.data() + y.shape().size());
      all.insert(all.end(), dx.data(), dx.data() + dx.shape().size());
    }
    return all;
  };
  auto const one = run(1);
  CHECK(one == run(2));
  CHECK(one == run(5));
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("frozen matrices refuse what is not finite") {
  host_executor exec{{.threads = 1}};
  for (auto const format : formats)
    for (float const bad : {std::bit_cast<float>(0x7FC00000U), std::bit_cast<float>(0x7F800000U)}) {
      auto w = random_matrix({8, 100}, 2);
      w(7, 99) = bad;
      CHECK_THROWS_AS((frozen_matrix{exec, w.view(), format}), argument_error);
    }
  auto w = random_matrix({8, 100}, 2);
  w(3, 3) = 0x1p127F;
  CHECK_THROWS_AS((frozen_matrix{exec, w.view(), frozen_format::nf4}), argument_error);
  CHECK_THROWS_AS((frozen_matrix{exec, w.view(), frozen_format::int8}), argument_error);
}

TEST_SUITE_END();

}  // namespace

}  // namespace frozen_matrix_test
