// Codes chosen by what a matrix takes in.
#include "lowrank/quant/gptq.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "support/codecs.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/optimizers.hpp"

namespace gptq_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

/// E[x xᵀ] of correlated inputs that differ in size, one of them far larger than the others.
matrix<double> moment_of(index_t n, index_t rows, std::uint64_t seed) {
  auto x = random_matrix({rows, n}, seed);
  for (index_t t = 0; t < rows; ++t)
    for (index_t j = 0; j < n; ++j) {
      if (j > 0) x(t, j) = 0.4F * x(t, j) + 0.8F * x(t, j - 1);
      if (j == n / 2) x(t, j) *= 20;
    }
  matrix<double> out{n, n};
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j) {
      double sum = 0;
      for (index_t t = 0; t < rows; ++t) sum += static_cast<double>(x(t, i)) * static_cast<double>(x(t, j));
      out(i, j) = sum / static_cast<double>(rows);
    }
  return out;
}
matrix<double> copied(matrix<double> const& a) {
  matrix<double> out{a.shape()};
  std::copy_n(a.data(), a.shape().size(), out.data());
  return out;
}
matrix_view<double const> read(matrix<double> const& a) { return a.view(); }

template <class E>
double_quantized<> coded(E& exec, matrix<float> const& w, matrix<double> const& c, gptq const& how = {}) {
  double_quantized<> out{w.shape().size()};
  exec.reserve(double_quantized<>::workspace_bytes(w.shape().size()));
  quantize(exec, how, w.view(), read(c), out);
  return out;
}
template <class E>
matrix<float> opened(E& exec, double_quantized<> const& codes, extents shape) {
  exec.reserve(double_quantized<>::workspace_bytes(shape.size()));
  matrix<float> out{shape};
  dequantize(exec, codes, out.data());
  return out;
}
template <class E>
std::vector<float> scales_of(E& exec, double_quantized<> const& codes) {
  std::vector<float> out(static_cast<std::size_t>(codes.blocks()));
  open_scales(exec, codes, out.data());
  return out;
}
int code_at(std::vector<std::uint8_t> const& codes, index_t e) {
  int const byte = codes[static_cast<std::size_t>(e / 2)];
  return e % 2 == 0 ? byte >> 4 : byte & 0xF;
}

/// tr((W - W') C (W - W')ᵀ).
double output_loss(matrix<float> const& w, matrix<float> const& kept, matrix<double> const& c) {
  double sum = 0;
  index_t const n = w.shape().cols;
  for (index_t i = 0; i < w.shape().rows; ++i)
    for (index_t j = 0; j < n; ++j)
      for (index_t k = 0; k < n; ++k)
        sum += static_cast<double>(w(i, j) - kept(i, j)) * c(j, k) * static_cast<double>(w(i, k) - kept(i, k));
  return sum;
}

/// The inverse, by elimination.
matrix<double> inverse_of(matrix<double> const& of) {
  auto a = copied(of);
  index_t const n = a.shape().rows;
  matrix<double> out{n, n};
  for (index_t i = 0; i < n; ++i) out(i, i) = 1;
  for (index_t p = 0; p < n; ++p) {
    double const pivot = a(p, p);
    for (index_t j = 0; j < n; ++j) a(p, j) /= pivot, out(p, j) /= pivot;
    for (index_t i = 0; i < n; ++i) {
      double const by = a(i, p);
      if (i == p || by == 0) continue;
      for (index_t j = 0; j < n; ++j) a(i, j) -= by * a(p, j), out(i, j) -= by * out(p, j);
    }
  }
  return out;
}

}  // namespace

