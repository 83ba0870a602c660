// Turns statements into instructions. Every opcode has one function, beside the handlers it chooses from, that takes the
// modifiers it knows; whatever is left over makes the instruction a refusal: a lenient decoder is a silent liar.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ptx/kernel.hpp"
#include "ptx/lexer.hpp"
#include "ptx/types.hpp"

namespace softgpu {

/// Why an instruction is not decoded.
struct refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class decoder;

/// One instruction while it is decoded.
class statement {
 public:
  statement(decoder& d, instruction& to, std::string_view opcode_and_modifiers, std::string_view operands);

  [[nodiscard]] std::string_view opcode() const noexcept { return opcode_; }
  [[nodiscard]] decoder& context() const noexcept { return decoder_; }

  // Modifiers: each must be taken by somebody.
  bool take(std::string_view modifier) noexcept;
  void allow(std::initializer_list<std::string_view> harmless) noexcept;  ///< cannot change what is computed here
  /// Which of these it is, -1 if none.
  int take_one(std::initializer_list<std::string_view> alternatives) noexcept;
  int need_one(std::initializer_list<std::string_view> alternatives);
  type take_type();  ///< the first one left; none if there is none
  type need_type();
  [[nodiscard]] std::string_view next_modifier() const noexcept;  ///< the first one left, not taken
  void finish() const;                                            ///< throws if anything is left

  // Operands.
  [[nodiscard]] std::size_t count() const noexcept { return operands_.size(); }
  void need(std::size_t count) const;
  void need_between(std::size_t least, std::size_t most) const;
  [[nodiscard]] std::string_view operand(std::size_t n) const;
  void replace(std::size_t n, std::string_view text) { operands_.at(n) = text; }
  std::uint32_t read(std::size_t n, type t);
  std::uint32_t write(std::size_t n, type t);  ///< 0 for "_"
  /// A predicate, perhaps negated: sets bit `which` of instruction::flip.
  std::uint32_t read_predicate(std::size_t n, int which);
  /// "p|q": the second part, empty if there is none; the operand becomes the first.
  std::string_view split_pair(std::size_t n);
  [[nodiscard]] std::uint32_t literal(std::size_t n) const;  ///< what must be known when the kernel is decoded
  void address(std::size_t n);            ///< [base + offset] into a, wide and offset
  void elements(std::size_t n, type t);   ///< {r0, r1} into v, count and wide

  void read_all(type t, std::size_t from = 1);  ///< a, b, c, e from operand `from` on
  void operator()(handler run) const noexcept { out.run = run; }

  instruction& out;

 private:
  decoder& decoder_;
  std::string_view opcode_;
  std::vector<std::string_view> modifiers_, operands_;
  std::vector<bool> taken_;
};

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
  std::uint64_t at = 0;  ///< offset in the register file, in its space, or device address
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
  /// The kind is meaningless without a value: "no such name" is an answer, too.
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

  void body(item const& it, bool is_entry);
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
  std::unordered_map<std::string_view, std::uint64_t> shared_at_;   ///< of the module's variables that are used
  std::vector<std::pair<std::uint32_t, int>> dynamic_shared_;       ///< constants to be known at the end
  std::uint32_t place_ = 0, refusal_ = 0;
};

}  // namespace softgpu
