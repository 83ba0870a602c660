// Built without optimisation and with assertions.
#include "use.hpp"

findings use_strictly() { return use(); }
