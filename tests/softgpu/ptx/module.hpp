// One PTX text: its device variables, allocated at once, and its kernels, each decoded when it is first asked for.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/kernel.hpp"

namespace softgpu {

struct device_variable {
  std::uint64_t address = 0, bytes = 0;
};

class module {
 public:
  /// Throws std::runtime_error if the text is no PTX. Instructions that the interpreter does not know are refused when
  /// they are executed, by name.
  explicit module(std::string_view ptx);
  module(module&&) noexcept;
  module& operator=(module&&) noexcept;
  ~module();

  /// Null if there is no such `.entry`. The kernel lives as long as the module.
  [[nodiscard]] kernel const* find_kernel(std::string const& mangled);
  [[nodiscard]] device_variable const* find_variable(std::string const& mangled) const;
  [[nodiscard]] std::vector<std::string> kernel_names() const;

 private:
  struct body;
  std::unique_ptr<body> body_;
};

/// Every opcode with its modifiers and types that a PTX text uses, with its count: what a CI job compares.
[[nodiscard]] std::map<std::string, int> opcodes(std::string_view ptx);

/// Those of the opcodes that the interpreter would refuse, each with its reason.
[[nodiscard]] std::map<std::string, std::string> refused_opcodes(std::string_view ptx);

}  // namespace softgpu
