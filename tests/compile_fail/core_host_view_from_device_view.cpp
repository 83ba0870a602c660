// expect-error: "could not convert .*device_space>. to .*host_space>"
#include "lowrank/core/view.hpp"

lowrank::index_t rows_of(lowrank::matrix_view<float const, lowrank::host_space> view) { return view.rows; }

int main() {
  lowrank::matrix_view<float, lowrank::device_space> on_device{};
  return static_cast<int>(rows_of(on_device));
}