TEST_SUITE("gptq") {
  TEST_CASE_TEMPLATE("codes are those of optimal brain quantization, one column after another", E,
                     LOWRANK_TEST_EXECUTORS) {
    // The formula as it was published, Frantar, Alistarh, arXiv 2208.11580, (2): round a column, move the others by its error
    // times their row of the inverse over its diagonal, strike the column from the inverse.
    E exec{{.threads = 2}};
    codec::book4<> const nf4;
    for (extents const shape : {extents{5, 7}, extents{6, 64}, extents{9, 150}}) {
      CAPTURE(shape);
      index_t const n = shape.cols;
      gptq const how{.damping = 0.02, .sweeps = 0};
      auto const w = random_matrix(shape, 3);
      auto const c = moment_of(n, 40, 5);
      auto kept = coded(exec, w, c, how);
      auto const scales = scales_of(exec, kept);
      auto const codes = values_of<std::uint8_t>(kept, "codes");

      auto damped = copied(c);
      double trace = 0;
      for (index_t j = 0; j < n; ++j) trace += c(j, j);
      for (index_t j = 0; j < n; ++j) damped(j, j) += how.damping * trace / static_cast<double>(n);
      auto inverse = inverse_of(damped);
      std::vector<index_t> order(static_cast<std::size_t>(n));
      std::iota(order.begin(), order.end(), index_t{0});
      std::ranges::sort(order, [&](index_t a, index_t b) { return c(a, a) > c(b, b); });
      matrix<double> left{shape};
      for (index_t e = 0; e < shape.size(); ++e) left.data()[e] = static_cast<double>(w.data()[e]);
      int wrong = 0;
      for (auto const j : order) {
        for (index_t i = 0; i < shape.rows; ++i) {
          float const scale = scales[static_cast<std::size_t>((i * n + j) / 64)];
          block_scale const shared{scale, 0, 1 / scale};
          int const code = code_of(nf4, static_cast<float>(left(i, j)), shared);
          wrong += code != code_at(codes, i * n + j);
          double const error = (left(i, j) - static_cast<double>(value_of(nf4, code, shared))) / inverse(j, j);
          for (index_t k = 0; k < n; ++k)
            if (k != j) left(i, k) -= error * inverse(j, k);
        }
        auto const struck = copied(inverse);
        for (index_t a = 0; a < n; ++a)
          for (index_t b = 0; b < n; ++b) inverse(a, b) -= struck(a, j) * struck(j, b) / struck(j, j);
      }
      CHECK(wrong == 0);
    }
  }

  TEST_CASE("the scale of a block does the least to the outputs of those that are tried, as far as it is kept") {
    host_executor exec{{.threads = 2}};
    codec::book4<> const nf4;
    extents const shape{40, 100};  // blocks go over the ends of rows, and the last one is short
    auto const w = random_matrix(shape, 4);
    auto const c = moment_of(shape.cols, 60, 6);
    for (gptq const how : {gptq{}, gptq{.narrowest = 0.8F, .widest = 1, .scales = 3}, gptq{.scales = 1}}) {
      std::vector<float> wanted;
      for (index_t first = 0; first < shape.size(); first += 64) {
        index_t const end = std::min(shape.size(), first + 64);
        float most = 0;
        for (index_t e = first; e < end; ++e) most = std::max(most, std::abs(w.data()[e]));
        double least = 1e30;
        wanted.push_back(0);
        for (int s = 0; s < how.scales; ++s) {
          float const factor = how.scales == 1 ? 1.0F
                                               : how.narrowest + (how.widest - how.narrowest) * static_cast<float>(s) /
                                                                     static_cast<float>(how.scales - 1);
          block_scale const shared{most * factor, 0, 1 / (most * factor)};
          double loss = 0;
          for (index_t e = first; e < end; ++e) {
            float const off = value_of(nf4, code_of(nf4, w.data()[e], shared), shared) - w.data()[e];
            loss += c(e % shape.cols, e % shape.cols) * static_cast<double>(off) * static_cast<double>(off);
          }
          if (loss < least) least = loss, wanted.back() = shared.scale;
        }
      }
      double_quantized<> expected{shape.size()};
      exec.reserve(double_quantized<>::workspace_bytes(shape.size()));
      keep_scales(exec, wanted.data(), expected);
      auto kept = coded(exec, w, c, how);
      CHECK(values_of<std::uint8_t>(kept, "scale.codes") == values_of<std::uint8_t>(expected, "scale.codes"));
      CHECK(scales_of(exec, kept) == scales_of(exec, expected));
    }
  }

  TEST_CASE_TEMPLATE("sweeps end where no other code alone would be better", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    codec::book4<> const nf4;
    extents const shape{7, 90};
    auto const w = random_matrix(shape, 3);
    auto c = moment_of(shape.cols, 150, 5);
    auto const once = coded(exec, w, c, {.sweeps = 0}), swept = coded(exec, w, c, {.sweeps = 1}),
               settled = coded(exec, w, c, {.sweeps = 40});
    auto const scales = scales_of(exec, once);
    CHECK(scales == scales_of(exec, settled));
    double trace = 0;
    for (index_t j = 0; j < shape.cols; ++j) trace += c(j, j);
    for (index_t j = 0; j < shape.cols; ++j) c(j, j) += gptq{}.damping * trace / static_cast<double>(shape.cols);
    auto const kept = opened(exec, settled, shape);
    CHECK(output_loss(w, opened(exec, swept, shape), c) < output_loss(w, opened(exec, once, shape), c));
    CHECK(output_loss(w, kept, c) <= output_loss(w, opened(exec, swept, shape), c));
    // What one code more would change, by the definition of the loss: 2 d (E C)_ij + d² C_jj.
    double worst = 0;
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) {
        double slope = 0;
        for (index_t k = 0; k < shape.cols; ++k) slope += static_cast<double>(kept(i, k) - w(i, k)) * c(k, j);
        float const scale = scales[static_cast<std::size_t>((i * shape.cols + j) / 64)];
        for (int code = 0; code < 16; ++code) {
          double const d = static_cast<double>(value_of(nf4, code, {scale, 0, 1 / scale}) - kept(i, j));
          worst = std::min(worst, (2 * slope * d + d * d * c(j, j)) / (trace / static_cast<double>(shape.cols)));
        }
      }
    CHECK(worst > -1e-5);
  }

  TEST_CASE("outputs suffer a fraction of what they do by rounding to nearest, in the same bytes") {
    host_executor exec{{.threads = 2}};
    extents const shape{48, 192};
    auto const w = random_matrix(shape, 7);
    auto const c = moment_of(shape.cols, 400, 8);
    double_quantized<> nearest{shape.size()};
    exec.reserve(double_quantized<>::workspace_bytes(shape.size()));
    quantize(exec, w.data(), nearest);
    double const plain = output_loss(w, opened(exec, nearest, shape), c);
    auto const loss = [&](gptq const& how) { return output_loss(w, opened(exec, coded(exec, w, c, how), shape), c); };
    CHECK(loss({}) < 0.15 * plain);
    CHECK(loss({.scales = 1}) < 0.35 * plain);  // the codes alone
    CHECK(loss({.damping = 100}) < plain);      // without correlations, the scales alone
    CHECK(loss({}) < loss({.damping = 100}));
    CHECK(coded(exec, w, c).bytes() == nearest.bytes());
  }

  TEST_CASE("codecs whose scale is not the largest magnitude are served as well") {
    host_executor exec{{.threads = 2}};
    extents const shape{24, 192};
    auto const w = random_matrix(shape, 7);
    auto const c = moment_of(shape.cols, 400, 8);
    using codes = double_quantized<codec::symmetric<8>, 64>;
    codes nearest{shape.size()}, chosen{shape.size()};
    exec.reserve(codes::workspace_bytes(shape.size()));
    quantize(exec, w.data(), nearest);
    quantize(exec, gptq{}, w.view(), read(c), chosen);
    matrix<float> plain{shape}, kept{shape};
    dequantize(exec, nearest, plain.data());
    dequantize(exec, chosen, kept.data());
    CHECK(output_loss(w, kept, c) < 0.5 * output_loss(w, plain, c));
  }

  TEST_CASE("inputs that say nothing, and blocks with nothing in them") {
    host_executor exec{{.threads = 2}};
    codec::book4<> const nf4;
    extents const shape{3, 65};
    auto const w = random_matrix(shape, 9);
    auto const kept = coded(exec, w, matrix<double>{shape.cols, shape.cols}, {.scales = 1});
    auto const scales = scales_of(exec, kept);
    auto const back = opened(exec, kept, shape);
    for (index_t e = 0; e < shape.size(); ++e) {
      block_scale const shared{scales[static_cast<std::size_t>(e / 64)], 0,
                               1 / scales[static_cast<std::size_t>(e / 64)]};
      CHECK(back.data()[e] == value_of(nf4, code_of(nf4, w.data()[e], shared), shared));
    }
    // Nor do they make any scale but that of the weights themselves the best.
    auto const unseen = opened(exec, coded(exec, w, matrix<double>{shape.cols, shape.cols}), shape);
    double wide = 0, best = 0;
    for (index_t e = 0; e < shape.size(); ++e) {
      wide += std::pow(static_cast<double>(back.data()[e] - w.data()[e]), 2);
      best += std::pow(static_cast<double>(unseen.data()[e] - w.data()[e]), 2);
    }
    CHECK(best <= 1.001 * wide);
    auto faint = moment_of(shape.cols, 30, 1);  // second moments below the numbers of fp32
    for (index_t e = 0; e < faint.shape().size(); ++e) faint.data()[e] *= 0x1p-200;
    CHECK(same_bits(opened(exec, coded(exec, w, faint), shape),
                    opened(exec, coded(exec, w, moment_of(shape.cols, 30, 1)), shape)));
    matrix<float> const zero{shape};
    auto const nothing = opened(exec, coded(exec, zero, moment_of(shape.cols, 30, 1)), shape);
    for (index_t e = 0; e < shape.size(); ++e) CHECK(nothing.data()[e] == 0);
    auto half = random_matrix({4, 64}, 9);
    for (index_t j = 0; j < 64; ++j) half(1, j) = 0;
    auto const halved = opened(exec, coded(exec, half, moment_of(64, 30, 1)), {4, 64});
    for (index_t j = 0; j < 64; ++j) CHECK(std::abs(halved(1, j)) < 0.02F);
    CHECK_NOTHROW((void)coded(exec, matrix<float>{0, 8}, moment_of(8, 30, 1)));
  }

  TEST_CASE("what cannot be meant is refused") {
    host_executor exec{{.threads = 1}};
    auto const w = random_matrix({4, 8}, 1);
    auto const c = moment_of(8, 20, 2);
    CHECK_THROWS_AS((void)coded(exec, w, c, {.damping = 0}), argument_error);
    CHECK_THROWS_AS((void)coded(exec, w, c, {.narrowest = 0}), argument_error);
    CHECK_THROWS_AS((void)coded(exec, w, c, {.widest = 0.5F}), argument_error);
    CHECK_THROWS_AS((void)coded(exec, w, c, {.scales = 0}), argument_error);
    CHECK_THROWS_AS((void)coded(exec, w, c, {.sweeps = -1}), argument_error);
    CHECK_THROWS_AS((void)coded(exec, w, moment_of(7, 20, 2)), shape_error);
    double_quantized<> short_of_one{31};
    CHECK_THROWS_AS(quantize(exec, gptq{}, matrix_view<float const>(w.view()), read(c), short_of_one), shape_error);
    matrix<double> indefinite{8, 8};
    for (index_t j = 0; j < 8; ++j) indefinite(j, j) = 1;
    indefinite(0, 1) = indefinite(1, 0) = 5;
    CHECK_THROWS_AS((void)coded(exec, w, indefinite), argument_error);
  }
}

TEST_SUITE("threads") {
  TEST_CASE("gptq: the same codes on any number of threads") {
    auto const w = random_matrix({33, 192}, 2);
    auto const c = moment_of(192, 90, 3);
    auto const run = [&](int threads) {
      host_executor exec{{.threads = threads}};
      auto kept = coded(exec, w, c);
      return values_of<std::uint8_t>(kept, "codes");
    };
    auto const one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(5));
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("gptq refuses what is not finite") {
    host_executor exec{{.threads = 1}};
    auto const c = moment_of(8, 20, 2);
    for (float const bad : {std::bit_cast<float>(0x7FC00000U), std::bit_cast<float>(0x7F800000U), 0x1p127F}) {
      auto w = random_matrix({4, 8}, 1);
      w(3, 7) = bad;
      CHECK_THROWS_AS((void)coded(exec, w, c), argument_error);
    }
    auto moment = moment_of(8, 20, 2);
    moment(3, 3) = std::bit_cast<double>(0x7FF8000000000000U);
    CHECK_THROWS_AS((void)coded(exec, random_matrix({4, 8}, 1), moment), argument_error);
  }
}

}  // namespace gptq_test
