// Turns statements into instructions. Every opcode has one function, beside the handlers it chooses from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ptx/kernel.hpp"
#include "ptx/lexer.hpp"
#include "ptx/statement.hpp"
#include "ptx/types.hpp"

namespace softgpu {

using opcode_decoder = void (*)(statement&);
using opcode_table = std::unordered_map<std::string_view, opcode_decoder>;
// One for each file of ptx/ops.
void add_integer_opcodes(opcode_table& t);
void add_bit_opcodes(opcode_table& t);
void add_float_opcodes(opcode_table& t);
void add_compare_opcodes(opcode_table& t);
void add_convert_opcodes(opcode_table& t);
void add_move_opcodes(opcode_table& t);
void add_warp_opcodes(opcode_table& t);
void add_memory_opcodes(opcode_table& t);
void add_atomic_opcodes(opcode_table& t);
void add_async_opcodes(opcode_table& t);
void add_control_opcodes(opcode_table& t);
[[nodiscard]] opcode_table const& all_opcodes();

// Opcodes that integers and floating point share: integer.cpp owns the names.
void decode_real(statement& s, type t);
void decode_fused(statement& s, type t);

/// What a name in a body stands for.
struct symbol {
  enum kind : std::uint8_t { reg, shared, local, param, global } is = reg;
  type t = type::none;
  std::uint64_t at = 0;                 ///< offset in the register file, in its space, or device address
  std::uint32_t count = 0, stride = 0;  ///< of registers that are declared together, as %r<9>
};

/// What module knows and bodies use.
struct program {
  std::unordered_map<std::string_view, item const*> functions;
  std::unordered_map<std::string_view, symbol> globals;
  std::unordered_map<std::string_view, declaration> shared;  ///< of the whole text
  std::unordered_map<std::string_view, std::string_view> files;
  int arch = 0;
};

/// Decodes a kernel with the functions it calls, which are expanded where they are called: PTX from C++ has no
/// recursion that we would have to run, and the scheduler needs no return addresses.
class decoder {
 public:
  decoder(program const& from, kernel& into);

  void decode_kernel(item const& entry);

  // For statement.
  [[nodiscard]] std::optional<symbol> find(std::string_view name) const;
  std::uint32_t operand(std::string_view text, type t);
  std::uint32_t constant(std::uint64_t value, int bytes);
  void label_later(std::string_view label);  ///< target of the instruction being decoded
  void table_later(std::string_view name);
  void call(statement& s);
  void return_later(instruction& i);  ///< leaves the function, or the kernel

 private:
  using scope = std::unordered_map<std::string_view, symbol>;
  struct frame {  // of the kernel, or of a function being expanded
    std::unordered_map<std::string_view, std::int32_t> labels;
    std::vector<std::pair<std::size_t, std::string_view>> branches, table_branches;
    std::unordered_map<std::string_view, std::vector<std::string_view>> tables;
    std::vector<std::size_t> returns;  ///< become branches to the end of a function
    std::size_t first_scope = 0;
    std::string_view name, last_label;
  };

  void body(item const& it);
  void directive(std::string_view text);
  void declare_registers(std::string_view text);
  void declare_variable(std::string_view text, std::string_view space_name);
  void place(std::string_view loc);
  void decode(std::string_view text);
  void refuse(instruction& i, std::string const& why);
  void append(instruction const& i, std::string_view text);
  std::uint32_t take(std::uint32_t bytes);
  std::uint32_t special(kernel::special which);
  std::uint32_t shared_variable(std::string_view name, declaration const& d, int bytes);

  program const& program_;
  kernel& k_;
  std::vector<scope> scopes_;
  std::vector<frame> frames_;
  std::unordered_map<std::string, std::uint32_t> constants_;
  std::unordered_map<std::string_view, std::uint64_t> shared_at_;  ///< of the module's variables that are used
  std::vector<std::pair<std::uint32_t, int>> dynamic_shared_;      ///< constants to be known at the end
  std::uint32_t place_ = 0, refusal_ = 0;
};

}  // namespace softgpu
