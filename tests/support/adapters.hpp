// Adapters held against what they mean: ΔW as a matrix, and finite differences in fp64.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowrank/adapt/adapter.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

using lowrank::adapt::pass_info;

template <class T>
matrix<T> random_values(extents shape, std::uint64_t seed, double size = 1) {
  matrix<T> out{shape};
  for (index_t e = 0; e < shape.size(); ++e)
    out.data()[e] =
        static_cast<T>(size * static_cast<double>(lowrank::gaussian({.seed = seed}, static_cast<std::uint64_t>(e))));
  return out;
}
/// All trained numbers become random ones, so that no gradient is zero by chance.
template <class A>
void stir(A& adapter, std::uint64_t seed, double size = 0.5) {
  for (auto const& t : adapter.tensors()) {
    auto const values = random_values<typename A::value_type>(t.values.shape(), seed++, size);
    for (index_t i = 0; i < t.values.rows; ++i)
      for (index_t j = 0; j < t.values.cols; ++j) t.values(i, j) = values(i, j);
  }
}
/// Y = X ΔWᵀ by the adapter's forward.
template <class E, class A, class T = typename A::value_type>
matrix<T> change_of_outputs(E& exec, A const& adapter, matrix_view<T const> x, pass_info info = {}) {
  exec.reserve(adapter.workspace_bytes(x.rows));
  std::vector<T> kept(static_cast<std::size_t>(adapter.kept_size(x.rows)));
  matrix<T> y{x.rows, adapter.shape().rows};
  adapter.forward(exec, x, std::span<T>{kept}, y.view(), info);
  return y;
}
/// ΔW by add_to.
template <class E, class A, class T = typename A::value_type>
matrix<T> change_of_weights(E& exec, A const& adapter) {
  exec.reserve(adapter.workspace_bytes(1));
  matrix<T> w{adapter.shape()};
  adapter.add_to(exec, T{1}, w.view());
  return w;
}

/// The largest difference between backward and central differences of f = Σ C ∘ Y, over the largest magnitude of all of them: for
/// every trained tensor with a rate, and for the inputs. dX is asked for on top of numbers that are there.
template <class E, class A>
double gradient_error(E& exec, A& adapter, index_t tokens, pass_info info = {}, std::uint64_t seed = 77) {
  auto x = random_values<double>({tokens, adapter.shape().cols}, seed);
  auto const c = random_values<double>({tokens, adapter.shape().rows}, seed + 1);
  auto const read = [&] { return matrix_view<double const>(x.view()); };
  auto const f = [&] {
    auto const y = change_of_outputs(exec, adapter, read(), info);
    double sum = 0;
    for (index_t e = 0; e < y.shape().size(); ++e) sum += y.data()[e] * c.data()[e];
    return sum;
  };
  exec.reserve(adapter.workspace_bytes(tokens));
  std::vector<double> kept(static_cast<std::size_t>(adapter.kept_size(tokens)));
  matrix<double> y{c.shape()}, dx{x.shape()};
  auto const before = random_values<double>(x.shape(), seed + 2);
  std::copy(before.data(), before.data() + before.shape().size(), dx.data());
  adapter.forward(exec, read(), std::span<double>{kept}, y.view(), info);
  std::vector<matrix<double>> gradients;
  std::vector<matrix_view<double>> views;
  for (auto const& t : adapter.tensors()) {
    gradients.push_back(random_values<double>(t.values.shape(), seed + 3));
    views.push_back(t.rate == 0 ? matrix_view<double>{} : gradients.back().view());
  }
  adapter.backward(exec, read(), std::span<double const>{kept}, matrix_view<double const>(c.view()),
                   std::span<matrix_view<double> const>{views}, dx.view(), info);
  double worst = 0, largest = 0;
  auto const hold = [&](double& place, double gradient) {
    double const old = place, step = 1e-5;
    place = old + step;
    double const up = f();
    place = old - step;
    double const difference = (up - f()) / (2 * step);
    place = old;
    worst = std::max(worst, std::abs(gradient - difference));
    largest = std::max(largest, std::abs(difference));
  };
  std::size_t at = 0;
  for (auto const& t : adapter.tensors()) {
    auto const& gradient = gradients[at++];
    if (t.rate == 0) continue;
    for (index_t i = 0; i < t.values.rows; ++i)
      for (index_t j = 0; j < t.values.cols; ++j) hold(t.values(i, j), gradient(i, j));
  }
  for (index_t e = 0; e < x.shape().size(); ++e) hold(x.data()[e], dx.data()[e] - before.data()[e]);
  return worst / largest;
}

}  // namespace lowrank_test
