/// @file
/// Work on whole columns on a device: the overloads of linalg/columns.hpp and of `newton_schulz_factor`. Scales,
/// factors and signs have the host's bits; `departure` is summed in another order.
#pragma once

#include "lowrank/linalg/columns.hpp"
#include "lowrank/linalg/cuda/random.cuh"
#include "lowrank/linalg/cuda/unit_scale.cuh"
#include "lowrank/linalg/polar.hpp"

namespace lowrank {

namespace detail {

/// largest[j] = the largest key(y(i, j), i) of column j, 0 of an empty one. The largest of integers does not depend on
/// who comes first.
template <class Key, class Of>
void largest_of_columns(cuda_executor& exec, matrix_view<float const, device_space> y, Key* largest, Of const& key) {
  for_elements(exec, {1, y.cols}, [=] __device__(index_t, index_t j) { largest[j] = 0; });
  bool const down = runs_down(y);
  index_t const height = down ? 32 * warp_lanes : 32, groups = down ? y.cols : (y.cols + warp_lanes - 1) / warp_lanes;
  for_warps(exec, groups * ((y.rows + height - 1) / height), [=] __device__(index_t item, int lane) {
    index_t const stretch = item / groups, group = item - stretch * groups, begin = stretch * height;
    index_t const end = begin + height < y.rows ? begin + height : y.rows;
    Key most = 0;
    if (down) {
#pragma unroll 4
      for (index_t i = begin + lane; i < end; i += warp_lanes) most = std::max<Key>(most, key(y(i, group), i));
      most = warp_max(most);
      if (lane == 0) atomicMax(largest + group, most);
      return;
    }
    index_t const j = group * warp_lanes + lane;
    if (j >= y.cols) return;
#pragma unroll 4
    for (index_t i = begin; i < end; ++i) most = std::max<Key>(most, key(y(i, j), i));
    atomicMax(largest + j, most);
  });
}

/// y(i, j) = f(y(i, j), j), neighbours in memory by neighbouring threads.
template <class F>
void map_columns(cuda_executor& exec, matrix_view<float, device_space> y, F const& f) {
  if (runs_down(y))
    for_elements(exec, y.shape().t(), [=] __device__(index_t j, index_t i) { y(i, j) = f(y(i, j), j); });
  else for_elements(exec, y.shape(), [=] __device__(index_t i, index_t j) { y(i, j) = f(y(i, j), j); });
}

/// The entry of largest magnitude of a column, the first of several, as a number that sorts as these do: magnitude,
/// distance of its row from the last possible one, sign.
using leading_entry = unsigned long long;

[[nodiscard]] __device__ inline leading_entry entry_key(float x, index_t row) {
  auto const bits = std::bit_cast<std::uint32_t>(x);
  leading_entry const magnitude = bits & 0x7FFFFFFFU, before = 0xFFFF'FFFFU - static_cast<leading_entry>(row);
  return magnitude == 0 ? 0 : magnitude << 33 | before << 1 | bits >> 31;
}
[[nodiscard]] __device__ inline float sign_of(leading_entry entry) { return (entry & 1U) != 0 ? -1.0F : 1.0F; }

inline void leading_entries(cuda_executor& exec, matrix_view<float const, device_space> y, leading_entry* entries) {
  require<shape_error>(y.rows <= (index_t{1} << 32), "orient_columns", "needs at most 2^32 rows, got ", y.rows);
  largest_of_columns(exec, y, entries, [] __device__(float x, index_t i) { return entry_key(x, i); });
}
/// Each column times the sign of its entry.
inline void orient_by(cuda_executor& exec, matrix_view<float, device_space> y, leading_entry const* entries) {
  map_columns(exec, y, [=] __device__(float x, index_t j) { return x * sign_of(entries[j]); });
}

}  // namespace detail

/// As balance_columns(host_executor&, ...).
inline void balance_columns(cuda_executor& exec, matrix_view<float, device_space> y, std::int32_t* nonfinite) {
  auto* const largest = detail::panel<std::uint32_t>(exec, "balance_columns", y.cols);
  detail::largest_of_columns(exec, y, largest, [] __device__(float x, index_t) { return detail::magnitude_bits(x); });
  detail::for_warps(exec, 1, [=, count = y.cols] __device__(index_t, int lane) {
    std::uint32_t most = 0;
    for (index_t j = lane; j < count; j += detail::warp_lanes) most = std::max(most, largest[j]);
    most = detail::warp_max(most);
    if (lane == 0) *nonfinite = most >= 0x7F800000U ? 1 : 0;
  });
  detail::map_columns(exec, y, [=] __device__(float x, index_t j) {
    double const factor = detail::inverse_power_of_two(detail::binary_exponent(largest[j]));
    return static_cast<float>(static_cast<double>(x) * factor);
  });
}

/// As unit_scales(host_executor&, ...).
inline void unit_scales(cuda_executor& exec, matrix_view<double const, device_space> c, double* scales, double floor) {
  detail::for_elements(exec, {1, c.cols}, [=] __device__(index_t, index_t j) {
    scales[j] = c(j, j) > floor ? 1.0 / std::sqrt(c(j, j)) : 0.0;
  });
}

/// As scale_gram(host_executor&, ...).
inline void scale_gram(cuda_executor& exec, matrix_view<double, device_space> c, double const* scales, double shift,
                       gram_condition* condition) {
  auto* const partial = detail::panel<double>(exec, "scale_gram", c.rows);
  detail::for_warps(exec, c.rows, [=] __device__(index_t i, int lane) {
    double sum = 0;
#pragma unroll 4
    for (index_t j = lane; j < i; j += detail::warp_lanes) {
      double const scaled = c(i, j) * scales[i] * scales[j];
      c(i, j) = scaled;
      sum += scaled * scaled;
    }
    sum = detail::warp_sum(sum);
    if (lane != 0) return;
    partial[i] = sum;
    c(i, i) = 1.0 + shift;
  });
  detail::for_warps(exec, 1, [=, count = c.rows] __device__(index_t, int lane) {
    double sum = 0, dead = 0;
#pragma unroll 4
    for (index_t i = lane; i < count; i += detail::warp_lanes) {
      sum += partial[i];
      dead += scales[i] == 0 ? 1 : 0;
    }
    sum = detail::warp_sum(sum);
    dead = detail::warp_sum(dead);
    if (lane == 0)
      *condition = {
          .departure = std::sqrt(2 * sum), .dead = static_cast<std::int32_t>(dead), .dropped = 0, .weakest = 0};
  });
}

/// As drop_dependent(host_executor&, ...).
inline void drop_dependent(cuda_executor& exec, matrix_view<double const, device_space> factor, double tolerance,
                           double* scales, gram_condition* condition) {
  detail::for_warps(exec, 1, [=] __device__(index_t, int lane) {
    double dropped = 0, weakest = 1;
#pragma unroll 4
    for (index_t j = lane; j < factor.cols; j += detail::warp_lanes) {
      if (scales[j] == 0) continue;
      double const pivot = factor(j, j) * factor(j, j);
      if (pivot > tolerance) {
        weakest = std::min(weakest, pivot);
      } else {
        scales[j] = 0;
        ++dropped;
      }
    }
    dropped = detail::warp_sum(dropped);
    weakest = -detail::warp_max(-weakest);
    if (lane != 0) return;
    condition->dropped = static_cast<std::int32_t>(dropped);
    condition->weakest = weakest;
  });
}

namespace detail {

/// W(i, j) = above(i, j) for i < j, on(j) for i = j and 0 below.
template <class Above, class On>
void fill_upper(cuda_executor& exec, matrix_view<float, device_space> w, Above const& above, On const& on) {
  auto const element = [=] __device__(index_t i, index_t j) {
    w(i, j) = static_cast<float>(i < j ? above(i, j) : i == j ? on(j) : 0.0);
  };
  if (runs_down(w)) for_elements(exec, w.shape().t(), [=] __device__(index_t j, index_t i) { element(i, j); });
  else for_elements(exec, w.shape(), element);
}

}  // namespace detail

/// As narrow_inverse(host_executor&, ...).
inline void narrow_inverse(cuda_executor& exec, matrix_view<double const, device_space> inverse, double const* scales,
                           matrix_view<float, device_space> w) {
  detail::fill_upper(
      exec, w, [=] __device__(index_t i, index_t j) { return scales[i] * inverse(j, i); },
      [=] __device__(index_t j) { return scales[j] * inverse(j, j); });
}

/// As first_order_inverse(host_executor&, ...).
inline void first_order_inverse(cuda_executor& exec, matrix_view<double const, device_space> c, double const* scales,
                                matrix_view<float, device_space> w) {
  detail::fill_upper(
      exec, w, [=] __device__(index_t i, index_t j) { return -scales[i] * c(j, i); },
      [=] __device__(index_t j) { return scales[j] - 1.0; });
}

/// As replace_columns(host_executor&, ...).
inline void replace_columns(cuda_executor& exec, rng_key const& key, std::uint64_t first, double const* scales,
                            matrix_view<float, device_space> y) {
  auto const length = static_cast<float>(std::sqrt(3.0 / static_cast<double>(y.rows)));
  detail::for_elements(exec, y.shape(), [=] __device__(index_t i, index_t j) {
    if (scales[j] != 0) return;
    std::uint64_t const element = first + static_cast<std::uint64_t>(i * y.cols + j);
    auto const word = detail::word_of(random_block(key, element / 4), element);
    y(i, j) = static_cast<float>(static_cast<std::int32_t>(word) >> 7) * 0x1p-24F * length;
  });
}

/// Column k times factor(k); `factor` is a device function.
template <class Factor>
void scale_columns(cuda_executor& exec, matrix_view<float, device_space> y, Factor const& factor) {
  detail::map_columns(exec, y, [=] __device__(float x, index_t j) { return x * factor(j); });
}

/// As orient_columns(host_executor&, ...).
inline void orient_columns(cuda_executor& exec, matrix_view<float, device_space> y) {
  auto* const entries = detail::panel<detail::leading_entry>(exec, "orient_columns", y.cols);
  detail::leading_entries(exec, y, entries);
  detail::orient_by(exec, y, entries);
}

/// As newton_schulz_factor(host_executor&, ...).
inline void newton_schulz_factor(cuda_executor& exec, matrix_view<double, device_space> c,
                                 matrix_view<float, device_space> w, double* departure) {
  auto* const partial = detail::panel<double>(exec, "newton_schulz_factor", c.rows);
  detail::for_warps(exec, c.rows, [=] __device__(index_t i, int lane) {
    double sum = 0;
#pragma unroll 4
    for (index_t j = lane; j < c.cols; j += detail::warp_lanes) {
      double const beyond = c(i, j) - (i == j ? 1.0 : 0.0);
      sum += beyond * beyond;
      w(i, j) = static_cast<float>(-0.5 * beyond);
    }
    sum = detail::warp_sum(sum);
    if (lane == 0) partial[i] = sum;
  });
  detail::for_warps(exec, 1, [=, count = c.rows] __device__(index_t, int lane) {
    double sum = 0;
#pragma unroll 4
    for (index_t i = lane; i < count; i += detail::warp_lanes) sum += partial[i];
    sum = detail::warp_sum(sum);
    if (lane == 0) *departure = std::sqrt(sum);
  });
}

}  // namespace lowrank
