// What is reported about order, bounds and validity, each with its silent control.
#include "kernel_runner.hpp"

namespace softgpu_test {

namespace {

using u32 = std::uint32_t;

std::string const own_slot = "mul.wide.u32 %rd0, %r30, 4; add.u64 %rd1, %rd24, %rd0;";
std::string const tile =
    ".shared .align 4 .b8 tile[256]; shl.b32 %r0, %r30, 2; mov.u32 %r1, tile; add.u32 %r1, %r1, %r0; xor.b32 %r2, %r1, "
    "252;";

/// Each block adds up to p0[block]; the last one to take a ticket of p1 sums them. Fence or none, before the ticket.
std::string last_block(std::string const& fence, std::string const& ticket) {
  return R"(
  mul.wide.u32 %rd0, %r31, 4;
  add.u64 %rd1, %rd24, %rd0;
  setp.ne.u32 %p0, %r30, 0;
  @%p0 ret;
  st.global.u32 [%rd1], 5;
  )" + fence +
         "\n  " + ticket + R"( %r0, [%rd25], 1;
  mov.u32 %r1, %nctaid.x;
  sub.u32 %r1, %r1, 1;
  setp.ne.u32 %p1, %r0, %r1;
  @%p1 ret;
  mov.u32 %r2, 0;
  mov.u32 %r3, 0;
  mov.u64 %rd2, %rd24;
$sum:
  ld.global.u32 %r4, [%rd2];
  add.u32 %r3, %r3, %r4;
  add.u64 %rd2, %rd2, 4;
  add.u32 %r2, %r2, 1;
  setp.le.u32 %p2, %r2, %r1;
  @%p2 bra $sum;
  st.global.u32 [%rd25+4], %r3;
  st.global.u32 [%rd25], 0;)";
}

}  // namespace

