/// @file
/// Weights on a device: what stores a panel of them.
#pragma once

#include "lowrank/quant/weight.hpp"
#include "lowrank/tile/tile.cuh"

namespace lowrank {

namespace detail {

template <class Store>
__global__ void __launch_bounds__(256) run_store_panel(matrix_view<float const, device_space> const panel,
                                                       step_record const* const record, Store const store) {
  if (record->skip != 0) return;
  index_t const threads = index_t{gridDim.x} * blockDim.x;
  for (index_t at = index_t{blockIdx.x} * blockDim.x + threadIdx.x; at < panel.size(); at += threads) {
    index_t const i = at / panel.cols, j = at % panel.cols;
    store(i, j, panel(i, j));
  }
}

}  // namespace detail

/// See the overload for `host_executor`.
template <class Store>
void store_panel(cuda_executor& exec, matrix_view<float const, device_space> panel, step_record const* record,
                 Store const& store) {
  if (panel.empty()) return;
  index_t const warps = (panel.size() + detail::warp_size - 1) / detail::warp_size;
  detail::run_store_panel<<<detail::blocks_for(exec, warps), 256, 0, exec.stream()>>>(panel, record, store);
  cuda_executor::check_launch("a kernel that stores a panel");
}

}  // namespace lowrank
