// list_opcodes [--refused] FILE...: the opcodes, with modifiers and types, of all PTX in object files and programs, one
// a line, sorted. A list in the repository is compared with it, so that a new one is seen before it runs. --refused:
// only those that the software GPU does not execute, with the reason; the status is 1 if there are any.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/module.hpp"

namespace {

/// Texts that begin with a version and a target, and end where text ends.
std::vector<std::string_view> ptx_in(std::string_view file) {
  std::vector<std::string_view> texts;
  for (std::size_t at = file.find(".version "); at != std::string_view::npos;) {
    std::size_t const end = std::min(file.find('\0', at), file.size());
    auto const text = file.substr(at, end - at);
    if (text.find(".target sm_") < 100) texts.push_back(text);
    at = file.find(".version ", end);
  }
  return texts;
}

int list(std::vector<std::string> const& names, bool only_refused) {
  std::map<std::string, std::string> lines;
  bool any_text = false;
  for (auto const& name : names) {
    std::ifstream in(name, std::ios::binary);
    std::string const file{std::istreambuf_iterator<char>(in), {}};
    if (!in) throw std::runtime_error("cannot read " + name);
    for (auto const text : ptx_in(file)) {
      any_text = true;
      if (only_refused) lines.merge(softgpu::refused_opcodes(text));
      else
        for (auto const& [opcode, count] : softgpu::opcodes(text)) lines.try_emplace(opcode);
    }
  }
  if (!any_text) throw std::runtime_error("no PTX in these files; are they compiled with --no-compress?");
  for (auto const& [opcode, reason] : lines)
    std::printf(only_refused ? "%s: %s\n" : "%s\n", opcode.c_str(), reason.c_str());
  return only_refused && !lines.empty() ? 1 : 0;
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> names(arguments + 1, arguments + count);
  bool const only_refused = !names.empty() && names[0] == "--refused";
  if (only_refused) names.erase(names.begin());
  if (names.empty()) {
    std::fputs("usage: list_opcodes [--refused] FILE...\n", stderr);
    return 2;
  }
  try {
    return list(names, only_refused);
  } catch (std::exception const& problem) {
    std::fprintf(stderr, "list_opcodes: %s\n", problem.what());
    return 2;
  }
}
