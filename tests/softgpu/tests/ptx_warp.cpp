// What lanes do together, against the manual's pseudocode, and what they must not do.
#include "ptx_bench.hpp"
#include "report.hpp"

namespace softgpu_test {

namespace {

using u32 = std::uint32_t;

std::vector<column> scrambled(std::size_t rows = 64) {
  std::vector<column> c{{32, {}}};
  for (std::size_t n = 0; n < rows; ++n) c[0].values.push_back((n * 2654435761U ^ n << 7) & 0xffffffff);
  return c;
}

/// The manual's pseudocode of shfl.sync.
struct shuffled {
  u32 lane;
  bool in_range;
};
shuffled shuffle(std::string const& mode, u32 lane, u32 b, u32 c) {
  u32 const bval = b & 31, cval = c & 31, mask = c >> 8 & 31;
  u32 const max_lane = (lane & mask) | (cval & ~mask & 31), min_lane = lane & mask;
  int j = 0;
  bool p = false;
  if (mode == "up") {
    j = static_cast<int>(lane) - static_cast<int>(bval);
    p = j >= static_cast<int>(max_lane);
  } else if (mode == "down") {
    j = static_cast<int>(lane + bval);
    p = j <= static_cast<int>(max_lane);
  } else if (mode == "bfly") {
    j = static_cast<int>(lane ^ bval);
    p = j <= static_cast<int>(max_lane);
  } else {
    j = static_cast<int>(min_lane | (bval & ~mask & 31));
    p = j <= static_cast<int>(max_lane);
  }
  return {p ? static_cast<u32>(j) : lane, p};
}

}  // namespace

TEST_CASE("shuffles") {
  auto const x = scrambled();
  struct row {
    char const* mode;
    u32 c;
  };
  // Widths 32, 16 and 8 as the CUDA headers encode them.
  row const rows[] = {{"up", 0},        {"up", 0x1000},   {"up", 0x1800}, {"down", 0x1f},
                      {"down", 0x101f}, {"down", 0x181f}, {"bfly", 0x1f}, {"bfly", 0x101f},
                      {"idx", 0x1f},    {"idx", 0x101f},  {"idx", 0x181f}};
  for (row const& r : rows)
    for (u32 const b : {0U, 1U, 3U, 8U, 16U, 31U}) {
      auto const got = evaluate("shfl.sync." + std::string(r.mode) + ".b32 %r0|%p0, %a, " + std::to_string(b) + ", " +
                                    std::to_string(r.c) + ", -1; selp.b32 %r1, 1, 0, %p0; xor.b32 %d, %r0, %r1;",
                                32, x);
      for (u32 n = 0; n < 64; ++n) {
        auto const s = shuffle(r.mode, n % 32, b, r.c);
        CAPTURE(r.mode);
        CAPTURE(b);
        CHECK(got[n] == (x[0].values[n - n % 32 + s.lane] ^ (s.in_range ? 1 : 0)));
      }
    }
}
TEST_CASE("votes") {
  for (u32 const threshold : {0U, 1U, 20U, 32U}) {
    std::string const predicate = "mov.u32 %r0, %laneid; setp.lt.u32 %p0, %r0, " + std::to_string(threshold) + "; ";
    auto const all_of = [&](std::string const& text) { return evaluate(predicate + text, 32, scrambled(32)); };
    u32 const mask = threshold == 32 ? ~0U : (1U << threshold) - 1;
    for (auto const v : all_of("vote.sync.ballot.b32 %d, %p0, -1;")) CHECK(v == mask);
    for (auto const v : all_of("vote.ballot.sync.b32 %d, %p0, -1;")) CHECK(v == mask);
    for (auto const v : all_of("vote.sync.any.pred %p1, %p0, -1; selp.b32 %d, 1, 0, %p1;")) CHECK(v == (threshold > 0));
    for (auto const v : all_of("vote.sync.all.pred %p1, %p0, -1; selp.b32 %d, 1, 0, %p1;"))
      CHECK(v == (threshold == 32));
    for (auto const v : all_of("vote.sync.all.pred %p1, !%p0, -1; selp.b32 %d, 1, 0, %p1;"))
      CHECK(v == (threshold == 0));
    for (auto const v : all_of("vote.sync.uni.pred %p1, %p0, -1; selp.b32 %d, 1, 0, %p1;"))
      CHECK(v == (threshold == 0 || threshold == 32));
  }
}
TEST_CASE("masks of tiles: lanes of one instruction name different groups") {
  // Lanes 0..15 name themselves, and so do 16..31.
  auto const got = evaluate(
      "mov.u32 %r0, %laneid; setp.lt.u32 %p0, %r0, 16; selp.b32 %r1, 0xffff, 0xffff0000, %p0;"
      "and.b32 %r2, %r0, 1; setp.eq.u32 %p1, %r2, 0; vote.sync.ballot.b32 %d, %p1, %r1;",
      32, scrambled(32));
  for (u32 n = 0; n < 32; ++n) CHECK(got[n] == (n < 16 ? 0x5555U : 0x55550000U));
}
TEST_CASE("matches and reductions") {
  auto const x = scrambled(32);
  auto const any = evaluate("and.b32 %r0, %a, 3; match.any.sync.b32 %d, %r0, -1;", 32, x);
  auto const wide = evaluate("and.b32 %r0, %a, 3; mov.b64 %rd0, {%r0, %r0}; match.any.sync.b64 %d, %rd0, -1;", 32, x);
  for (std::size_t n = 0; n < 32; ++n) {
    u32 same = 0;
    for (std::size_t k = 0; k < 32; ++k) same |= static_cast<u32>((x[0].values[n] & 3) == (x[0].values[k] & 3)) << k;
    CHECK(any[n] == same);
    CHECK(wide[n] == same);
  }
  for (auto const v :
       evaluate("match.all.sync.b32 %r0|%p0, 5, -1; selp.b32 %r1, 1, 0, %p0; sub.u32 %d, %r0, %r1;", 32, x))
    CHECK(v == 0xfffffffe);
  for (auto const v :
       evaluate("match.all.sync.b32 %r0|%p0, %a, -1; selp.b32 %r1, 1, 0, %p0; add.u32 %d, %r0, %r1;", 32, x))
    CHECK(v == 0);
  struct row {
    char const* op;
    u32 (*f)(u32, u32);
  };
  row const rows[] = {
      {"add.u32", [](u32 a, u32 b) { return a + b; }},
      {"min.u32", [](u32 a, u32 b) { return std::min(a, b); }},
      {"max.u32", [](u32 a, u32 b) { return std::max(a, b); }},
      {"min.s32", [](u32 a, u32 b) { return static_cast<std::int32_t>(a) < static_cast<std::int32_t>(b) ? a : b; }},
      {"max.s32", [](u32 a, u32 b) { return static_cast<std::int32_t>(a) > static_cast<std::int32_t>(b) ? a : b; }},
      {"and.b32", [](u32 a, u32 b) { return a & b; }},
      {"or.b32", [](u32 a, u32 b) { return a | b; }},
      {"xor.b32", [](u32 a, u32 b) { return a ^ b; }}};
  for (row const& r : rows) {
    u32 wanted = static_cast<u32>(x[0].values[0]);
    for (std::size_t n = 1; n < 32; ++n) wanted = r.f(wanted, static_cast<u32>(x[0].values[n]));
    for (auto const v : evaluate("redux.sync." + std::string(r.op) + " %d, %a, -1;", 32, x)) CHECK(v == wanted);
  }
}
TEST_CASE("activemask sees who is here") {
  auto const got = evaluate("mov.u32 %d, 0; mov.u32 %r0, %laneid; setp.lt.u32 %p0, %r0, 9; @%p0 activemask.b32 %d;", 32,
                            scrambled(32));
  for (u32 n = 0; n < 32; ++n) CHECK(got[n] == (n < 9 ? 0x1ffU : 0U));
}

}  // namespace softgpu_test
