// Two units that include the whole library, built with different options, are one program and compute the same.
#include <cstdio>

#include "use.hpp"

findings use_strictly();
findings use_fast();

namespace {

bool right(char const* unit, findings const& found) {
  std::printf("%s: product %g (155), NaN is finite %d (0), infinity is finite %d (0)\n", unit, found.product,
              found.nan_is_finite, found.infinity_is_finite);
  return found.product == 155.0F && !found.nan_is_finite && !found.infinity_is_finite;
}

}  // namespace

int main() {
  bool const main_is_right = right("main", use()), strict_is_right = right("strict", use_strictly()),
             fast_is_right = right("fast", use_fast());
  return main_is_right && strict_is_right && fast_is_right ? 0 : 1;
}
