// expect-error: "lowrank: device memory cannot be read here; copy the state to the host first"
#include "lowrank/core/visit.hpp"

struct state {
  lowrank::buffer<float, lowrank::device_space> moment;

  template <class F>
  friend void visit_state(state& s, F&& f) {
    f("moment", s.moment);
  }
};

bool same(state const& a, state const& b) { return lowrank::states_equal(a, b); }

int main() {}
