#include "runtime/failures.hpp"

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace softgpu {
namespace {

struct wish {
  std::string call;
  int left, status;
};

bool matches(std::string_view pattern, std::string_view call) {
  return pattern.ends_with('*') ? call.starts_with(pattern.substr(0, pattern.size() - 1)) : call == pattern;
}

struct call_ledger {
  std::vector<wish> wishes;
  std::map<std::string, long, std::less<>> made;

  call_ledger() {
    char const* const text = std::getenv("SOFTGPU_FAIL");
    std::string_view rest = text != nullptr ? text : "";
    while (!rest.empty()) {
      std::string const item{rest.substr(0, rest.find(','))};
      rest.remove_prefix(std::min(rest.size(), item.size() + 1));
      std::size_t const first = item.find(':'), second = item.find(':', first + 1);
      if (second == std::string::npos) continue;
      wishes.push_back({item.substr(0, first), std::atoi(&item[first + 1]), std::atoi(&item[second + 1])});
    }
  }
};
call_ledger& ledger() {
  static auto* const instance = new call_ledger;
  return *instance;
}

}  // namespace

void fail_call(std::string_view call, int nth, int status) {
  ledger().wishes.push_back({std::string{call}, nth, status});
}

int drop_failures() {
  int const left = static_cast<int>(ledger().wishes.size());
  ledger().wishes.clear();
  return left;
}

std::optional<int> injected_failure(std::string_view call) {
  auto& [wishes, made] = ledger();
  if (auto const found = made.find(call); found != made.end()) ++found->second;
  else made.emplace(call, 1);
  std::optional<int> status;
  for (auto& item : wishes)
    if (matches(item.call, call) && --item.left == 0) status = item.status;
  std::erase_if(wishes, [](wish const& item) { return item.left <= 0; });
  return status;
}

long calls_of(std::string_view call) {
  long count = 0;
  for (auto const& [name, made] : ledger().made) count += matches(call, name) ? made : 0;
  return count;
}

}  // namespace softgpu
