#include "ptx/statement.hpp"

#include <charconv>

#include "ptx/decode.hpp"
#include "ptx/lexer.hpp"

namespace softgpu {

std::uint64_t parse_integer(std::string_view text) {
  std::string_view digits = text;
  bool const negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  if (digits.ends_with('U')) digits.remove_suffix(1);
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) base = 16;
  if (digits.starts_with("0b") || digits.starts_with("0B")) base = 2;
  if (base != 10) digits.remove_prefix(2);
  std::uint64_t n = 0;
  auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n, base);
  if (error != std::errc{} || end != digits.data() + digits.size()) throw refusal("operand " + std::string(text));
  return negative ? 0 - n : n;
}

statement::statement(decoder& d, instruction& to, std::string_view opcode_and_modifiers, std::string_view operands)
    : out(to), decoder_(d), operands_(split(operands, ',')) {
  // "L2::128B" is one modifier, and '.' separates them all.
  auto const parts = split(opcode_and_modifiers, '.');
  opcode_ = parts.at(0);
  modifiers_.assign(parts.begin() + 1, parts.end());
  taken_.assign(modifiers_.size(), false);
}

bool statement::take(std::string_view modifier) noexcept {
  for (std::size_t n = 0; n < modifiers_.size(); ++n)
    if (!taken_[n] && modifiers_[n] == modifier) return taken_[n] = true;
  return false;
}
void statement::allow(std::initializer_list<std::string_view> harmless) noexcept {
  for (auto const modifier : harmless) take(modifier);
}
int statement::take_one(std::initializer_list<std::string_view> alternatives) noexcept {
  int n = 0;
  for (auto const modifier : alternatives) {
    if (take(modifier)) return n;
    ++n;
  }
  return -1;
}
int statement::need_one(std::initializer_list<std::string_view> alternatives) {
  int const n = take_one(alternatives);
  if (n >= 0) return n;
  std::string text = "none of";
  for (auto const modifier : alternatives) text += " ." + std::string(modifier);
  throw refusal(text);
}
type statement::take_type() {
  for (std::size_t n = 0; n < modifiers_.size(); ++n)
    if (auto const t = taken_[n] ? type::none : type_of(modifiers_[n]); t != type::none) {
      taken_[n] = true;
      return t;
    }
  return type::none;
}
type statement::need_type() {
  auto const t = take_type();
  if (t == type::none) throw refusal("no type that is known here");
  return t;
}
std::string_view statement::next_modifier() const noexcept {
  for (std::size_t n = 0; n < modifiers_.size(); ++n)
    if (!taken_[n]) return modifiers_[n];
  return {};
}
void statement::finish() const {
  if (auto const left = next_modifier(); !left.empty()) throw refusal("modifier ." + std::string(left));
}

void statement::need(std::size_t count) const { need_between(count, count); }
void statement::need_between(std::size_t least, std::size_t most) const {
  if (operands_.size() < least || operands_.size() > most)
    throw refusal(std::to_string(operands_.size()) + " operands");
}
std::string_view statement::operand(std::size_t n) const {
  if (n >= operands_.size()) throw refusal("too few operands");
  return operands_[n];
}
std::uint32_t statement::read(std::size_t n, type t) { return decoder_.operand(operand(n), t); }
std::uint32_t statement::write(std::size_t n, type t) {
  if (operand(n) == "_") return 0;
  auto const s = decoder_.find(operand(n));
  if (!s || s->is != symbol::reg) throw refusal("result " + std::string(operand(n)));
  if (is_wide(s->t) != is_wide(t) || (s->t == type::pred) != (t == type::pred))
    throw refusal("register width differs from type: " + std::string(operand(n)));
  return static_cast<std::uint32_t>(s->at);
}
std::uint32_t statement::read_predicate(std::size_t n, int which) {
  auto text = operand(n);
  if (text.starts_with('!')) {
    out.flip = static_cast<std::uint8_t>(out.flip | 1U << which);
    text = trim(text.substr(1));
  }
  return decoder_.operand(text, type::pred);
}
std::string_view statement::split_pair(std::size_t n) {
  auto const text = operand(n);
  auto const bar = text.find('|');
  if (bar == std::string_view::npos) return {};
  operands_[n] = trim(text.substr(0, bar));
  return trim(text.substr(bar + 1));
}
std::uint32_t statement::literal(std::size_t n) const { return static_cast<std::uint32_t>(parse_integer(operand(n))); }
void statement::address(std::size_t n) {
  auto text = operand(n);
  if (!text.starts_with('[') || !text.ends_with(']')) throw refusal("address " + std::string(text));
  text = trim(text.substr(1, text.size() - 2));
  auto const plus = text.find('+', 1);
  auto const base = trim(text.substr(0, plus));
  out.offset =
      plus == std::string_view::npos ? 0 : static_cast<std::int64_t>(parse_integer(trim(text.substr(plus + 1))));
  auto const s = decoder_.find(base);
  bool const narrow = s && s->is == symbol::reg && !is_wide(s->t);
  out.a = decoder_.operand(base, narrow ? type::b32 : type::b64);
  if (!narrow) out.wide |= 2;
}
void statement::elements(std::size_t n, type t) {
  auto const text = operand(n);
  auto const parts = text.starts_with('{') ? split(text.substr(1, text.size() - 2), ',') : std::vector{text};
  if (parts.empty() || parts.size() > 4) throw refusal("vector of " + std::to_string(parts.size()));
  out.count = static_cast<std::uint8_t>(parts.size());
  for (std::size_t k = 0; k < parts.size(); ++k) {
    if (parts[k] == "_") continue;
    auto const s = decoder_.find(parts[k]);
    bool const is_reg = s && s->is == symbol::reg;
    bool const wide = is_reg ? is_wide(s->t) : is_wide(t);  // a register may be wider than what is in memory
    if (is_reg && s->t == type::pred) throw refusal("predicate in memory");
    if (is_reg && size_of(s->t) < size_of(t)) throw refusal("register narrower than type: " + std::string(parts[k]));
    out.v[k] = is_reg ? static_cast<std::uint32_t>(s->at) : decoder_.operand(parts[k], t);
    if (wide) out.wide = static_cast<std::uint8_t>(out.wide | 1U << (4 + k));
  }
}
void statement::read_all(type t, std::size_t from) {
  std::uint32_t* const slots[] = {&out.a, &out.b, &out.c, &out.e};
  for (std::size_t n = from; n < operands_.size() && n - from < 4; ++n) *slots[n - from] = read(n, t);
}

}  // namespace softgpu
