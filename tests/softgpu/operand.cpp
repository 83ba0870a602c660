#include "operand.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "memory.hpp"
#include "report.hpp"

namespace softgpu {
namespace {

std::uint64_t address(void const* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

}  // namespace

std::uint64_t operand::begin_of(std::int64_t column, triangle part) const {
  std::int64_t const first = part == triangle::lower ? std::min(column, rows) : 0;
  return address(pointer) + static_cast<std::uint64_t>(ld * column + first) * width;
}
std::size_t operand::bytes_of(std::int64_t column, triangle part) const {
  std::int64_t const first = part == triangle::lower ? column : 0;
  std::int64_t const last = part == triangle::upper ? std::min(column + 1, rows) : rows;
  return first < last ? static_cast<std::size_t>(last - first) * width : 0;
}

char* operand::reach(triangle part) const {
  allocation* home = nullptr;
  for (std::int64_t j = 0; j < cols; ++j) {
    std::size_t const bytes = bytes_of(j, part);
    if (bytes == 0) continue;
    allocation* found = nullptr;
    if (memory().check(begin_of(j, part), bytes, name, &found) == nullptr) return nullptr;
    if (home != nullptr && home != found) {
      report("out of bounds", std::string{name} + ": columns lie in different allocations");
      return nullptr;
    }
    home = found;
  }
  return memory().real(address(pointer));
}

char* operand::read(triangle part) const {
  char* const elements = reach(part);
  if (elements == nullptr) return nullptr;
  for (std::int64_t j = 0; j < cols; ++j)
    if (std::size_t const bytes = bytes_of(j, part); bytes != 0)
      if (!memory().require_written(begin_of(j, part), bytes, name)) return nullptr;
  return elements;
}

void operand::written(triangle part) const {
  for (std::int64_t j = 0; j < cols; ++j)
    if (std::size_t const bytes = bytes_of(j, part); bytes != 0) memory().mark(begin_of(j, part), bytes);
}

void operand::spoiled() const {
  for (std::int64_t j = 0; j < cols; ++j) {
    std::size_t const bytes = bytes_of(j, triangle::all);
    if (bytes == 0) continue;
    std::memset(memory().real(begin_of(j, triangle::all)), 0xFF, bytes);
    memory().mark(begin_of(j, triangle::all), bytes, byte_state::unwritten);
  }
}

operand operand::shifted(std::int64_t elements) const {
  operand moved = *this;
  moved.pointer = static_cast<char const*>(pointer) + elements * static_cast<std::int64_t>(width);
  return moved;
}

// Views into one buffer may interleave, so columns are compared, not ranges.
bool overlap(operand const& a, operand const& b) {
  auto const columns = [](operand const& m) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
    for (std::int64_t j = 0; j < m.cols && m.rows > 0; ++j) {
      std::uint64_t const begin = address(m.pointer) + static_cast<std::uint64_t>(m.ld * j) * m.width;
      spans.emplace_back(begin, begin + static_cast<std::uint64_t>(m.rows) * m.width);
    }
    return spans;
  };
  auto const of_a = columns(a), of_b = columns(b);
  if (of_a.empty() || of_b.empty() || of_a.back().second <= of_b.front().first ||
      of_b.back().second <= of_a.front().first)
    return false;
  auto other = of_b.begin();
  for (auto const& [begin, end] : of_a) {
    while (other != of_b.end() && other->second <= begin) ++other;
    if (other == of_b.end()) return false;
    if (other->first < end) return true;
  }
  return false;
}

bool use_up(void* pointer, std::size_t bytes, char const* name) {
  if (bytes == 0) return true;
  char* const found = memory().check(address(pointer), bytes, name);
  if (found == nullptr) return false;
  std::memset(found, 0xFF, bytes);
  memory().mark(address(pointer), bytes, byte_state::unwritten);
  return true;
}

void write_number(int* where, int value, char const* name) {
  char* const found = memory().check(address(where), sizeof value, name);
  if (found == nullptr) return;
  std::memcpy(found, &value, sizeof value);
  memory().mark(address(where), sizeof value);
}

}  // namespace softgpu
