/// @file
/// Powers of two that keep products of products inside fp32. An executor with memory of its own brings its own overload.
#pragma once

#include <atomic>
#include <bit>

#include "lowrank/linalg/columns.hpp"

namespace lowrank {

/// What `scale_to_unit` took out of a matrix, in the executor's memory space.
struct unit_scale {
  std::int32_t exponent{};   ///< the matrix was 2^exponent times what it is now
  std::int32_t nonfinite{};  ///< 1: there is a NaN or an infinity
  std::int32_t zero{};       ///< 1: there is nothing else
};

/// A <- 2^-e A with its largest magnitude in [1, 2): exact except for what becomes subnormal. A zero matrix has e = 0, and
/// so has one whose e would be at most `spared` either way.
/// Cost: reads A twice and writes it once, where e = 0 reads it once; workspace 0.
inline void scale_to_unit(host_executor& exec, matrix_view<float> a, unit_scale* seen, std::int32_t spared = 0) {
  if (a.row_stride < a.col_stride && a.cols > 1) a = a.t();
  std::uint32_t largest = 0;
  detail::for_row_groups(exec, a.shape(), [&](index_t begin, index_t end) {
    std::uint32_t most = 0;
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < a.cols; ++j) most = std::max(most, detail::magnitude_bits(a(i, j)));
    std::atomic_ref const all{largest};
    for (auto now = all.load(); now < most && !all.compare_exchange_weak(now, most);) continue;
  });
  *seen = {.exponent = largest == 0 ? 0 : detail::binary_exponent(largest),
           .nonfinite = largest >= 0x7F800000U ? 1 : 0,
           .zero = largest == 0 ? 1 : 0};
  if (std::abs(seen->exponent) <= spared) seen->exponent = 0;
  if (seen->exponent == 0) return;
  double const factor = std::bit_cast<double>(static_cast<std::uint64_t>(1023 - seen->exponent) << 52);
  detail::map_elements(exec, "scale_to_unit", a, a,
                       [factor](float x) { return static_cast<float>(static_cast<double>(x) * factor); });
}

}  // namespace lowrank
