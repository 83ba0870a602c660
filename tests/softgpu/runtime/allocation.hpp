// Memory as the runtime's callers see it: device, pinned and ordinary.
#pragma once

namespace softgpu {

bool is_device(void const* pointer);
/// In page-locked host memory: asynchronous copies read and write it when they run, not when they are called.
bool is_pinned(void const* pointer);

/// The device is reset: all device memory of the program is given back.
void release_everything();

}  // namespace softgpu
