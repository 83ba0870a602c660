/// @file
/// Powers of two on a device: the overloads of linalg/scale_to_unit.hpp and of `narrow_symmetric`. Same bits as on the
/// host.
#pragma once

#include "lowrank/linalg/cuda/elementwise.cuh"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/scale_to_unit.hpp"

namespace lowrank {

namespace detail {

/// 2^-exponent for exponents in [-1023, 1022].
[[nodiscard]] __device__ inline double inverse_power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(1023 - exponent) << 52);
}

/// *largest = the largest `magnitude_bits` of a matrix, 0 of an empty one.
inline void largest_magnitude(cuda_executor& exec, matrix_view<float const, device_space> a, std::uint32_t* largest) {
  auto const v = along_memory(a);
  exec.single([=] __device__ { *largest = 0; });
  constexpr index_t stretch = 32 * warp_lanes;
  for_warps(exec, (v.size() + stretch - 1) / stretch, [=] __device__(index_t item, int lane) {
    index_t element = item * stretch + lane;
    element_position at{static_cast<std::uint64_t>(element), v.cols};
    std::uint32_t most = 0;
#pragma unroll 8
    for (int k = 0; k < stretch && element < v.size(); k += warp_lanes) {
      most = std::max(most, magnitude_bits(v(at.row, at.col)));
      element += warp_lanes;
      at.advance(warp_lanes);
    }
    most = warp_max(most);
    if (lane == 0) atomicMax(largest, most);
  });
}

}  // namespace detail

/// As scale_to_unit(host_executor&, ...).
inline void scale_to_unit(cuda_executor& exec, matrix_view<float, device_space> a, unit_scale* seen,
                          std::int32_t spared = 0) {
  auto* const largest = detail::panel<std::uint32_t>(exec, "scale_to_unit", 1);
  detail::largest_magnitude(exec, a, largest);
  exec.single([=] __device__ {
    int const exponent = *largest == 0 ? 0 : detail::binary_exponent(*largest);
    *seen = {.exponent = exponent >= -spared && exponent <= spared ? 0 : exponent,
             .nonfinite = *largest >= 0x7F800000U ? 1 : 0,
             .zero = *largest == 0 ? 1 : 0};
  });
  auto const v = detail::along_memory(a);
  detail::for_elements(exec, v.shape(), [=] __device__(index_t i, index_t j) {
    int const exponent = seen->exponent;
    if (exponent == 0) return;
    v(i, j) = static_cast<float>(static_cast<double>(v(i, j)) * detail::inverse_power_of_two(exponent));
  });
}

namespace detail {

/// *largest = the bits of the largest magnitude in the lower triangle of A.
inline void largest_magnitude_below(cuda_executor& exec, matrix_view<double const, device_space> a,
                                    unsigned long long* largest) {
  exec.single([=] __device__ { *largest = 0; });
  for_warps(exec, a.rows, [=] __device__(index_t i, int lane) {
    unsigned long long most = 0;
#pragma unroll 4
    for (index_t j = lane; j <= i; j += warp_lanes)
      most = std::max(most, std::bit_cast<unsigned long long>(a(i, j)) & 0x7FFF'FFFF'FFFF'FFFFU);
    most = warp_max(most);
    if (lane == 0) atomicMax(largest, most);
  });
}
/// e of the largest magnitude 2^e, within what a factor of `inverse_power_of_two` can take.
[[nodiscard]] __device__ inline int bounded_exponent(unsigned long long largest) {
  int const exponent = static_cast<int>(largest >> 52) - 1023;
  return exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
}
inline constexpr unsigned long long wide_infinity = 0x7FF0'0000'0000'0000U;

}  // namespace detail

/// As narrow_symmetric(host_executor&, ...).
inline void narrow_symmetric(cuda_executor& exec, matrix_view<double, device_space> a,
                             matrix_view<float, device_space> b, unit_scale* seen) {
  auto* const largest = detail::panel<unsigned long long>(exec, "narrow_symmetric", 1);
  detail::largest_magnitude_below(exec, a, largest);
  exec.single([=] __device__ {
    *seen = {.exponent = detail::bounded_exponent(*largest), .nonfinite = *largest >= detail::wide_infinity ? 1 : 0};
  });
  detail::for_elements(exec, b.shape(), [=] __device__(index_t i, index_t j) {
    b(i, j) = static_cast<float>(detail::inverse_power_of_two(seen->exponent) * (j <= i ? a(i, j) : a(j, i)));
  });
}

}  // namespace lowrank
