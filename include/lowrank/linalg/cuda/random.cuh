/// @file
/// Random matrices on a device: the overloads of linalg/elementwise.hpp.
#pragma once

#include "lowrank/linalg/cuda/detail/launch.cuh"
#include "lowrank/linalg/elementwise.hpp"

namespace lowrank {

namespace detail {

/// `gaussian_block` with the angle in half turns: nothing is left to reduce, which takes memory as well.
[[nodiscard]] __device__ inline float4 device_gaussians(philox_block const& words) {
  double const first = std::sqrt(-2.0 * std::log(uniform_01(words[0])));
  double const second = std::sqrt(-2.0 * std::log(uniform_01(words[2])));
  double sine = 0, cosine = 0, other_sine = 0, other_cosine = 0;
  ::sincospi(2.0 * uniform_01(words[1]), &sine, &cosine);
  ::sincospi(2.0 * uniform_01(words[3]), &other_sine, &other_cosine);
  return {static_cast<float>(first * sine), static_cast<float>(first * cosine), static_cast<float>(second * other_sine),
          static_cast<float>(second * other_cosine)};
}

}  // namespace detail

/// B(i, j) = +1 or -1, the same bits as on the host: `rademacher(key, first + i cols + j)`.
template <class B>
void fill_rademacher(cuda_executor& exec, rng_key const& key, matrix_view<B, device_space> b, std::uint64_t first = 0) {
  if (b.empty()) return;
  constexpr index_t block = 128;  // signs of one Philox block: each lane of a warp takes a bit of all four words
  auto const lead = static_cast<index_t>(first % block);
  detail::for_warps(exec, (lead + b.size() + block - 1) / block, [=] __device__(index_t item, int lane) {
    auto const words = random_block(key, first / block + static_cast<std::uint64_t>(item));
    // The blocks at the ends of B have elements before it and behind it.
    index_t element = item * block - lead + lane;
    detail::element_position at{static_cast<std::uint64_t>(element < 0 ? 0 : element), b.cols};
#pragma unroll
    for (std::size_t word = 0; word < 4; ++word, element += detail::warp_lanes) {
      if (element < 0 || element >= b.size()) continue;
      if (element < detail::warp_lanes) at = detail::element_position{static_cast<std::uint64_t>(element), b.cols};
      b(at.row, at.col) = detail::convert_element<B>((words[word] >> lane & 1U) != 0 ? 1.0F : -1.0F);
      at.advance(detail::warp_lanes);
    }
  });
}

/// B(i, j) standard normal: `gaussian(key, i cols + j)`. The random words are those of the host; logarithm, sine and
/// cosine are the device's, so a number may differ from the host's in its last bit.
template <class B>
void fill_gaussian(cuda_executor& exec, rng_key const& key, matrix_view<B, device_space> b) {
  detail::for_elements(exec, {1, (b.size() + 3) / 4}, [=] __device__(index_t, index_t block) {
    float4 const four = detail::device_gaussians(random_block(key, static_cast<std::uint64_t>(block)));
    detail::element_position at{static_cast<std::uint64_t>(4 * block), b.cols};
    index_t const left = b.size() - 4 * block;
    auto const put = [&](index_t k, float value) {
      if (k >= left) return;
      b(at.row, at.col) = detail::convert_element<B>(value);
      at.advance(1);
    };
    put(0, four.x), put(1, four.y), put(2, four.z), put(3, four.w);
  });
}

}  // namespace lowrank
