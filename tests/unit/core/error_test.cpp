#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "lowrank/core/error.hpp"

namespace error_test {

namespace {

using namespace lowrank;

TEST_SUITE_BEGIN("error");

template <class Error>
void check_message() {
  try {
    require<Error>(false, "caller", "size must be in [0, ", 7, "), got ", -3, ' ', 0.5);
  } catch (Error const& e) {
    CHECK(std::string{e.what()} == "lowrank::caller: size must be in [0, 7), got -3 0.5");
    return;
  }
  FAIL("nothing was thrown");
}

TEST_CASE("an error names the caller, the requirement and the value, and has its own type") {
  check_message<shape_error>();
  check_message<argument_error>();
  check_message<state_error>();
  check_message<io_error>();
  static_assert(std::is_base_of_v<std::runtime_error, error> && std::is_base_of_v<error, io_error>);
  static_assert(!std::is_base_of_v<shape_error, argument_error>);
  CHECK_THROWS_AS(require(false, "caller", "x"), argument_error);  // unless said otherwise
}

struct counted {
  int* prints;
  friend std::ostream& operator<<(std::ostream& out, counted c) {
    ++*c.prints;
    return out;
  }
};
TEST_CASE("what holds costs no formatting") {
  int prints = 0;
  require(true, "caller", counted{&prints});
  CHECK(prints == 0);
  CHECK_THROWS_AS(require(false, "caller", counted{&prints}), error);
  CHECK(prints == 1);
}

TEST_SUITE_END();

}  // namespace

}  // namespace error_test
