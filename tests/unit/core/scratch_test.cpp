#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "lowrank/core/executor.hpp"

namespace scratch_test {

namespace {

using namespace lowrank;

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (state_error const& e) { return e.what(); }
  return "";
}

TEST_SUITE_BEGIN("scratch");

TEST_CASE("sizes are rounded up to cache lines, and predicted exactly") {
  CHECK(scratch_size(0) == 0);
  CHECK(scratch_size(1) == 64);
  CHECK(scratch_size(64) == 64);
  CHECK(scratch_size(65) == 128);
  CHECK(scratch_bytes<double>(9) == 128);
  CHECK(scratch_bytes<char>(64) == 64);
  scratch<host_space> arena;
  arena.reserve(scratch_bytes<float>(17) + scratch_bytes<double>(8) + scratch_bytes<char>(1));
  scratch_scope const scope{arena};
  auto* const a = arena.take<float>(17);
  auto* const b = arena.take<double>(8);
  auto* const c = arena.take<char>(1);
  CHECK(arena.available() == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(a) % 64 == 0);
  CHECK(reinterpret_cast<char*>(b) - reinterpret_cast<char*>(a) == 128);
  CHECK(c - reinterpret_cast<char*>(b) == 64);
}

TEST_CASE("more than was reserved is refused with both numbers, and nothing is taken") {
  scratch<host_space> arena;
  CHECK_FALSE(refusal([&] { (void)arena.take<char>(1); }).empty());
  arena.reserve(128);
  scratch_scope const scope{arena};
  (void)arena.take<float>(16);
  CHECK(refusal([&] { (void)arena.take<float>(17); }) ==
        "lowrank::scratch::take: needs 192 bytes of scratch, reserved were 128; call "
        "executor.reserve(workspace_bytes(...)) "
        "first");
  CHECK(arena.available() == 64);
  (void)arena.take<float>(16);
  CHECK(arena.available() == 0);
  (void)arena.take<float>(0);
}

TEST_CASE("sizes that are no sizes are refused") {
  scratch<host_space> arena;
  arena.reserve(1024);
  scratch_scope const scope{arena};
  CHECK_THROWS_AS((void)arena.take<float>(-1000), error);
  CHECK_THROWS_AS((void)arena.take<double>((index_t{1} << 61) + 1), error);
  CHECK_THROWS_AS((void)arena.take<double>(index_t{1} << 60), error);
  CHECK(arena.available() == 1024);
}

TEST_CASE("scopes give back in turn, and the peak stays") {
  scratch<host_space> arena;
  arena.reserve(1024);
  {
    scratch_scope const outer{arena};
    auto* const first = arena.take<char>(64);
    char* inner_place = nullptr;
    {
      scratch_scope const inner{arena};
      inner_place = arena.take<char>(512);
    }
    CHECK(arena.available() == 960);
    CHECK(arena.take<char>(1) == inner_place);
    CHECK(inner_place == first + 64);
  }
  CHECK(arena.available() == 1024);
  CHECK(arena.peak() == 576);
  arena.reset_peak();
  CHECK(arena.peak() == 0);
}

TEST_CASE("reserving while scratch is in use is refused; reserving less is nothing") {
  scratch<host_space> arena;
  arena.reserve(128);
  arena.reserve(64);
  CHECK(arena.reserved() == 128);
  {
    scratch_scope const scope{arena};
    auto* const kept = arena.take<float>(1);
    *kept = 3;
    CHECK(refusal([&] { arena.reserve(256); }) ==
          "lowrank::scratch::reserve: must not be called while scratch is in use, 64 bytes are");
    arena.reserve(128);
    CHECK(*kept == 3);
  }
  arena.reserve(256);
  CHECK(arena.reserved() == 256);
}

TEST_CASE("matrices from an executor's scratch lie as natural says") {
  host_executor exec{{.threads = 1, .scratch_bytes = scratch_bytes<float>(12) + scratch_bytes<double>(12)}};
  scratch_scope const scope{exec};
  auto const left = take_matrix(exec, {4, 3});
  auto const right = take_matrix<double>(exec, {4, 3}, side::right);
  CHECK(left.shape() == extents{4, 3});
  CHECK(left.is_row_major());
  CHECK(right.shape() == extents{4, 3});
  CHECK(right.t().is_row_major());
  CHECK(exec.arena().available() == 0);
}

TEST_SUITE_END();

}  // namespace

}  // namespace scratch_test
