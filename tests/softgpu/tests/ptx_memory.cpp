// Loads, stores and atomic operations of every size and space.
#include "kernel_runner.hpp"
#include "ptx_bench.hpp"

namespace softgpu_test {

namespace {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s32 = std::int32_t;

std::vector<u8> bytes(std::size_t n) {
  std::vector<u8> v(n);
  for (std::size_t k = 0; k < n; ++k) v[k] = static_cast<u8>(k * 37 + 11);
  return v;
}

}  // namespace

TEST_CASE("loads extend by sign or zero, to 32 and to 64 bits") {
  buffer<u8> const x(bytes(512));
  auto const raw = x.values();
  struct row {
    char const* t;
    std::size_t size;
    bool is_signed;
  };
  for (row const r : {row{"u8", 1, false}, row{"s8", 1, true}, row{"b8", 1, false}, row{"u16", 2, false},
                      row{"s16", 2, true}, row{"u32", 4, false}, row{"s32", 4, true}, row{"b32", 4, false},
                      row{"f32", 4, false}, row{"u64", 8, false}, row{"s64", 8, true}, row{"f64", 8, false}}) {
    buffer<u64> const y(32);
    // Every third place, so that the fast way for rows is not taken; then a row.
    for (std::size_t const stride : {std::size_t{1}, std::size_t{3}}) {
      if (stride * r.size * 32 > 512) continue;
      std::string const place = "mul.wide.u32 %rd0, %r30, " + std::to_string(stride * r.size) +
                                "; add.u64 %rd1, %rd24, %rd0;"
                                "mul.wide.u32 %rd2, %r30, 8; add.u64 %rd3, %rd25, %rd2;";
      bool const fits_32 = r.size < 8;
      std::string const load = fits_32 && !r.is_signed
                                   ? "ld.global." + std::string(r.t) + " %r0, [%rd1]; cvt.u64.u32 %rd4, %r0;"
                                   : "ld.global." + std::string(r.t) + " %rd4, [%rd1];";
      CHECK(run_body(place + load + "st.global.u64 [%rd3], %rd4;", {}, {x.address(), y.address()}) ==
            softgpu::outcome::completed);
      auto const got = y.values();
      for (std::size_t lane = 0; lane < 32; ++lane) {
        u64 wanted = 0;
        std::memcpy(&wanted, &raw[lane * stride * r.size], r.size);
        if (r.is_signed && r.size < 8) {
          u64 const sign = u64{1} << (8 * r.size - 1);
          wanted = (wanted ^ sign) - sign;
        }
        CAPTURE(r.t);
        CHECK(got[lane] == wanted);
      }
    }
  }
}
TEST_CASE("vectors of every length, and stores that touch nothing else") {
  for (auto const& [vector, list, size, count] :
       {std::tuple{"v2.u8", "%h0, %h1", 1, 2}, std::tuple{"v4.u8", "%h0, %h1, %h2, %h3", 1, 4},
        std::tuple{"v2.u16", "%h0, %h1", 2, 2}, std::tuple{"v4.b16", "%h0, %h1, %h2, %h3", 2, 4},
        std::tuple{"v2.u32", "%r0, %r1", 4, 2}, std::tuple{"v4.f32", "%f0, %f1, %f2, %f3", 4, 4},
        std::tuple{"v2.u64", "%rd0, %rd1", 8, 2}, std::tuple{"v2.f64", "%fd0, %fd1", 8, 2}})
    for (int const threads : {32, 21}) {
      std::size_t const each = static_cast<std::size_t>(size * count);
      buffer<u8> const x(bytes(each * 32)), y(std::vector<u8>(each * 32, 0xee));
      std::string const body = "mul.wide.u32 %rd8, %r30, " + std::to_string(each) +
                               "; add.u64 %rd9, %rd24, %rd8; add.u64 %rd10, %rd25, %rd8;"
                               "ld.global.nc.L1::no_allocate.L2::128B." +
                               std::string(vector) + " {" + list +
                               "}, [%rd9];"
                               "st.global.cs." +
                               std::string(vector) + " [%rd10], {" + list + "};";
      CHECK(run_body(body, {1, static_cast<u32>(threads)}, {x.address(), y.address()}) == softgpu::outcome::completed);
      auto const from = x.values(), to = y.values();
      for (std::size_t n = 0; n < to.size(); ++n)
        CHECK(to[n] == (n < each * static_cast<std::size_t>(threads) ? from[n] : 0xee));
    }
}
TEST_CASE("shared, local, constant and generic addresses") {
  buffer<u32> const y(64);
  CHECK(run_text(kernel_text(
                     R"(
  .shared .align 4 .b8 tile[128];
  .local .align 8 .b8 own[64];
  mov.u32 %r0, tile;
  shl.b32 %r1, %r30, 2;
  add.u32 %r2, %r0, %r1;
  mul.lo.u32 %r3, %r30, 3;
  st.shared.u32 [%r2], %r3;
  bar.sync 0;
  xor.b32 %r4, %r1, 124;
  add.u32 %r5, %r0, %r4;
  ld.shared.u32 %r6, [%r5];
  mov.u64 %rd0, own;
  cvta.local.u64 %rd1, %rd0;
  st.u32 [%rd1+8], %r6;
  ld.local.u32 %r7, [own+8];
  cvt.u64.u32 %rd2, %r5;
  cvta.shared.u64 %rd3, %rd2;
  isspacep.shared %p0, %rd3;
  isspacep.global %p1, %rd3;
  ld.u32 %r8, [%rd3];
  sub.u32 %r9, %r8, %r7;
  selp.b32 %r10, 100, 0, %p0;
  selp.b32 %r11, 1000, 0, %p1;
  add.u32 %r9, %r9, %r10;
  add.u32 %r9, %r9, %r11;
  mov.u64 %rd4, numbers;
  and.b32 %r12, %r1, 12;
  cvt.u64.u32 %rd5, %r12;
  add.u64 %rd4, %rd4, %rd5;
  ld.const.u32 %r13, [%rd4];
  cvta.to.global.u64 %rd6, %rd24;
  mul.wide.u32 %rd7, %r30, 8;
  add.u64 %rd6, %rd6, %rd7;
  add.u32 %r7, %r7, %r9;
  st.global.v2.u32 [%rd6], {%r7, %r13};)",
                     1, ".const .align 4 .b8 unused[4];\n.const .align 4 .u32 numbers[4] = {7, 0x10, 9, 4294967295};"),
                 {}, {y.address()}) == softgpu::outcome::completed);
  auto const got = y.values();
  u32 const numbers[] = {7, 16, 9, 0xffffffff};
  for (u32 n = 0; n < 32; ++n) {
    CHECK(got[2 * n] == 3 * (31 - n) + 100);
    CHECK(got[2 * n + 1] == numbers[n % 4]);
  }
}
TEST_CASE("dynamic shared memory follows the static part") {
  buffer<u32> const y(32);
  CHECK(run_text(kernel_text(R"(
  .shared .align 4 .b8 fixed[20];
  mov.u32 %r0, extra;
  mov.u32 %r1, fixed;
  sub.u32 %r2, %r0, %r1;
  mov.u32 %r3, %dynamic_smem_size;
  add.u32 %r2, %r2, %r3;
  shl.b32 %r4, %r30, 2;
  add.u32 %r5, %r0, %r4;
  st.shared.u32 [%r5], %r2;
  ld.shared.u32 %r6, [%r5];
  cvt.u64.u32 %rd0, %r4;
  add.u64 %rd1, %rd24, %rd0;
  st.global.u32 [%rd1], %r6;)",
                             1, ".extern .shared .align 16 .b8 extra[];"),
                 {1, 32, 128}, {y.address()}) == softgpu::outcome::completed);
  for (u32 const v : y.values()) CHECK(v == 32 + 128);
}
TEST_CASE("atomic operations of every type") {
  struct row {
    char const* op;
    int bits;
    u64 old_value, operand, wanted;
  };
  auto const f = [](float x) { return u64{std::bit_cast<u32>(x)}; };
  auto const d = [](double x) { return std::bit_cast<u64>(x); };
  row const rows[] = {
      {"add.u32", 32, 0xffffffff, 2, 1},
      {"add.s32", 32, 5, 0xfffffffe, 3},
      {"add.u64", 64, 0xffffffff, 2, 0x100000001},
      {"add.f32", 32, f(1.5F), f(2.25F), f(3.75F)},
      {"add.f64", 64, d(1.5), d(-4), d(-2.5)},
      {"add.noftz.f16", 16, 0x3c00, 0x4000, 0x4200},
      {"add.noftz.bf16", 16, 0x3f80, 0x4000, 0x4040},
      {"add.noftz.f16x2", 32, 0x3c004000, 0x40003c00, 0x42004200},
      {"add.noftz.bf16x2", 32, 0x3f804000, 0x40003f80, 0x40404040},
      {"min.u32", 32, 0xffffffff, 2, 2},
      {"min.s32", 32, 0xffffffff, 2, 0xffffffff},
      {"max.u32", 32, 0xffffffff, 2, 0xffffffff},
      {"max.s32", 32, 0xffffffff, 2, 2},
      {"min.u64", 64, ~u64{0}, 2, 2},
      {"max.s64", 64, ~u64{0}, 2, 2},
      {"and.b32", 32, 12, 10, 8},
      {"or.b32", 32, 12, 10, 14},
      {"xor.b32", 32, 12, 10, 6},
      {"and.b64", 64, u64{12} << 32, u64{10} << 32, u64{8} << 32},
      {"or.b64", 64, u64{12} << 32, 10, (u64{12} << 32) + 10},
      {"exch.b32", 32, 12, 10, 10},
      {"exch.b64", 64, 12, u64{10} << 40, u64{10} << 40},
      {"inc.u32", 32, 9, 10, 10},
      {"inc.u32", 32, 10, 10, 0},
      {"inc.u32", 32, 11, 10, 0},
      {"dec.u32", 32, 0, 10, 10},
      {"dec.u32", 32, 11, 10, 10},
      {"dec.u32", 32, 10, 10, 9},
  };
  for (row const& r : rows) {
    std::string const reg = r.bits == 64 ? "%rd" : r.bits == 16 ? "%h" : "%r", b = ".b" + std::to_string(r.bits);
    buffer<u64> const x({r.old_value, r.operand, 0});
    std::string const body = "ld.global" + b + " " + reg + "1, [%rd24+8]; atom.global." + r.op + " " + reg +
                             "2, [%rd24], " + reg + "1; st.global" + b + " [%rd24+16], " + reg + "2;";
    CAPTURE(r.op);
    CHECK(run_body(body, {1, 1}, {x.address()}) == softgpu::outcome::completed);
    CHECK(x.values()[0] == r.wanted);
    CHECK(x.values()[2] == r.old_value);
    if (std::string(r.op).starts_with("exch")) continue;
    buffer<u64> const y({r.old_value, r.operand});
    CHECK(run_body("ld.global" + b + " " + reg + "1, [%rd24+8]; red.gpu.global." + r.op + " [%rd24], " + reg + "1;",
                   {1, 1}, {y.address()}) == softgpu::outcome::completed);
    CHECK(y.values()[0] == r.wanted);
  }
  buffer<u64> const x({5, 5});
  CHECK(run_body("atom.global.cas.b32 %r0, [%rd24], 5, 8; atom.global.cas.b64 %rd0, [%rd24+8], 6, 8; st.global.u32 "
                 "[%rd24+4], %r0;",
                 {1, 1}, {x.address()}) == softgpu::outcome::completed);
  CHECK(x.values() == std::vector<u64>{8 + (u64{5} << 32), 5});
}
TEST_CASE("atomic operations on shared memory, by its own and by generic addresses") {
  buffer<u32> const y(std::vector<u32>(1));
  check_report("", R"(
  .shared .align 8 .b8 sum[8];
  setp.eq.u32 %p0, %r30, 0;
  @%p0 st.shared.u32 [sum], 0;
  bar.sync 0;
  atom.shared.add.u32 %r0, [sum], 1;
  mov.u64 %rd0, sum;
  cvta.shared.u64 %rd1, %rd0;
  atom.add.u32 %r1, [%rd1], 2;
  cvta.to.shared.u64 %rd2, %rd1;
  red.shared.max.u32 [%rd2], 5;
  bar.sync 0;
  ld.shared.u32 %r2, [sum];
  @%p0 st.global.u32 [%rd24], %r2;)",
               {1, 64}, {y.address()});
  CHECK(y.values()[0] == 192);
}
TEST_CASE("lanes of one atomic operation come one after another") {
  buffer<u32> const x(std::vector<u32>(33, 0));
  CHECK(run_body("atom.global.add.u32 %r0, [%rd24], 2; mul.wide.u32 %rd0, %r30, 4; add.u64 %rd1, %rd24, %rd0; "
                 "st.global.u32 [%rd1+4], %r0;",
                 {}, {x.address()}) == softgpu::outcome::completed);
  auto got = x.values();
  CHECK(got[0] == 64);
  std::sort(got.begin() + 1, got.end());
  for (u32 n = 0; n < 32; ++n) CHECK(got[n + 1] == 2 * n);
}
TEST_CASE("asynchronous copies end when they are waited for") {
  buffer<u32> const x(std::vector<u32>{1, 2, 3, 4, 5, 6, 7, 8}), y(std::vector<u32>(8));
  std::string const copy = R"(
  .shared .align 16 .b8 tile[32];
  mov.u32 %r0, tile;
  st.shared.u32 [tile+16], 9;
  cp.async.cg.shared.global [%r0], [%rd24], 16;
  cp.async.commit_group;
  cp.async.ca.shared.global.L2::128B [%r0+16], [%rd24+16], 8, 4;
  cp.async.ca.shared.global [%r0+24], [%rd24+24], 8;
  cp.async.commit_group;
)";
  CHECK(run_body(copy + R"(
  cp.async.wait_group 1;
  ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [tile];
  st.global.v4.u32 [%rd25], {%r1, %r2, %r3, %r4};
  cp.async.wait_all;
  ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [tile+16];
  st.global.v4.u32 [%rd25+16], {%r1, %r2, %r3, %r4};)",
                 {1, 1}, {x.address(), y.address()}) == softgpu::outcome::completed);
  CHECK(y.values() == std::vector<u32>{1, 2, 3, 4, 5, 0, 7, 8});
  check_report("uninitialised shared read", copy + "cp.async.wait_group 1; ld.shared.u32 %r1, [tile+16];", {1, 1},
               {x.address(), y.address()});
}

}  // namespace softgpu_test
