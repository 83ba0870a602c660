/// @file
/// Loops that do nothing but move bytes, on the threads of the executor that is measured beside them: what memory allows
/// at this moment on this machine.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/executor.hpp"
#include "lowrank/tile/pack.hpp"

namespace lowrank::bench {

namespace detail {

/// body(i) for every register of `count` floats (a multiple of the register), in stretches that threads share out.
template <class Body>
void for_packs(host_executor& exec, index_t count, Body const& body) {
  constexpr index_t stretch = 1 << 14;
  exec.parallel((count + stretch - 1) / stretch, [&](index_t task) {
    index_t const end = std::min(count, (task + 1) * stretch);
    for (index_t i = task * stretch; i < end; i += pack::width) body(i);
  });
}

}  // namespace detail

/// Reads a. 4 bytes an element. Memory is asked for ahead of time: without that one stream is slower than it need be.
inline void read_loop(host_executor& exec, float const* a, index_t count) {
  constexpr std::uintptr_t ahead = 2048;
  detail::for_packs(exec, count, [=](index_t i) {
    LOWRANK_PREFETCH(reinterpret_cast<std::uintptr_t>(a + i) + ahead);
    benchmark::DoNotOptimize(pack::load(a + i).v);
  });
}
/// a = b. 8 bytes an element.
inline void copy_loop(host_executor& exec, float* a, float const* b, index_t count) {
  detail::for_packs(exec, count, [=](index_t i) { pack::load(b + i).store(a + i); });
}
/// a = b + s c. 12 bytes an element.
inline void triad_loop(host_executor& exec, float* a, float const* b, float const* c, float s, index_t count) {
  detail::for_packs(exec, count, [=](index_t i) { (pack::load(b + i) + pack{s} * pack::load(c + i)).store(a + i); });
}
/// What a step of Adam moves: reads g, w, m and v, writes w, m and v. One addition each, so that nothing can be left out.
/// 28 bytes an element.
inline void adam_shaped_loop(host_executor& exec, float const* g, float* w, float* m, float* v, index_t count) {
  detail::for_packs(exec, count, [=](index_t i) {
    auto const x = pack::load(g + i);
    (pack::load(w + i) + x).store(w + i);
    (pack::load(m + i) + x).store(m + i);
    (pack::load(v + i) + x).store(v + i);
  });
}
/// The same for rules with `moments` moments: 0, 1 or 2. 12 + 8 moments bytes an element.
inline void step_shaped_loop(host_executor& exec, int moments, float const* g, float* w, float* m, float* v,
                             index_t count) {
  if (moments >= 2) return adam_shaped_loop(exec, g, w, m, v, count);
  detail::for_packs(exec, count, [=](index_t i) {
    auto const x = pack::load(g + i);
    (pack::load(w + i) + x).store(w + i);
    if (moments == 1) (pack::load(m + i) + x).store(m + i);
  });
}

}  // namespace lowrank::bench
