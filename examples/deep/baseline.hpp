/// @file
/// Two well-known recommenders to be measured against: biased matrix factorization by stochastic gradient descent, and by
/// alternating least squares.
#pragma once

#include "deep/ratings.hpp"
#include "lowrank/core/buffer.hpp"

namespace completion {

/// r̂ = mean + p_i + q_j + a_i · b_j by stochastic gradient descent, the defaults of the well-known library for it.
/// Reference: Koren, Bell, Volinsky, "Matrix factorization techniques for recommender systems" (2009), (5).
struct sgd_factorization {
  index_t factors{100};
  int epochs{20};
  double rate{0.005}, decay{0.02}, spread{0.1};

  /// Error on `test` after training.
  [[nodiscard]] double run(extents shape, list const& train, list const& test, std::uint64_t seed) const {
    auto const k = static_cast<std::size_t>(factors);
    auto const rows = static_cast<std::size_t>(shape.rows), cols = static_cast<std::size_t>(shape.cols);
    std::vector<float> a(rows * k), b(cols * k), p(rows), q(cols);
    for (std::size_t e = 0; e < a.size(); ++e) a[e] = static_cast<float>(spread) * lowrank::gaussian({.seed = seed}, e);
    for (std::size_t e = 0; e < b.size(); ++e)
      b[e] = static_cast<float>(spread) * lowrank::gaussian({.seed = seed, .step = 1}, e);
    double mean = 0;
    for (auto const& o : train) mean += static_cast<double>(o.value) / static_cast<double>(train.size());
    auto const predict = [&](index_t row, index_t col) {
      auto const i = static_cast<std::size_t>(row), j = static_cast<std::size_t>(col);
      float dot = 0;
      for (std::size_t f = 0; f < k; ++f) dot += a[i * k + f] * b[j * k + f];
      return mean + static_cast<double>(p[i] + q[j] + dot);
    };
    auto const step = static_cast<float>(rate), pull = static_cast<float>(decay);
    std::vector<std::size_t> order(train.size());
    for (std::size_t e = 0; e < order.size(); ++e) order[e] = e;
    for (int epoch = 0; epoch < epochs; ++epoch) {
      for (std::size_t e = order.size(); e-- > 1;)
        std::swap(
            order[e],
            order[lowrank::random_word({.seed = seed, .step = static_cast<std::uint32_t>(epoch + 2)}, e) % (e + 1)]);
      for (std::size_t const at : order) {
        auto const& o = train[at];
        auto const i = static_cast<std::size_t>(o.row), j = static_cast<std::size_t>(o.col);
        auto const error = static_cast<float>(static_cast<double>(o.value) - predict(o.row, o.col));
        p[i] += step * (error - pull * p[i]);
        q[j] += step * (error - pull * q[j]);
        for (std::size_t f = 0; f < k; ++f) {
          float const x = a[i * k + f], y = b[j * k + f];
          a[i * k + f] += step * (error * y - pull * x);
          b[j * k + f] += step * (error * x - pull * y);
        }
      }
    }
    return rmse(test, predict);
  }
  [[nodiscard]] index_t bytes(extents shape) const noexcept {
    return (shape.rows + shape.cols) * (factors + 1) * index_t{sizeof(float)};
  }
};

/// The same model by alternating least squares on what offsets leave, ridge weighted by the number of ratings of a row.
/// Reference: Zhou, Wilkinson, Schreiber, Pan, "Large-scale parallel collaborative filtering for the Netflix prize" (2008).
struct als_factorization {
  index_t factors{8};
  int sweeps{12};
  double decay{0.1};
  ridge offset_ridge{};

  [[nodiscard]] double run(extents shape, list const& train, list const& test, std::uint64_t seed) const {
    auto const fixed = fit_offsets(shape, train, offset_ridge);
    lowrank::deep::observations<float> const known{shape, train};
    lowrank::matrix<double> a{shape.rows, factors}, b{shape.cols, factors};
    for (index_t e = 0; e < b.shape().size(); ++e)
      b.data()[e] = 0.1 * static_cast<double>(lowrank::gaussian({.seed = seed}, static_cast<std::uint64_t>(e)));
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      for (index_t i = 0; i < shape.rows; ++i)
        solve(a, i, b, known.row_begin(i), known.row_begin(i + 1), [&](index_t at) {
          index_t const j = known.col(at);
          return std::pair{j, value_of(known, at) - fixed.at(i, j)};
        });
      for (index_t j = 0; j < shape.cols; ++j)
        solve(b, j, a, known.col_begin(j), known.col_begin(j + 1), [&](index_t at) {
          index_t const i = known.row(at);
          return std::pair{i, value_of(known, known.entry(at)) - fixed.at(i, j)};
        });
    }
    return rmse(test, [&](index_t i, index_t j) {
      double dot = fixed.at(i, j);
      for (index_t f = 0; f < factors; ++f) dot += a(i, f) * b(j, f);
      return dot;
    });
  }
  [[nodiscard]] index_t bytes(extents shape) const noexcept {
    return (shape.rows + shape.cols) * (factors + 1) * index_t{sizeof(double)};
  }

 private:
  static double value_of(lowrank::deep::observations<float> const& known, index_t at) {
    return static_cast<double>(known.values()[static_cast<std::size_t>(at)]);
  }
  /// Row `at` of x: (Σ y yᵀ + decay n I) x = Σ e y, by Cholesky.
  template <class Entry>
  void solve(lowrank::matrix<double>& x, index_t at, lowrank::matrix<double> const& y, index_t begin, index_t end,
             Entry const& entry) const {
    index_t const k = factors;
    lowrank::matrix<double> c{k, k};
    std::vector<double> right(static_cast<std::size_t>(k));
    for (index_t p = begin; p < end; ++p) {
      auto const [other, error] = entry(p);
      for (index_t f = 0; f < k; ++f) {
        right[static_cast<std::size_t>(f)] += error * y(other, f);
        for (index_t g = 0; g <= f; ++g) c(f, g) += y(other, f) * y(other, g);
      }
    }
    for (index_t f = 0; f < k; ++f) c(f, f) += decay * static_cast<double>(std::max<index_t>(end - begin, 1));
    for (index_t f = 0; f < k; ++f) {
      for (index_t g = 0; g <= f; ++g) {
        double sum = c(f, g);
        for (index_t h = 0; h < g; ++h) sum -= c(f, h) * c(g, h);
        c(f, g) = g == f ? std::sqrt(sum) : sum / c(g, g);
      }
      double sum = right[static_cast<std::size_t>(f)];
      for (index_t h = 0; h < f; ++h) sum -= c(f, h) * right[static_cast<std::size_t>(h)];
      right[static_cast<std::size_t>(f)] = sum / c(f, f);
    }
    for (index_t f = k; f-- > 0;) {
      double sum = right[static_cast<std::size_t>(f)];
      for (index_t h = f + 1; h < k; ++h) sum -= c(h, f) * x(at, h);
      x(at, f) = sum / c(f, f);
    }
  }
};

}  // namespace completion
