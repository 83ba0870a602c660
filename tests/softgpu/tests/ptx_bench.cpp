#include "ptx_bench.hpp"

#include "exec/launch.hpp"
#include "memory.hpp"
#include "ptx/module.hpp"
#include "report.hpp"

namespace softgpu_test {

namespace {

constexpr char const* names[] = {"a", "b", "c", "e"};

std::string register_of(std::string const& name, int bits) {
  return "  .reg ." + (bits == 1 ? std::string("pred") : "b" + std::to_string(bits)) + " %" + name + ";\n";
}
std::string head(std::size_t parameters) {
  std::string text = ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry bench(";
  for (std::size_t n = 0; n < parameters; ++n)
    text += (n == 0 ? "" : ", ") + std::string(".param .u64 p") + std::to_string(n);
  return text +
         ")\n{\n  .reg .b32 %r<9>, %t<4>;\n  .reg .b64 %rd<9>, %x<4>;\n  .reg .pred %p<9>, %more;\n  .reg .b16 %h;\n";
}

}  // namespace

std::vector<std::uint64_t> evaluate(std::string const& body, int result_bits, std::vector<column> const& operands) {
  using namespace softgpu;
  std::size_t const rows = operands.empty() ? 32 : operands[0].values.size();
  std::string text = head(operands.size() + 1) + register_of("d", result_bits);
  for (std::size_t n = 0; n < operands.size(); ++n) text += register_of(names[n], operands[n].bits);
  text +=
      "  mov.u32 %t0, %ctaid.x;\n  mov.u32 %t1, %tid.x;\n  mad.lo.u32 %t0, %t0, 128, %t1;\n  setp.ge.u32 %more, %t0, " +
      std::to_string(rows) + ";\n  @%more ret;\n  mul.wide.u32 %x0, %t0, 8;\n";
  for (std::size_t n = 0; n < operands.size(); ++n) {
    text += "  ld.param.u64 %x1, [p" + std::to_string(n) + "];\n  add.u64 %x1, %x1, %x0;\n";
    if (operands[n].bits == 1)
      text += "  ld.global.b32 %t2, [%x1];\n  setp.ne.u32 %" + std::string(names[n]) + ", %t2, 0;\n";
    else text += "  ld.global.b" + std::to_string(operands[n].bits) + " %" + names[n] + ", [%x1];\n";
  }
  text += "  " + body + "\n  ld.param.u64 %x1, [p" + std::to_string(operands.size()) + "];\n  add.u64 %x1, %x1, %x0;\n";
  text += result_bits == 1 ? std::string("  selp.b32 %t2, 1, 0, %d;\n  st.global.b32 [%x1], %t2;\n")
                           : "  st.global.b" + std::to_string(result_bits) + " [%x1], %d;\n";
  text += "  ret;\n}\n";

  module m(text);
  kernel const* const k = m.find_kernel("bench");
  REQUIRE(k != nullptr);
  launch l;
  l.grid[0] = static_cast<std::uint32_t>((rows + 127) / 128);
  l.block[0] = 128;
  l.parameters.resize(k->parameter_bytes);
  std::vector<std::uint64_t> buffers;
  for (std::size_t n = 0; n <= operands.size(); ++n) {
    std::uint64_t const p = memory().allocate(8 * rows);
    if (n < operands.size()) std::memcpy(memory().real(p), operands[n].values.data(), 8 * rows);
    else std::memset(memory().real(p), 0, 8 * rows);
    memory().mark(p, 8 * rows);
    std::memcpy(&l.parameters[8 * n], &p, 8);
    buffers.push_back(p);
  }
  int const before = report_count();
  bool const completed = execute(*k, l) == outcome::completed;
  CAPTURE(body);
  CAPTURE(last_report());
  CHECK(completed);
  CHECK(report_count() == before);
  std::vector<std::uint64_t> results(rows);
  std::memcpy(results.data(), memory().real(buffers.back()), 8 * rows);
  for (auto const p : buffers) memory().release(p, "bench");
  return results;
}

std::string refusal_of(std::string const& statement) {
  std::string text = head(1);
  for (auto const* const name : names) text += register_of(name, 32);
  text += register_of("d", 32) + "  " + statement + "\n  ret;\n}\n";
  softgpu::module m(text);
  softgpu::kernel const* const k = m.find_kernel("bench");
  for (auto const& o : k->origins)
    if (o.refusal != 0) return k->refusals[o.refusal];
  return {};
}

}  // namespace softgpu_test
