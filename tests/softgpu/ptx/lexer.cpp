#include "ptx/lexer.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "ptx/types.hpp"

namespace softgpu {

namespace {
constexpr std::string_view blanks = " \t\r\n";
bool is_blank(char c) noexcept { return blanks.find(c) != std::string_view::npos; }
bool opens(char c) noexcept { return c == '{' || c == '[' || c == '('; }
bool closes(char c) noexcept { return c == '}' || c == ']' || c == ')'; }

unsigned long long number(std::string_view s) {
  unsigned long long n = 0;
  std::from_chars(s.data(), s.data() + s.size(), n);
  return n;
}

std::size_t after_brace(std::string_view s, std::size_t open) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t n = open; n < s.size(); ++n) {
    if (s[n] == '"') quoted = !quoted;
    if (quoted) continue;
    depth += s[n] == '{';
    depth -= s[n] == '}';
    if (depth == 0) return n + 1;
  }
  throw std::runtime_error("softgpu: a brace of this PTX is never closed");
}
}  // namespace

std::string_view trim(std::string_view s) noexcept {
  while (!s.empty() && is_blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_blank(s.back())) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> split(std::string_view s, char separator) {
  std::vector<std::string_view> out;
  int depth = 0;
  std::size_t from = 0;
  for (std::size_t n = 0; n <= s.size(); ++n) {
    if (n == s.size() || (s[n] == separator && depth == 0)) {
      if (auto const part = trim(s.substr(from, n - from)); !part.empty()) out.push_back(part);
      from = n + 1;
    } else {
      depth += opens(s[n]);
      depth -= closes(s[n]);
    }
  }
  return out;
}

std::vector<std::string_view> words(std::string_view s) {
  std::vector<std::string_view> out;
  for (std::size_t n = 0; n < s.size();) {
    std::size_t const from = s.find_first_not_of(" \t\r\n,", n);
    if (from == std::string_view::npos) break;
    n = std::min(s.find_first_of(" \t\r\n,", from), s.size());
    out.push_back(s.substr(from, n - from));
  }
  return out;
}

std::string without_comments(std::string_view ptx) {
  static constexpr std::string_view line_directives[] = {".loc", ".file", ".version", ".target", ".address_size"};
  std::string out;
  out.reserve(ptx.size() + ptx.size() / 16);
  while (!ptx.empty()) {
    std::size_t const end = std::min(ptx.find('\n'), ptx.size());
    std::string_view line = ptx.substr(0, end);
    ptx.remove_prefix(std::min(end + 1, ptx.size()));
    line = line.substr(0, line.find("//"));
    out += line;
    auto const start = trim(line);
    for (auto const directive : line_directives)
      if (start.starts_with(directive)) out += ';';
    out += '\n';
  }
  for (std::size_t open = out.find("/*"); open != std::string::npos; open = out.find("/*", open)) {
    std::size_t const close = std::min(out.find("*/", open), out.size() - 2) + 2;
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(open), out.begin() + static_cast<std::ptrdiff_t>(close), ' ');
  }
  return out;
}

