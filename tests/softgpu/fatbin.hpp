// What nvcc embeds in an object file and registers before main: find the PTX text in it.
#pragma once

#include <string_view>

namespace softgpu {

/// The PTX text behind the wrapper that `__cudaRegisterFatBinary` is given; it lives as long as the program. Machine
/// code beside it is skipped. Ends the program with a message when there is no PTX, or only compressed PTX.
std::string_view ptx_of(void const* wrapper);

}  // namespace softgpu
