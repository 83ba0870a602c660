#include "ptx/module.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "memory.hpp"
#include "ptx/decode.hpp"
#include "ptx/lexer.hpp"

namespace softgpu {

struct module::body {
  std::string text;
  std::vector<item> parts;
  program symbols;
  std::map<std::string, item const*> entries;
  std::map<std::string, std::unique_ptr<kernel>> kernels;
  std::map<std::string, device_variable> variables;

  explicit body(std::string_view ptx) : text(without_comments(ptx)), parts(items(text)) {
    for (item const& it : parts) {
      if (it.kind == item_kind::directive) directive(it.head);
      else if (it.kind == item_kind::entry && it.has_body) entries[std::string(it.name)] = &it;
      else if (it.has_body) symbols.functions[it.name] = &it;
    }
    if (entries.empty() && symbols.functions.empty() && variables.empty() && symbols.arch == 0)
      throw std::runtime_error("softgpu: this is no PTX");
    for (auto const& [variable, values] : initial_) initialize(variable, values);
  }

 private:
  void directive(std::string_view head) {
    auto const w = words(head);
    if (w.empty()) return;
    if (w[0] == ".target") {
      auto const digits = w.at(1).substr(w.at(1).find('_') + 1);
      std::from_chars(digits.data(), digits.data() + digits.size(), symbols.arch);
    } else if (w[0] == ".file" && w.size() > 2) {
      auto name = head.substr(head.find('"') + 1);
      name = name.substr(0, name.find('"'));
      symbols.files[w[1]] = name.substr(name.rfind('/') + 1);
    }
    for (std::size_t n = 0; n < w.size() && n < 3; ++n) {
      if (w[n] != ".global" && w[n] != ".const" && w[n] != ".shared") continue;
      auto const d = parse_declaration(head.substr(static_cast<std::size_t>(w[n].data() - head.data()) + w[n].size()));
      if (w[n] == ".shared") {
        symbols.shared[d.name] = d;
      } else {
        auto const at = memory().allocate(d.bytes, life::live, owner::module);
        if (at == 0) throw std::runtime_error("softgpu: no memory for " + std::string(d.name));
        std::memset(memory().real(at), 0, d.bytes);
        memory().mark(at, d.bytes);
        variables[std::string(d.name)] = {at, d.bytes};
        symbols.globals[d.name] = {symbol::global, type::none, at, 0, 0};
        if (!d.values.empty()) initial_.emplace_back(at, d);
      }
      return;
    }
  }

  void initialize(std::uint64_t at, declaration const& d) {
    std::size_t n = 0;
    for (auto const value : split(d.values, ',')) {
      std::uint64_t bits = 0;
      if (auto const address = value_of_symbol(value); address != 0) bits = address;
      else if (value.starts_with("0f") || value.starts_with("0F") || value.starts_with("0d") || value.starts_with("0D"))
        std::from_chars(value.data() + 2, value.data() + value.size(), bits, 16);
      else
        bits = value.starts_with('-') ? 0 - std::strtoull(std::string(value.substr(1)).c_str(), nullptr, 0)
                                      : std::strtoull(std::string(value).c_str(), nullptr, 0);
      if ((n + 1) * d.unit > d.bytes)
        throw std::runtime_error("softgpu: too many initial values of " + std::string(d.name));
      std::memcpy(memory().real(at) + n++ * d.unit, &bits, d.unit);
    }
  }
  /// `name`, `generic(name)`, `name+8`.
  std::uint64_t value_of_symbol(std::string_view value) const {
    auto const plus = value.find('+');
    auto name = trim(value.substr(0, plus));
    if (name.starts_with("generic(")) name = trim(name.substr(8, name.find(')') - 8));
    auto const it = symbols.globals.find(name);
    if (it == symbols.globals.end()) return 0;
    if (plus == std::string_view::npos) return it->second.at;
    return it->second.at + std::strtoull(std::string(value.substr(plus + 1)).c_str(), nullptr, 0);
  }

  std::vector<std::pair<std::uint64_t, declaration>> initial_;
};

module::module(std::string_view ptx) :body_(std::make_unique<body>(ptx)) {}
module::module(module&&) noexcept = default;
module& module::operator=(module&&) noexcept = default;
module::~module() = default;

kernel const* module::find_kernel(std::string const& mangled) {
  auto const it = body_->entries.find(mangled);
  if (it == body_->entries.end()) return nullptr;
  auto& k = body_->kernels[mangled];
  if (!k) {
    k = std::make_unique<kernel>();
    decoder(body_->symbols, *k).decode_kernel(*it->second);
  }
  return k.get();
}

device_variable const* module::find_variable(std::string const& mangled) const {
  auto const it = body_->variables.find(mangled);
  return it == body_->variables.end() ? nullptr : &it->second;
}

std::vector<std::string> module::kernel_names() const {
  std::vector<std::string> names;
  for (auto const& [name, it] : body_->entries) names.push_back(name);
  return names;
}

namespace {
/// "add.s32" of "@%p1 add.s32 %r1, %r2, %r3", empty for what is no instruction.
std::string_view opcode_of(std::string_view statement) {
  if (statement == "{" || statement == "}" || statement.back() == ':' || statement.front() == '.') return {};
  if (statement.front() == '@') statement = trim(statement.substr(statement.find_first_of(" \t\r\n")));
  return statement.substr(0, statement.find_first_of(" \t\r\n{"));
}
}  // namespace

std::map<std::string, int> opcodes(std::string_view ptx) {
  std::map<std::string, int> counts;
  std::string const text = without_comments(ptx);
  for (item const& it : items(text))
    for (auto const statement : statements(it.body))
      if (auto const opcode = opcode_of(statement); !opcode.empty()) ++counts[std::string(opcode)];
  return counts;
}

std::map<std::string, std::string> refused_opcodes(std::string_view ptx) {
  std::map<std::string, std::string> refused;
  module m(ptx);
  for (auto const& name : m.kernel_names()) {
    kernel const& k = *m.find_kernel(name);
    for (origin const& o : k.origins)
      if (o.refusal != 0) refused[std::string(opcode_of(o.text))] = k.refusals[o.refusal];
  }
  return refused;
}

}  // namespace softgpu
