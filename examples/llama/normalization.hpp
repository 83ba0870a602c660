/// @file
/// RMS normalisation, with the residual addition that comes before it.
#pragma once

#include "activations.hpp"
#include "lanes.hpp"

namespace llama {

/// y = gain * x / rms(x) for each row, rms(x)² = mean(x²) + epsilon. With `added`, x += added comes first.
/// Ensures: scale[t] = 1 / rms of row t.
template <class Executor, class T>
void rms_norm(Executor& exec, view<T const> added, view<T> x, view<T const> gain, double epsilon, view<T> y, T* scale) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  index_t const d = x.cols;
  exec.parallel((x.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(x.rows, (task + 1) * chunk); ++t) {
      T* const __restrict in = x.data + t * d;
      if (!added.empty()) {
        T const* const __restrict more = added.data + t * d;
        for (index_t i = 0; i < d; ++i) in[i] += more[i];
      }
      T const s = T{1} / std::sqrt(dot<T>(in, in, d) / static_cast<T>(d) + static_cast<T>(epsilon));
      T* const __restrict out = y.data + t * d;
      T const* const __restrict g = gain.data;
      for (index_t i = 0; i < d; ++i) out[i] = in[i] * s * g[i];
      scale[t] = s;
    }
  });
}

/// Gradient of `rms_norm`: x becomes skipped + its gradient, where `skipped` is what reaches x around the norm.
/// With s = 1 / rms and w = gain * dy: dx = s w - x s³ mean(w x), dgain = sum over rows of dy x s.
/// `partials` holds one row for every `rows_per_task` rows; dgain is written unless its view is empty.
template <class Executor, class T>
void rms_norm_backward(Executor& exec, view<T const> skipped, view<T const> dy, view<T const> gain, T const* scale,
                       view<T> x, view<T> dgain, T* partials, T keep) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  index_t const d = x.cols, tasks = (x.rows + chunk - 1) / chunk;
  exec.parallel(tasks, [&](index_t task) {
    T* const __restrict partial = partials + task * d;
    std::fill(partial, partial + d, T{});
    for (index_t t = task * chunk; t < std::min(x.rows, (task + 1) * chunk); ++t) {
      T* const __restrict row = x.data + t * d;
      T const* const __restrict upstream = dy.data + t * d;
      T const* const __restrict g = gain.data;
      T const s = scale[t];
      lanes_t<T> sums = {}, a, b, c;
      constexpr index_t width = lanes<T>::count;
      index_t i = 0;
      for (; i + width <= d; i += width) {
        detail::load<T>(a, row + i);
        detail::load<T>(b, upstream + i);
        detail::load<T>(c, g + i);
        sums += a * b * c;
      }
      T along = detail::fold<T>(sums, [](T p, T q) { return p + q; });
      for (; i < d; ++i) along += row[i] * upstream[i] * g[i];
      T const pull = s * s * s * along / static_cast<T>(d);
      for (index_t j = 0; j < d; ++j) partial[j] += upstream[j] * row[j] * s;
      if (skipped.empty()) {
        for (index_t j = 0; j < d; ++j) row[j] = s * g[j] * upstream[j] - row[j] * pull;
      } else {
        T const* const __restrict around = skipped.data + t * d;
        for (index_t j = 0; j < d; ++j) row[j] = around[j] + (s * g[j] * upstream[j] - row[j] * pull);
      }
    }
  });
  if (dgain.empty()) return;
  for (index_t i = 0; i < d; ++i) dgain.data[i] = keep == T{0} ? T{0} : keep * dgain.data[i];
  for (index_t task = 0; task < tasks; ++task)
    for (index_t i = 0; i < d; ++i) dgain.data[i] += partials[task * d + i];
}

}  // namespace llama
