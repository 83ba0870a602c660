// expect-error: "use of deleted function .*buffer\(const lowrank::buffer"
#include "lowrank/core/buffer.hpp"

int main() {
  lowrank::buffer<float> state{16};
  auto copy = state;  // a silent copy of optimizer state is never what was meant
  return copy.size() == 16 ? 0 : 1;
}
