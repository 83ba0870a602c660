/// @file
/// The gated activation of the feed-forward part: silu(gate) * up.
#pragma once

#include "activations.hpp"
#include "exponential.hpp"

namespace llama {

/// Shapes: gate_up T x 2 f (gate first), active T x f.
template <class Executor, class T>
void swiglu(Executor& exec, view<T const> gate_up, view<T> active) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  index_t const f = active.cols;
  exec.parallel((active.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(active.rows, (task + 1) * chunk); ++t) {
      T const* const __restrict gate = gate_up.data + t * gate_up.row_stride;
      T const* const __restrict up = gate + f;
      T* const __restrict out = active.data + t * active.row_stride;
      detail::each_register<T>(f, [=](index_t i, auto count) {
        lanes_t<T> g, u;
        detail::load<T>(g, gate + i, count);
        detail::load<T>(u, up + i, count);
        lanes_t<T> s = g;
        sigmoid(s);
        detail::store<T>(out + i, g * s * u, count);
      });
    }
  });
}

/// Both gradients, written over gate and up: with s = sigmoid(gate), dgate = dy up s (1 + gate (1 - s)), dup = dy gate s.
template <class Executor, class T>
void swiglu_backward(Executor& exec, view<T const> dy, view<T> gate_up) {
  constexpr index_t chunk = activations<T>::rows_per_task;
  index_t const f = dy.cols;
  exec.parallel((dy.rows + chunk - 1) / chunk, [&](index_t task) {
    for (index_t t = task * chunk; t < std::min(dy.rows, (task + 1) * chunk); ++t) {
      T const* const __restrict upstream = dy.data + t * dy.row_stride;
      T* const __restrict gate = gate_up.data + t * gate_up.row_stride;
      T* const __restrict up = gate + f;
      detail::each_register<T>(f, [=](index_t i, auto count) {
        lanes_t<T> g, u, d;
        detail::load<T>(g, gate + i, count);
        detail::load<T>(u, up + i, count);
        detail::load<T>(d, upstream + i, count);
        lanes_t<T> s = g;
        sigmoid(s);
        detail::store<T>(gate + i, d * u * s * (1 + g * (1 - s)), count);
        detail::store<T>(up + i, d * g * s, count);
      });
    }
  });
}

}  // namespace llama