std::vector<item> items(std::string_view s) {
  std::vector<item> out;
  std::size_t at = 0;
  while (at < s.size()) {
    std::size_t const semicolon = s.find(';', at), brace = s.find('{', at);
    std::size_t const end = std::min(semicolon, brace);
    if (end == std::string_view::npos) break;
    std::string_view const head = trim(s.substr(at, end - at));
    item it;
    it.head = head;
    if (head.starts_with(".section")) {  // of the debugger
      if (brace == std::string_view::npos) break;
      at = after_brace(s, brace);
      continue;
    }
    std::size_t const entry = head.find(".entry"), function = head.find(".func");
    if (entry == std::string_view::npos && function == std::string_view::npos) {
      if (brace < semicolon) {  // an initialised variable: .. = { .. };
        at = s.find(';', after_brace(s, brace));
        if (at == std::string_view::npos) break;
        it.head = trim(s.substr(static_cast<std::size_t>(head.data() - s.data()),
                                at - static_cast<std::size_t>(head.data() - s.data())));
        ++at;
      } else {
        at = semicolon + 1;
      }
      out.push_back(it);
      continue;
    }
    it.kind = entry != std::string_view::npos ? item_kind::entry : item_kind::function;
    std::string_view rest = trim(head.substr(entry != std::string_view::npos ? entry + 6 : function + 5));
    auto const parentheses = [&rest] {
      if (rest.empty() || rest.front() != '(') return std::string_view{};
      std::size_t const close = std::min(rest.find(')'), rest.size() - 1);
      auto const inside = rest.substr(1, close - 1);
      rest = trim(rest.substr(close + 1));
      return inside;
    };
    if (it.kind == item_kind::function) it.results = parentheses();
    it.name = rest.substr(0, rest.find_first_of("( \t\r\n"));
    rest = trim(rest.substr(it.name.size()));
    it.parameters = parentheses();
    it.directives = rest;
    it.has_body = brace < semicolon;
    if (it.has_body) {
      at = after_brace(s, brace);
      it.body = s.substr(brace + 1, at - brace - 2);
    } else {
      at = semicolon + 1;
    }
    out.push_back(it);
  }
  return out;
}

std::vector<std::string_view> statements(std::string_view body) {
  std::vector<std::string_view> out;
  std::size_t from = 0;
  int depth = 0;
  bool fresh = true, blank_seen = false, quoted = false;  // nothing but blanks so far; blanks after something
  auto const restart = [&](std::size_t next) {
    from = next;
    fresh = true;
    blank_seen = false;
  };
  for (std::size_t n = 0; n < body.size(); ++n) {
    char const c = body[n];
    if (c == '"') quoted = !quoted;
    if (quoted) {
      fresh = false;
      continue;
    }
    if (is_blank(c)) {
      blank_seen = blank_seen || !fresh;
    } else if ((c == '{' || c == '}') && fresh && depth == 0) {
      out.push_back(body.substr(n, 1));
      restart(n + 1);
    } else if (c == ';') {
      if (!fresh) out.push_back(trim(body.substr(from, n - from)));
      restart(n + 1);
    } else if (c == ':' && !fresh && !blank_seen && depth == 0 && n + 1 < body.size() && body[n + 1] != ':' &&
               body[n - 1] != ':') {
      out.push_back(trim(body.substr(from, n + 1 - from)));
      restart(n + 1);
    } else {
      fresh = false;
      depth += c == '{';
      depth -= c == '}';
    }
  }
  return out;
}

declaration parse_declaration(std::string_view text) {
  declaration d;
  if (auto const equals = text.find('='); equals != std::string_view::npos) {
    d.values = trim(text.substr(equals + 1));
    text = trim(text.substr(0, equals));
    if (!d.values.empty() && d.values.front() == '{') d.values = trim(d.values.substr(1, d.values.rfind('}') - 1));
  }
  auto const w = words(text);
  bool typed = false;
  for (std::size_t n = 0; n < w.size(); ++n) {
    if (w[n] == ".ptr") {  // what follows describes the pointee; the name comes last
      d.name = w.back();
      break;
    }
    if (w[n] == ".align" && n + 1 < w.size()) {
      d.align = std::max(d.align, static_cast<unsigned>(number(w[++n])));
    } else if (auto const t = w[n].front() == '.' ? type_of(w[n].substr(1)) : type::none; t != type::none && !typed) {
      typed = true;
      d.unit = static_cast<unsigned>(size_of(t));
      d.align = std::max(d.align, d.unit);
      d.holds_real = t == type::f32 || t == type::f64;
    } else if (w[n].front() != '.') {
      d.name = w[n];
    }
  }
  unsigned long long count = 1;
  if (auto const bracket = d.name.find('['); bracket != std::string_view::npos) {
    count = 1;
    for (auto b = bracket; b != std::string_view::npos; b = d.name.find('[', b + 1))
      count *= number(d.name.substr(b + 1));
    d.name = d.name.substr(0, bracket);
  }
  d.bytes = count * d.unit;
  return d;
}

}  // namespace softgpu
