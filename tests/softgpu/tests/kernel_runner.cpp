#include "kernel_runner.hpp"

namespace softgpu_test {

std::string kernel_text(std::string const& body, std::size_t pointers, std::string const& before) {
  std::string text = ".version 8.8\n.target sm_90\n.address_size 64\n" + before + "\n.visible .entry k(";
  for (std::size_t n = 0; n < pointers; ++n)
    text += (n == 0 ? "" : ", ") + std::string(".param .u64 p") + std::to_string(n);
  text +=
      ")\n{\n  .reg .b32 %r<32>;\n  .reg .b64 %rd<32>;\n  .reg .f32 %f<16>;\n  .reg .f64 %fd<8>;\n  .reg .pred "
      "%p<16>;\n  .reg .b16 %h<8>;\n";
  for (std::size_t n = 0; n < pointers; ++n)
    text += "  ld.param.u64 %rd" + std::to_string(24 + n) + ", [p" + std::to_string(n) + "];\n";
  return text + "  mov.u32 %r30, %tid.x;\n  mov.u32 %r31, %ctaid.x;\n" + body + "\n  ret;\n}\n";
}

softgpu::outcome run_text(std::string const& text, shape s, std::vector<std::uint64_t> const& pointers) {
  softgpu::module m(text);
  softgpu::kernel const* const k = m.find_kernel("k");
  REQUIRE(k != nullptr);
  softgpu::launch l;
  l.grid[0] = s.blocks;
  l.block[0] = s.threads;
  l.dynamic_shared = s.dynamic_shared;
  l.parameters.resize(k->parameter_bytes);
  for (std::size_t n = 0; n < pointers.size(); ++n) std::memcpy(&l.parameters[8 * n], &pointers[n], 8);
  return softgpu::execute(*k, l);
}

void check_report(std::string const& part, std::string const& body, shape s,
                  std::vector<std::uint64_t> const& pointers) {
  int const before = softgpu::report_count();
  if (!part.empty()) softgpu::expect_reports(part, 1000);
  (void)run_body(body, s, pointers);
  CAPTURE(softgpu::last_report());
  CAPTURE(part);
  if (!part.empty()) CHECK(softgpu::missing_reports() < 1000);
  CHECK(softgpu::report_count() == before);
  softgpu::clear_reports();
}

}  // namespace softgpu_test
