// expect-error: "no matching function for call to .*buffer<float, lowrank::device_space>::span\(\)"
#include "lowrank/core/buffer.hpp"

auto elements(lowrank::buffer<float, lowrank::device_space>& on_device) { return on_device.span(); }

int main() {}
