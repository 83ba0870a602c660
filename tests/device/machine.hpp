// One machine for each executor, so that a case is written once, runs on host and device, and gives back plain bytes.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/executor.hpp"

namespace lowrank_test {

/// What a case computed, by name.
using outcome = std::map<std::string, std::vector<std::byte>>;

template <class T>
[[nodiscard]] std::vector<T> numbers(std::vector<std::byte> const& bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

template <std::derived_from<lowrank::host_executor> E>
void copy_bytes(E&, void* to, void const* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

/// Memory and executor of one side; `copy_bytes` is the only thing that differs.
template <class E>
struct machine {
  using space = typename E::space;
  using executor = E;

  E exec{};

  template <class T>
  [[nodiscard]] lowrank::buffer<T, space> upload(std::vector<T> const& from) {
    lowrank::buffer<T, space> out{static_cast<lowrank::index_t>(from.size())};
    copy_bytes(exec, out.data(), from.data(), from.size() * sizeof(T));
    return out;
  }
  template <class T>
  [[nodiscard]] std::vector<T> download(T const* data, lowrank::index_t size) {
    std::vector<T> out(static_cast<std::size_t>(size));
    copy_bytes(exec, out.data(), data, out.size() * sizeof(T));
    return out;
  }
  template <class T>
  void keep(outcome& result, std::string const& name, T const* data, lowrank::index_t size) {
    auto const values = download(data, size);
    auto const* const bytes = reinterpret_cast<std::byte const*>(values.data());
    result[name].assign(bytes, bytes + values.size() * sizeof(T));
  }
  template <class T>
  void keep(outcome& result, std::string const& name, lowrank::buffer<T, space> const& from) {
    keep(result, name, from.data(), from.size());
  }
};

template <class M>
struct named_case {
  std::string name;
  std::function<outcome(M&)> run;
};
template <class M>
using case_list = std::vector<named_case<M>>;

/// Numbers of many magnitudes, so that blocks differ in scale: exp of a normal exponent for each stretch of 64.
[[nodiscard]] inline std::vector<float> heavy_tailed(lowrank::index_t count, unsigned seed, float scale = 1) {
  std::mt19937 random{seed};
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<std::size_t>(count));
  float stretch = 1;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i % 64 == 0) stretch = std::exp(1.5F * normal(random));
    out[i] = scale * stretch * normal(random);
  }
  return out;
}

}  // namespace lowrank_test
