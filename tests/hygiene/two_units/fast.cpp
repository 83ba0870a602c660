// Built with -O3 -ffast-math and without assertions.
#include "use.hpp"

findings use_fast() { return use(); }
