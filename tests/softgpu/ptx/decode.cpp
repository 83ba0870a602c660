#include "ptx/decode.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "exec/warp.hpp"

namespace softgpu {

namespace {

std::uint64_t parse_bits(std::string_view hexadecimal) {
  std::uint64_t n = 0;
  std::from_chars(hexadecimal.data(), hexadecimal.data() + hexadecimal.size(), n, 16);
  return n;
}

constexpr std::pair<std::string_view, kernel::special> special_names[] = {
    {"%tid.x", kernel::tid_x},
    {"%tid.y", kernel::tid_y},
    {"%tid.z", kernel::tid_z},
    {"%ntid.x", kernel::ntid_x},
    {"%ntid.y", kernel::ntid_y},
    {"%ntid.z", kernel::ntid_z},
    {"%ctaid.x", kernel::ctaid_x},
    {"%ctaid.y", kernel::ctaid_y},
    {"%ctaid.z", kernel::ctaid_z},
    {"%nctaid.x", kernel::nctaid_x},
    {"%nctaid.y", kernel::nctaid_y},
    {"%nctaid.z", kernel::nctaid_z},
    {"%laneid", kernel::laneid},
    {"%warpid", kernel::warpid},
    {"%nwarpid", kernel::nwarpid},
    {"%smid", kernel::smid},
    {"%nsmid", kernel::nsmid},
    {"%dynamic_smem_size", kernel::dynamic_smem_size},
    {"%total_smem_size", kernel::total_smem_size}};

}  // namespace

opcode_table const& all_opcodes() {
  static opcode_table const table = [] {
    opcode_table t;
    add_integer_opcodes(t);
    add_bit_opcodes(t);
    add_float_opcodes(t);
    add_compare_opcodes(t);
    add_convert_opcodes(t);
    add_move_opcodes(t);
    add_warp_opcodes(t);
    add_memory_opcodes(t);
    add_atomic_opcodes(t);
    add_async_opcodes(t);
    add_control_opcodes(t);
    return t;
  }();
  return table;
}

// ---- registers and names -----------------------------------------------------------------------------------------

decoder::decoder(program const& from, kernel& into) : program_(from), k_(into), scopes_(1) {
  k_.arch = from.arch;
  k_.file_bytes = 64;
  k_.file_image.assign(64, 0);
  std::memset(k_.file_image.data(), 0xFF, 4);  // slot 0, the guard of what has none
}

std::uint32_t decoder::take(std::uint32_t bytes) {
  std::uint32_t const at = (k_.file_bytes + 63) & ~63U;
  k_.file_bytes = at + bytes;
  return at;
}

std::uint32_t decoder::special(kernel::special which) {
  auto& slot = k_.specials[which];
  if (slot == 0) slot = take(128);
  return slot;
}

std::uint32_t decoder::constant(std::uint64_t value, int bytes) {
  auto const [it, fresh] = constants_.try_emplace(std::to_string(bytes) + ":" + std::to_string(value), 0);
  if (!fresh) return it->second;
  it->second = take(static_cast<std::uint32_t>(32 * bytes));
  if (k_.first_constant == 0) k_.first_constant = it->second;
  k_.file_image.resize(std::max<std::size_t>(k_.file_image.size(), k_.file_bytes));
  auto const size = static_cast<std::size_t>(bytes);
  for (std::size_t lane = 0; lane < 32; ++lane) std::memcpy(&k_.file_image[it->second + size * lane], &value, size);
  return it->second;
}

std::optional<symbol> decoder::find(std::string_view name) const {
  std::size_t const first = frames_.empty() ? 0 : frames_.back().first_scope;
  auto const digits = name.find_last_not_of("0123456789") + 1;
  for (std::size_t n = scopes_.size(); n-- > first;) {
    if (auto const it = scopes_[n].find(name); it != scopes_[n].end() && it->second.count == 0) return it->second;
    auto const it = digits == name.size() ? scopes_[n].end() : scopes_[n].find(name.substr(0, digits));
    if (it == scopes_[n].end() || it->second.count == 0) continue;
    auto const number = parse_integer(name.substr(digits));
    if (number >= it->second.count) continue;
    symbol one = it->second;
    one.at += number * one.stride;
    return one;
  }
  auto const it = program_.globals.find(name);
  return it == program_.globals.end() ? std::nullopt : std::optional(it->second);
}

std::uint32_t decoder::shared_variable(std::string_view name, declaration const& d, int bytes) {
  if (d.bytes == 0) {  // extern __shared__: follows the static part, whose size is known at the end
    auto const slot = constant(std::uint64_t{1} << 31, bytes);
    dynamic_shared_.emplace_back(slot, bytes);
    return slot;
  }
  auto const [it, fresh] = shared_at_.try_emplace(name, 0);
  if (fresh) {
    k_.static_shared = (k_.static_shared + d.align - 1) / d.align * d.align;
    it->second = k_.static_shared;
    k_.static_shared += static_cast<std::uint32_t>(d.bytes);
  }
  return constant(it->second, bytes);
}

std::uint32_t decoder::operand(std::string_view text, type t) {
  int const bytes = is_wide(t) ? 8 : 4;
  if (auto const s = find(text)) {
    if (s->is != symbol::reg) return constant(s->at, bytes);
    if (is_wide(s->t) != is_wide(t) || (s->t == type::pred) != (t == type::pred))
      throw refusal("register width differs from type: " + std::string(text));
    return static_cast<std::uint32_t>(s->at);
  }
  if (auto const d = program_.shared.find(text); d != program_.shared.end())
    return shared_variable(text, d->second, bytes);
  for (auto const& [name, which] : special_names)
    if (name == text) {
      if (is_wide(t)) throw refusal("64-bit use of " + std::string(text));
      return special(which);
    }
  if (text == "WARP_SZ") return constant(32, bytes);
  if (text.empty() || text.front() == '%') throw refusal("unknown register " + std::string(text));
  if (t == type::pred) return constant(parse_integer(text) != 0 ? ~std::uint64_t{0} : 0, 4);
  if (text.starts_with("0f") || text.starts_with("0F")) {
    if (bytes == 8) throw refusal("operand " + std::string(text));
    return constant(parse_bits(text.substr(2)), 4);
  }
  if (text.starts_with("0d") || text.starts_with("0D")) {
    if (bytes == 4) throw refusal("operand " + std::string(text));
    return constant(parse_bits(text.substr(2)), 8);
  }
  if (std::isdigit(static_cast<unsigned char>(text.front())) == 0 && text.front() != '-')
    throw refusal("operand " + std::string(text));
  auto const value = parse_integer(text);
  return constant(bytes == 4 ? value & 0xFFFFFFFF : value, bytes);
}

// ---- bodies ------------------------------------------------------------------------------------------------------

void decoder::decode_kernel(item const& entry) {
  k_.name = std::string(entry.name);
  for (auto const parameter : split(entry.parameters, ',')) {
    auto const d = parse_declaration(parameter);
    k_.parameter_bytes = (k_.parameter_bytes + d.align - 1) / d.align * d.align;
    scopes_.back()[d.name] = {symbol::param, type::none, k_.parameter_bytes, 0, 0};
    k_.parameters.push_back({k_.parameter_bytes, static_cast<std::uint32_t>(d.bytes)});
    k_.parameter_bytes += static_cast<std::uint32_t>(d.bytes);
  }
  if (auto const at = entry.directives.find(".maxntid"); at != std::string_view::npos) {
    std::uint32_t threads = 1;
    for (auto const word : words(entry.directives.substr(at + 8))) {
      if (std::isdigit(static_cast<unsigned char>(word.front())) == 0) break;
      threads *= static_cast<std::uint32_t>(parse_integer(word));
    }
    k_.max_threads = threads;
  }
  frames_.emplace_back();
  body(entry);
  frames_.pop_back();
  k_.static_shared = (k_.static_shared + 15) & ~15U;
  k_.local_bytes = (k_.local_bytes + 15) & ~15U;
  for (auto const& [slot, bytes] : dynamic_shared_)
    for (std::size_t lane = 0; lane < 32; ++lane)
      std::memcpy(&k_.file_image[slot + static_cast<std::size_t>(bytes) * lane], &k_.static_shared, 4);
}

void decoder::body(item const& it) {
  bool const is_entry = it.kind == item_kind::entry;
  auto& outer = frames_.back();
  outer.name = it.name;
  outer.first_scope = is_entry ? 0 : scopes_.size() - 1;
  std::size_t const depth = scopes_.size();
  for (auto const text : statements(it.body)) {
    if (text == "{") {
      scopes_.emplace_back();
    } else if (text == "}") {
      if (scopes_.size() > depth) scopes_.pop_back();
    } else if (text.back() == ':') {
      frame& f = frames_.back();
      f.last_label = trim(text.substr(0, text.size() - 1));
      f.labels[f.last_label] = static_cast<std::int32_t>(k_.code.size());
    } else if (text.front() == '.') {
      directive(text);
    } else {
      decode(text);
    }
  }
  scopes_.resize(depth);
  frame& f = frames_.back();
  auto const end = static_cast<std::int32_t>(k_.code.size());
  auto const target = [&](std::string_view label) {
    auto const at = f.labels.find(label);
    if (at == f.labels.end())
      throw std::runtime_error("softgpu: no label " + std::string(label) + " in " + std::string(it.name));
    return at->second;
  };
  for (auto const& [at, label] : f.branches) k_.code[at].target = target(label);
  for (auto const& [at, name] : f.table_branches) {
    std::vector<std::int32_t> targets;
    for (auto const label : f.tables[name]) targets.push_back(target(label));
    k_.code[at].target = static_cast<std::int32_t>(k_.tables.size());
    k_.tables.push_back(std::move(targets));
  }
  for (std::size_t const at : f.returns) k_.code[at].target = end;
  if (is_entry) {
    instruction last;
    last.kind = flow::exit;
    append(last, "end of kernel");
  }
}

void decoder::directive(std::string_view text) {
  auto const word = text.substr(0, text.find_first_of(". \t\r\n", 1));  // `.reg.b16 h;` is fine, too
  if (word == ".reg") declare_registers(trim(text.substr(4)));
  else if (word == ".loc") place(text);
  else if (word == ".shared" || word == ".local" || word == ".param")
    declare_variable(trim(text.substr(word.size())), word);
  else if (word == ".branchtargets") frames_.back().tables[frames_.back().last_label] = words(text.substr(word.size()));
}

void decoder::declare_registers(std::string_view text) {
  auto const space = text.find_first_of(" \t");
  type const t = type_of(text.substr(1, space - 1));
  if (t == type::none) return;  // .b128 and the like: instructions that use them are refused
  std::uint32_t const bytes = t == type::pred ? 4 : is_wide(t) ? 256 : 128;
  for (auto const name : split(text.substr(space), ',')) {
    auto const bracket = name.find('<');
    bool const many = bracket != std::string_view::npos;
    auto const count =
        many ? static_cast<std::uint32_t>(parse_integer(name.substr(bracket + 1, name.find('>') - bracket - 1))) : 1;
    scopes_.back()[name.substr(0, bracket)] = {symbol::reg, t, take(bytes * count), many ? count : 0, bytes};
  }
}

void decoder::declare_variable(std::string_view text, std::string_view space_name) {
  auto const d = parse_declaration(text);
  bool const shared = space_name == ".shared";
  auto& size = shared ? k_.static_shared : k_.local_bytes;
  size = (size + d.align - 1) / d.align * d.align;
  // Parameters of calls are memory of each thread.
  scopes_.back()[d.name] = {shared ? symbol::shared : symbol::local, type::none, size, 0, 0};
  size += static_cast<std::uint32_t>(d.bytes);
}

void decoder::place(std::string_view loc) {
  auto w = words(loc);
  if (auto const inlined = std::find(w.begin(), w.end(), "inlined_at"); inlined != w.end())
    w.erase(w.begin() + 1, inlined + 1);  // the caller's line says more than that of a header
  if (w.size() < 3) return;
  auto const file = program_.files.find(w[1]);
  std::string const name = file == program_.files.end() ? "?" : std::string(file->second);
  std::string text = "   [" + name + ":" + std::string(w[2]) + "]";
  if (k_.places.back() == text) return;
  place_ = static_cast<std::uint32_t>(k_.places.size());
  k_.places.push_back(std::move(text));
}

void decoder::append(instruction const& i, std::string_view text) {
  k_.code.push_back(i);
  k_.origins.push_back({text, place_, refusal_});
  refusal_ = 0;
}

void decoder::refuse(instruction& i, std::string const& why) {
  instruction const plain = i;
  i = {};
  i.guard = plain.guard;
  i.negate = plain.negate;
  i.run = refused;
  refusal_ = static_cast<std::uint32_t>(k_.refusals.size());
  k_.refusals.push_back(why);
}

void decoder::decode(std::string_view text) {
  instruction i;
  std::string_view rest = text;
  try {
    if (rest.starts_with('@')) {
      rest = trim(rest.substr(1));
      if (rest.starts_with('!')) {
        i.negate = true;
        rest = trim(rest.substr(1));
      }
      auto const end = rest.find_first_of(" \t\r\n");
      auto const s = find(rest.substr(0, end));
      if (!s || s->is != symbol::reg || s->t != type::pred) throw refusal("guard " + std::string(rest.substr(0, end)));
      i.guard = static_cast<std::uint32_t>(s->at);
      rest = trim(rest.substr(end));
    }
    auto const end = std::min(rest.find_first_of(" \t\r\n{"), rest.size());
    statement s(*this, i, rest.substr(0, end), rest.substr(end));
    auto const known = all_opcodes().find(s.opcode());
    if (known == all_opcodes().end()) throw refusal("opcode " + std::string(s.opcode()));
    known->second(s);
    s.finish();
    if (i.kind == flow::next && !i.run && s.opcode() != "call") throw refusal("no handler");
  } catch (refusal const& why) { refuse(i, why.what()); }
  if (i.run || i.kind != flow::next) append(i, text);
}

void decoder::label_later(std::string_view label) { frames_.back().branches.emplace_back(k_.code.size(), label); }
void decoder::table_later(std::string_view name) { frames_.back().table_branches.emplace_back(k_.code.size(), name); }
void decoder::return_later(instruction& i) {
  i.kind = frames_.size() == 1 ? flow::exit : flow::branch;
  if (i.kind == flow::branch) frames_.back().returns.push_back(k_.code.size());
}

// ---- calls -------------------------------------------------------------------------------------------------------

void decoder::call(statement& s) {
  // call (results), name, (arguments);  results and arguments may be missing
  std::size_t n = 0;
  auto const list = [&]() -> std::vector<std::string_view> {
    if (n >= s.count() || !s.operand(n).starts_with('(')) return {};
    auto const text = s.operand(n++);
    return split(text.substr(1, text.size() - 2), ',');
  };
  auto const results = list();
  auto const name = s.operand(n++);
  auto const arguments = list();
  if (n != s.count()) throw refusal("indirect call");
  auto const at = program_.functions.find(name);
  if (at == program_.functions.end()) throw refusal("call of unknown function " + std::string(name));
  item const& function = *at->second;
  for (frame const& f : frames_)
    if (f.name == name) throw refusal("recursive call of " + std::string(name));
  scope formals;
  auto const bind = [&](std::string_view declared, std::vector<std::string_view> const& actual) {
    auto const names = split(declared, ',');
    if (names.size() != actual.size()) throw refusal("number of arguments of " + std::string(name));
    for (std::size_t k = 0; k < names.size(); ++k) {
      auto const there = find(actual[k]);
      if (!there || there->is != symbol::local) throw refusal("argument " + std::string(actual[k]));
      formals[parse_declaration(names[k]).name] = *there;
    }
  };
  bind(function.results, results);
  bind(function.parameters, arguments);
  // A guarded call jumps around the body.
  instruction& i = s.out;
  bool const guarded = i.guard != 0 || i.negate;
  std::size_t const jump = k_.code.size();
  if (guarded) {
    i.kind = flow::branch;
    i.negate = !i.negate;
    append(i, "call");
  }
  i = {};
  scopes_.push_back(std::move(formals));
  frames_.emplace_back();
  std::uint32_t const place = place_;
  body(function);
  place_ = place;
  frames_.pop_back();
  scopes_.pop_back();
  if (guarded) k_.code[jump].target = static_cast<std::int32_t>(k_.code.size());
}

}  // namespace softgpu
