// What programs make and must give back, besides device memory.
#pragma once

#include <string>

namespace softgpu {

enum class live_kind { pinned_block, stream, event, graph, executable_graph, blas_handle, solver_handle, count };

void count_made(live_kind kind);
void count_gone(live_kind kind);
/// Device allocations, and everything of the list above.
long count_of_live_objects();
/// "2 device allocations, 1 stream"; empty when nothing is left.
std::string census_of_live_objects();
/// The device is reset.
void forget_live_objects();

/// Called when an object file registers: reports become the program's exit status.
void judge_program_at_exit();

}  // namespace softgpu
