// expect-error: "lowrank: visit_state names numbers, enumerations, std::arrays of them, buffers and matrices"
#include <string>

#include "lowrank/core/visit.hpp"

struct state {
  std::string name;

  template <class F>
  friend void visit_state(state& s, F&& f) {
    f("name", s.name);
  }
};

int main() { return static_cast<int>(lowrank::state_bytes(state{})); }