TEST_CASE("bounds") {
  buffer<u32> const x(std::vector<u32>(32));
  check_report("", own_slot + "st.global.u32 [%rd1], 1;", {}, {x.address()});
  check_report("4 bytes at 128 of an allocation of 128: st.global.u32 [%rd1+4], 1",
               own_slot + "st.global.u32 [%rd1+4], 1;", {}, {x.address()});
  check_report("is not device memory", "mov.u64 %rd1, 4096; st.global.u32 [%rd1], 1;", {}, {x.address()});
  check_report("", own_slot + "@!%p0 ld.global.u32 %r0, [%rd1];", {}, {x.address()});
  check_report("misaligned address", own_slot + "ld.global.u32 %r0, [%rd1+1];", {}, {x.address()});
  check_report("misaligned address", own_slot + "ld.global.v2.u32 {%r0, %r1}, [%rd1];", {1, 2}, {x.address()});
  check_report("shared memory out of bounds", ".shared .align 4 .b8 tile[16]; st.shared.u32 [tile+16], 1;", {},
               {x.address()});
  check_report("local memory out of bounds", ".local .align 4 .b8 own[16]; st.local.u32 [own+16], 1;", {},
               {x.address()});
  std::uint64_t gone = 0;
  {
    buffer<u32> const y(std::vector<u32>(32));
    gone = y.address();
  }
  check_report("use after free", own_slot + "ld.global.u32 %r0, [%rd1];", {}, {gone});
  std::uint64_t const reserved = softgpu::memory().allocate(128, softgpu::life::reserved);
  check_report("use before stream-ordered allocation", own_slot + "st.global.u32 [%rd1], 1;", {}, {reserved});
}
TEST_CASE("parts of an arena are kept apart") {
  buffer<u32> const x(std::vector<u32>(64));
  softgpu::memory().forbid(x.address() + 128, 64);
  check_report("", own_slot + "st.global.u32 [%rd1], 1;", {}, {x.address()});
  check_report("between the parts of an arena", own_slot + "st.global.u32 [%rd1+4], 1;", {}, {x.address()});
  softgpu::memory().allow(x.address() + 128, 64);
  check_report("uninitialised read", own_slot + "ld.global.u32 %r0, [%rd1+4];", {}, {x.address()});
}
TEST_CASE("values that nobody wrote") {
  buffer<u32> const x(64);
  check_report("uninitialised read", own_slot + "ld.global.u32 %r0, [%rd1];", {}, {x.address()});
  check_report("uninitialised read", "red.global.add.u32 [%rd24], 1;", {1, 1}, {x.address()});
  check_report("", own_slot + "st.global.u32 [%rd1], 1; ld.global.u32 %r0, [%rd1];", {}, {x.address()});
  check_report("byte 128 of an allocation of 256", own_slot + "ld.global.u32 %r0, [%rd1+4];", {}, {x.address()});
  check_report("uninitialised shared read", tile + "ld.shared.u32 %r3, [%r1];", {}, {x.address()});
  check_report("uninitialised local read",
               ".local .align 4 .b8 own[8]; st.local.u32 [own], 1; ld.local.u32 %r0, [own+4];", {}, {x.address()});
  // The next block starts with nothing again.
  check_report(
      "uninitialised shared read",
      ".shared .align 4 .b8 t[4]; setp.eq.u32 %p0, %r31, 0; @%p0 st.shared.u32 [t], 1; ld.shared.u32 %r0, [t];", {2, 1},
      {x.address()});
}
TEST_CASE("threads of a block and shared memory") {
  std::string const write = tile + "st.shared.u32 [%r1], 0; bar.sync 0; st.shared.u32 [%r1], %r30;",
                    read = "ld.shared.u32 %r3, [%r2];";
  check_report("", write + "bar.sync 0;" + read, {1, 64}, {});
  check_report("shared-memory race", write + "bar.warp.sync -1;" + read, {1, 64}, {});
  std::string const in_warp = "xor.b32 %r2, %r1, 124;";
  check_report("", write + in_warp + "bar.warp.sync -1;" + read, {}, {});
  check_report("shared-memory race", write + in_warp + read, {}, {});
  // Written after it was read.
  std::string const twice = write + "bar.sync 0;" + read;
  check_report("shared-memory race", twice + "st.shared.u32 [%r1], 7;", {1, 64}, {});
  check_report("", twice + "bar.sync 0; st.shared.u32 [%r1], 7;", {1, 64}, {});
  // One reader long ago in the own warp, after a barrier of the warp: no concern of it, but of others.
  std::string const warp_twice = write + in_warp + "bar.warp.sync -1;" + read + "bar.warp.sync -1;";
  check_report("", warp_twice + "st.shared.u32 [%r1], 7;", {}, {});
}
TEST_CASE("atomic operations on shared memory do not race with each other, but with the rest") {
  std::string const start =
      ".shared .align 4 .b8 sum[4]; setp.eq.u32 %p0, %r30, 0; @%p0 st.shared.u32 [sum], 0; bar.sync 0; "
      "red.shared.add.u32 [sum], 1;";
  check_report("", start + "bar.sync 0; ld.shared.u32 %r0, [sum];", {1, 64}, {});
  check_report("shared-memory race", start + "ld.shared.u32 %r0, [sum];", {1, 64}, {});
}
TEST_CASE("blocks and global memory") {
  buffer<u32> const x(std::vector<u32>(64));
  std::string const add = "ld.global.u32 %r0, [%rd24]; add.u32 %r0, %r0, 1; st.global.u32 [%rd24], %r0;";
  check_report("global-memory race", add, {2, 1}, {x.address()});
  check_report("", add, {1, 1}, {x.address()});
  check_report("", "red.global.add.u32 [%rd24], 1;", {8, 32}, {x.address()});
  check_report("", "ld.global.u32 %r0, [%rd24];", {8, 32}, {x.address()});
  check_report("global-memory race",
               "setp.eq.u32 %p0, %r31, 0; @%p0 st.global.u32 [%rd24], 1; @!%p0 ld.global.u32 %r0, [%rd24];", {2, 1},
               {x.address()});
  check_report("global-memory race",
               "setp.eq.u32 %p0, %r31, 1; @%p0 st.global.u32 [%rd24], 1; @!%p0 ld.global.u32 %r0, [%rd24];", {2, 1},
               {x.address()});
  // What a block reads itself does not hide that another one has read it.
  check_report("global-memory race",
               "ld.global.u32 %r0, [%rd24]; setp.eq.u32 %p0, %r31, 1; @%p0 st.global.u32 [%rd24], 1;", {2, 1},
               {x.address()});
  // Two launches are in order.
  check_report("", "st.global.u32 [%rd24], 1;", {1, 1}, {x.address()});
  check_report("", "ld.global.u32 %r0, [%rd24];", {4, 1}, {x.address()});
  // Neighbours within a word.
  check_report("", "cvt.u64.u32 %rd0, %r31; add.u64 %rd1, %rd24, %rd0; mov.u16 %h0, 3; st.global.u8 [%rd1], %h0;",
               {64, 1}, {x.address()});
  check_report("global-memory race",
               "shr.u32 %r0, %r31, 1; cvt.u64.u32 %rd0, %r0; add.u64 %rd1, %rd24, %rd0; mov.u16 %h0, 3; st.global.u8 "
               "[%rd1], %h0;",
               {64, 1}, {x.address()});
  // Strong and weak accesses of one word.
  check_report(
      "global-memory race",
      "setp.eq.u32 %p0, %r31, 0; @%p0 red.global.add.u32 [%rd24+128], 1; @!%p0 ld.global.u32 %r0, [%rd24+128];", {2, 1},
      {x.address()});
  check_report("", "ld.volatile.global.u32 %r0, [%rd24+132]; st.volatile.global.u32 [%rd24+132], %r0;", {4, 1},
               {x.address()});
}
TEST_CASE("a fence and a ticket order blocks; a ticket alone does not") {
  buffer<u32> const parts(std::vector<u32>(16)), state(std::vector<u32>(2));
  std::vector<std::uint64_t> const p{parts.address(), state.address()};
  for (std::string const fence : {"membar.gl;", "fence.acq_rel.gpu;", "fence.sc.sys;"})
    for (int again = 0; again < 2; ++again) {
      check_report("", last_block(fence, "atom.global.add.u32"), {16, 64}, p);
      CHECK(state.values() == std::vector<u32>{0, 80});
    }
  check_report("", last_block("", "atom.acq_rel.gpu.global.add.u32"), {16, 64}, p);
  check_report("", last_block("", "atom.release.gpu.global.add.u32"), {16, 64}, p);
  check_report("global-memory race", last_block("", "atom.global.add.u32"), {16, 64}, p);
  buffer<u32> const other(std::vector<u32>(2));
  check_report("global-memory race", last_block("membar.cta;", "atom.global.add.u32"), {16, 64},
               {parts.address(), other.address()});
}
TEST_CASE("order is transitive, and covers nothing that came after the fence") {
  buffer<u32> const x(std::vector<u32>(64));
  std::string const number = "setp.eq.u32 %p0, %r31, 0; setp.eq.u32 %p1, %r31, 1; setp.eq.u32 %p2, %r31, 2;";
  // Block 0 gives to 1 through one word, 1 to 2 through another; 2 reads what 0 wrote.
  std::string const chain = number + R"(
  @%p0 st.global.u32 [%rd24], 5;
  @%p0 st.release.gpu.global.u32 [%rd24+64], 1;
  @%p1 ld.acquire.gpu.global.u32 %r0, [%rd24+64];
  @%p1 st.release.gpu.global.u32 [%rd24+128], 1;
  @%p2 ld.acquire.gpu.global.u32 %r0, [%rd24+128];
  @%p2 ld.global.u32 %r1, [%rd24];)";
  check_report("", chain, {3, 1}, {x.address()});
  std::string broken = chain;
  broken.replace(broken.find("ld.acquire.gpu.global.u32 %r0, [%rd24+64]"), 41,
                 "ld.acquire.gpu.global.u32 %r0, [%rd24+96]");
  check_report("global-memory race", broken, {3, 1}, {x.address()});
  check_report("global-memory race",
               number +
                   "@%p0 st.release.gpu.global.u32 [%rd24+64], 1; @%p0 st.global.u32 [%rd24], 5; @%p1 "
                   "ld.acquire.gpu.global.u32 %r0, [%rd24+64];"
                   "@%p1 ld.global.u32 %r1, [%rd24];",
               {2, 1}, {x.address()});
}
TEST_CASE("barriers") {
  check_report("divergent barrier", "setp.lt.u32 %p0, %r30, 40; @%p0 bar.sync 0;", {1, 64}, {});
  check_report("", "setp.lt.u32 %p0, %r30, 32; @%p0 bra $low; bar.sync 1, 64; bra $end; $low: bar.sync 1, 64; $end:",
               {1, 64}, {});
  check_report("barrier never completes", "setp.lt.u32 %p0, %r30, 32; @%p0 bar.sync 1, 96;", {1, 64}, {});
  check_report("barrier never completes",
               "setp.lt.u32 %p0, %r30, 32; @%p0 bra $low; bar.sync 1; bra $end; $low: bar.sync 2; $end:", {1, 64}, {});
  check_report("bad barrier", "bar.sync 16;", {1, 64}, {});
  check_report("bad barrier", "bar.sync 1, 33;", {1, 64}, {});
  // A warp that has gone is not waited for.
  check_report("", "setp.lt.u32 %p0, %r30, 32; @%p0 ret; bar.sync 0;", {1, 64}, {});
  // One warp makes, the other takes.
  buffer<u32> const y(std::vector<u32>(64));
  check_report("", tile + own_slot + R"(
  setp.ge.u32 %p0, %r30, 32;
  @%p0 bra $take;
  st.shared.u32 [%r1], %r30;
  bar.arrive 3, 64;
  bra $end;
$take:
  bar.sync 3, 64;
  ld.shared.u32 %r3, [%r1+-128];
  st.global.u32 [%rd1], %r3;
$end:)",
               {1, 64}, {y.address()});
  CHECK(y.values()[40] == 8);
  check_report("", own_slot + R"(
  setp.lt.u32 %p0, %r30, 10;
  bar.red.popc.u32 %r0, 0, %p0;
  bar.red.or.pred %p1, 0, %p0;
  bar.red.and.pred %p2, 0, !%p0;
  selp.u32 %r1, 100, 0, %p1;
  selp.u32 %r2, 1000, 0, %p2;
  add.u32 %r0, %r0, %r1;
  add.u32 %r0, %r0, %r2;
  st.global.u32 [%rd1], %r0;)",
               {1, 64}, {y.address()});
  CHECK(y.values()[63] == 110);
}
TEST_CASE("sectors are counted once in a launch") {
  buffer<u32> const x(std::vector<u32>(4096)), y(std::vector<u32>(4096));
  auto const count = [&](std::string const& body, shape s) {
    check_report("", body, s, {x.address(), y.address()});
    return softgpu::last_launch();
  };
  auto const plain = count(
      "mad.lo.u32 %r0, %r31, 128, %r30; mul.wide.u32 %rd0, %r0, 4; add.u64 %rd1, %rd24, %rd0; add.u64 %rd2, %rd25, "
      "%rd0;"
      "ld.global.u32 %r1, [%rd1]; ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd2], %r2;",
      {32, 128});
  CHECK(plain.sectors_read == 512);
  CHECK(plain.sectors_written == 512);
  CHECK(plain.requests == 3 * 32 * 4);
  CHECK(plain.launches == 1);
  auto const strided =
      count("mul.wide.u32 %rd0, %r30, 64; add.u64 %rd1, %rd24, %rd0; ld.global.u32 %r1, [%rd1];", {4, 32});
  CHECK(strided.sectors_read == 32);
  CHECK(strided.sectors_written == 0);
  auto const once = count("ld.global.u32 %r1, [%rd24]; red.global.add.u32 [%rd25], 1;", {16, 32});
  CHECK(once.sectors_read == 2);
  CHECK(once.sectors_written == 1);
  softgpu::clear_statistics();
  (void)count("ld.global.u32 %r1, [%rd24];", {16, 32});
  (void)count("ld.global.u32 %r1, [%rd24];", {16, 32});
  CHECK(softgpu::total_statistics().sectors_read == 2);
  CHECK(softgpu::kernel_statistics("k").launches == 2);
  CHECK(softgpu::kernel_statistics("none").launches == 0);
  CHECK(softgpu::launched_kernels() == std::vector<std::string>{"k"});
}

}  // namespace softgpu_test
