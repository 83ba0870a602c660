// expect-error: "static assertion failed: lowrank: buffers hold plain numbers"
#include <string>

#include "lowrank/core/buffer.hpp"

int main() { return static_cast<int>(lowrank::buffer<std::string>{1}.size()); }
