// Whole texts: declarations, scopes, calls, branch tables, and what is refused, by name.
#include "kernel_runner.hpp"
#include "ptx_bench.hpp"

namespace softgpu_test {

namespace {
using u32 = std::uint32_t;
using u64 = std::uint64_t;
}  // namespace

TEST_CASE("what nobody looked at is refused by name") {
  struct row {
    char const *statement, *why;
  };
  row const rows[] = {
      {"frobnicate.b32 %d, %a;", "opcode frobnicate"},
      {"add.u32.wild %d, %a, %b;", "modifier .wild"},
      {"add.b32 %d, %a, %b;", "type .b32"},
      {"add.rn.u32 %d, %a, %b;", "modifier .rn"},
      {"add.sat.u32 %d, %a, %b;", ".sat of type .u32"},
      {"sub.ftz.f64 %rd0, %rd1, %rd2;", "modifier .ftz"},
      {"mul.u32 %d, %a, %b;", "none of .lo .hi .wide"},
      {"mul.wide.u64 %rd0, %rd1, %rd2;", "type .u64"},
      {"div.f32 %d, %a, %b;", "none of .rn .rz .rm .rp"},
      {"fma.f32 %d, %a, %b, %c;", "none of .rn .rz .rm .rp"},
      {"max.xorsign.abs.f32 %d, %a, %b;", "modifier .xorsign"},
      {"add.u32 %d, %a;", "2 operands"},
      {"add.u64 %d, %a, %b;", "register width differs from type: %d"},
      {"add.u64 %rd0, %a, %rd1;", "register width differs from type: %a"},
      {"add.u32 %d, %unknown, %b;", "unknown register %unknown"},
      {"add.u32 %d, nowhere, %b;", "operand nowhere"},
      {"and.u32 %d, %a, %b;", "type .u32"},
      {"shf.l.b32 %d, %a, %b, %c;", "none of .wrap .clamp"},
      {"setp.lt.b32 %p0, %a, %b;", "order of type .b32"},
      {"setp.lo.s32 %p0, %a, %b;", "unsigned relation of type .s32"},
      {"setp.ltu.u32 %p0, %a, %b;", "relation of floating point on type .u32"},
      {"cvt.f32.s32 %d, %a;", "none of .rn .rz .rm .rp"},
      {"cvt.s32.f32 %d, %a;", "none of .rni .rzi .rmi .rpi"},
      {"cvt.rn.satfinite.e4m3x2.f32 %d, %a, %b;", "no type that is known here"},
      {"shfl.bfly.b32 %d, %a, 1, 31;", "shuffle without .sync"},
      {"ld.global.v8.f32 {%d, %a, %b, %c}, [%rd0];", "number of vector elements"},
      {"ld.global.L2::cache_hint.u32 %d, [%rd0], %rd1;", "3 operands"},
      {"ld.mmio.relaxed.sys.global.u32 %d, [%rd0];", "modifier .mmio"},
      {"ld.relaxed.cluster.global.u32 %d, [%rd0];", "none of .cta .gpu .sys"},
      {"st.async.u32 [%rd0], %a;", "modifier .async"},
      {"atom.global.add.b32 %d, [%rd0], %a;", "type .b32"},
      {"atom.global.add.s64 %rd1, [%rd0], %rd2;", "type .s64"},
      {"red.global.add.f16x2 [%rd0], %a;", "none of .noftz"},
      {"bar.arrive 0;", "1 operands"},
      {"fence.proxy.async;", "none of .cta .gpu .sys"},
      {"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%d, %a}, {%b}, {%c}, {%e};", "opcode mma"},
      {"wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%d}, [%rd0];", "opcode wmma"},
      {"call nobody;", "call of unknown function nobody"},
      {"createpolicy.fractional.L2::evict_first.b64 %rd0;", "opcode createpolicy"},
      {"mov.u64 %rd0, %tid.x;", "64-bit use of %tid.x"},
      {"mov.b128 %d, %a;", "no type that is known here"},
      {"lop3.b32 %d, %a, %b, %c, 256;", "lop3 table"},
      {"mad.hi.cc.s32 %d, %a, %b, %c;", "signed mad.hi.cc"},
  };
  for (row const& r : rows) {
    CAPTURE(r.statement);
    std::string const why = refusal_of(r.statement);
    CAPTURE(why);
    CHECK(why == r.why);
  }
  CHECK(refusal_of("add.u32 %d, %a, %b;").empty());
}
TEST_CASE("refusals stop a kernel where they are executed, and only there") {
  buffer<u32> const y(32);
  std::string const body =
      "setp.gt.u32 %p0, %r30, 1000; @%p0 frobnicate.b32 %r0; mul.wide.u32 %rd0, %r30, 4; add.u64 %rd0, %rd0, %rd24;"
      "st.global.u32 [%rd0], %r30;";
  check_report("", body, {}, {y.address()});
  CHECK(y.values()[31] == 31);
  check_report("unsupported instruction: k, block 0, warp 0, opcode frobnicate: @%p0 frobnicate.b32 %r0",
               "setp.lt.u32 %p0, %r30, 1; @%p0 frobnicate.b32 %r0;", {}, {y.address()});
}
TEST_CASE("scopes hide names, and names need no percent sign") {
  buffer<u32> const y(std::vector<u32>(1));
  CHECK(run_body("mov.u32 %r0, 1; { .reg.b32 %r0, t; mov.u32 %r0, 5; mov.u32 t,%r0; { .reg .pred p; setp.eq.u32 p, t, "
                 "5; selp.u32 %r1, 40, 0, p; } }"
                 "add.u32 %r2, %r0, %r1; st.global.u32 [%rd24], %r2; /* a comment; */ // another;",
                 {1, 1}, {y.address()}) == softgpu::outcome::completed);
  CHECK(y.values()[0] == 41);
}
TEST_CASE("functions are called with parameters in memory") {
  std::string const functions = R"(
.func (.param .b64 result) twice(.param .b64 x)
{
  .reg .b64 %a<4>;
  ld.param.u64 %a0, [x];
  add.u64 %a1, %a0, %a0;
  st.param.b64 [result], %a1;
  ret;
}
.func (.param .align 8 .b8 result[16]) sum_and_twice(.param .align 8 .b8 x[16], .param .b32 limit)
{
  .reg .b64 %a<8>;
  .reg .b32 %r<4>;
  .reg .pred %p<2>;
  ld.param.u64 %a0, [x];
  ld.param.u64 %a1, [x+8];
  ld.param.u32 %r0, [limit];
  mov.u64 %a2, 0;
$again:
  setp.eq.u32 %p0, %r0, 0;
  @%p0 bra $done;
  add.u64 %a2, %a2, %a1;
  sub.u32 %r0, %r0, 1;
  bra $again;
$done:
  add.u64 %a3, %a2, %a0;
  st.param.b64 [result], %a3;
  { .param .b64 in; .param .b64 out;
    st.param.b64 [in], %a3;
    call.uni (out), twice, (in);
    ld.param.b64 %a4, [out];
  }
  st.param.b64 [result+8], %a4;
  ret;
}
.func nothing()
{
  ret;
}
)";
  buffer<u64> const y(64);
  std::string const body = R"(
  cvt.u64.u32 %rd0, %r30;
  { .param .align 8 .b8 in[16]; .param .b32 limit; .param .align 8 .b8 out[16];
    st.param.b64 [in], %rd0;
    st.param.b64 [in+8], 1000;
    and.b32 %r0, %r30, 7;
    st.param.b32 [limit], %r0;
    call.uni (out), sum_and_twice, (in, limit);
    ld.param.b64 %rd1, [out];
    ld.param.b64 %rd2, [out+8];
  }
  setp.lt.u32 %p0, %r30, 8;
  @%p0 call nothing;
  @!%p0 call nothing, ();
  mul.wide.u32 %rd3, %r30, 16;
  add.u64 %rd3, %rd3, %rd24;
  st.global.v2.u64 [%rd3], {%rd1, %rd2};)";
  CHECK(run_text(kernel_text(body, 1, functions), {}, {y.address()}) == softgpu::outcome::completed);
  for (u64 n = 0; n < 32; ++n) {
    CHECK(y.values()[2 * n] == n + 1000 * (n % 8));
    CHECK(y.values()[2 * n + 1] == 2 * (n + 1000 * (n % 8)));
  }
}
TEST_CASE("printed lines are dropped, a failed assertion stops") {
  std::string const declared =
      ".extern .func (.param .b32 result) vprintf(.param .b64 format, .param .b64 values);\n"
      ".extern .func __assertfail(.param .b64 what, .param .b64 file, .param .b32 line, .param .b64 function, .param "
      ".b64 size);\n";
  buffer<u32> const y(std::vector<u32>{7});
  CHECK(
      run_text(
          kernel_text(
              "{ .param .b64 format; .param .b64 values; .param .b32 result; st.param.b64 [format], 0; st.param.b64 "
              "[values], 0;"
              "call.uni (result), vprintf, (format, values); ld.param.b32 %r0, [result]; } st.global.u32 [%rd24], %r0;",
              1, declared),
          {1, 1}, {y.address()}) == softgpu::outcome::completed);
  CHECK(y.values()[0] == 0);
  softgpu::expect_reports("trap or assertion", 2);
  CHECK(run_text(kernel_text("call.uni __assertfail, (%rd0, %rd1, %r0, %rd2, %rd3);", 1, declared), {},
                 {y.address()}) == softgpu::outcome::faulted);
  CHECK(run_text(kernel_text("trap;", 1), {}, {y.address()}) == softgpu::outcome::faulted);
  CHECK(softgpu::missing_reports() == 0);
}
TEST_CASE("recursion is refused by name") {
  buffer<u32> const y(1);
  softgpu::expect_reports("recursive call of self", 1);
  CHECK(run_text(kernel_text("call self;", 1, ".func self()\n{\n call self;\n ret;\n}\n"), {}, {y.address()}) ==
        softgpu::outcome::faulted);
  CHECK(softgpu::missing_reports() == 0);
}
TEST_CASE("what only concerns speed changes nothing") {
  buffer<u32> const y(std::vector<u32>{7, 0});
  check_report(
      "",
      "prefetch.global.L2 [%rd24]; prefetch.L1 [%rd24]; prefetchu.L1 [%rd24]; nanosleep.u32 40; griddepcontrol.wait;"
      "griddepcontrol.launch_dependents; ldu.global.u32 %r0, [%rd24]; st.global.wt.u32 [%rd24+4], %r0; mov.u32 %r1, "
      "%clock;"
      "mov.u64 %rd0, %clock64; mov.u64 %rd1, %globaltimer; exit; trap;",
      {1, 1}, {y.address()});
  CHECK(y.values()[1] == 7);
}
TEST_CASE("time goes by") {
  buffer<u64> const y(2);
  check_report("", "mov.u64 %rd0, %globaltimer; mov.u64 %rd1, %globaltimer; st.global.v2.u64 [%rd24], {%rd0, %rd1};",
               {1, 1}, {y.address()});
  CHECK(y.values()[0] < y.values()[1]);
}
TEST_CASE("tables of branches, some lanes with none") {
  buffer<u32> const y(32);
  CHECK(run_body(R"(
  mov.u32 %r0, 99;
  and.b32 %r1, %r30, 3;
  setp.lt.u32 %p0, %r30, 24;
$table: .branchtargets
  $zero, $one,
  $two, $zero;
  @%p0 brx.idx %r1, $table;
  bra $end;
$zero: mov.u32 %r0, 0; bra $end;
$one: mov.u32 %r0, 1; bra $end;
$two: mov.u32 %r0, 2;
$end:
  mul.wide.u32 %rd0, %r30, 4;
  add.u64 %rd0, %rd0, %rd24;
  st.global.u32 [%rd0], %r0;)",
                 {}, {y.address()}) == softgpu::outcome::completed);
  for (u32 n = 0; n < 32; ++n) CHECK(y.values()[n] == (n >= 24 ? 99 : n % 4 == 3 ? 0 : n % 4));
}
TEST_CASE("variables of a module have addresses, initial values, and addresses of others") {
  softgpu::module m(
      ".version 8.8\n.target sm_90\n.address_size 64\n.visible .global .align 8 .f64 a[2] = {0d3FF8000000000000, "
      "0d0000000000000001};\n"
      ".global .align 4 .b8 name[4] = {104, 105, 0, 255};\n.global .align 8 .u64 where[2] = {name, "
      "generic(a)+8};\n.global .s32 n = -7;\n"
      ".visible .entry k()\n{\n ret;\n}\n");
  auto const* const a = m.find_variable("a");
  auto const* const where = m.find_variable("where");
  REQUIRE(a != nullptr);
  REQUIRE(where != nullptr);
  CHECK(a->bytes == 16);
  double first = 0;
  u64 pointers[2] = {};
  std::int32_t n = 0;
  std::memcpy(&first, softgpu::memory().real(a->address), 8);
  std::memcpy(pointers, softgpu::memory().real(where->address), 16);
  std::memcpy(&n, softgpu::memory().real(m.find_variable("n")->address), 4);
  CHECK(first == 1.5);
  CHECK(pointers[0] == m.find_variable("name")->address);
  CHECK(pointers[1] == a->address + 8);
  CHECK(n == -7);
  CHECK(m.find_variable("k") == nullptr);
  CHECK(m.find_kernel("a") == nullptr);
}
TEST_CASE("parameters lie as C++ lays out a struct") {
  softgpu::module m(
      ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u8 a, .param .u64 .ptr .global .align "
      "16 b,\n .param .align 4 .b8 c[6], .param .f32 d)\n"
      ".maxntid 128, 2, 1\n{\n ret;\n}\n");
  auto const* const k = m.find_kernel("k");
  REQUIRE(k != nullptr);
  REQUIRE(k->parameters.size() == 4);
  CHECK(k->parameters[1].offset == 8);
  CHECK(k->parameters[2].offset == 16);
  CHECK(k->parameters[2].size == 6);
  CHECK(k->parameters[3].offset == 24);
  CHECK(k->parameter_bytes == 28);
  CHECK(k->max_threads == 256);
  CHECK(k->arch == 90);
}
TEST_CASE("opcodes are listed with their modifiers, and counted") {
  std::string const text =
      kernel_text("add.u32 %r0, %r1, %r2; @%p0 add.u32 %r0, %r1, %r2; $label: bra.uni $label; frobnicate.b32 %r0;", 0);
  auto const list = softgpu::opcodes(text);
  CHECK(list.at("add.u32") == 2);
  CHECK(list.at("bra.uni") == 1);
  CHECK(list.at("mov.u32") == 2);
  CHECK(list.count("$label") == 0);
  auto const refused = softgpu::refused_opcodes(text);
  CHECK(refused.size() == 1);
  CHECK(refused.at("frobnicate.b32") == "opcode frobnicate");
}
TEST_CASE("what is no PTX, or no end") {
  CHECK_THROWS_AS(softgpu::module("hello"), std::runtime_error);
  CHECK_THROWS_AS(softgpu::module(".version 8.8\n.target sm_90\n.visible .entry k()\n{\n ret;\n"), std::runtime_error);
}

}  // namespace softgpu_test
