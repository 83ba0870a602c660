// One instruction while it is decoded. A modifier that nobody takes makes it a refusal: a lenient decoder is a liar.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/kernel.hpp"
#include "ptx/types.hpp"

namespace softgpu {

/// Why an instruction is not decoded.
struct refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class decoder;

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
  void address(std::size_t n);                               ///< [base + offset] into a, wide and offset
  void elements(std::size_t n, type t);                      ///< {r0, r1} into v, count and wide

  void read_all(type t, std::size_t from = 1);  ///< a, b, c, e from operand `from` on
  void operator()(handler run) const noexcept { out.run = run; }

  instruction& out;

 private:
  decoder& decoder_;
  std::string_view opcode_;
  std::vector<std::string_view> modifiers_, operands_;
  std::vector<bool> taken_;
};

/// A number in the text, decimal, 0x or 0b, perhaps negative. Throws a refusal if it is none.
[[nodiscard]] std::uint64_t parse_integer(std::string_view text);

}  // namespace softgpu
