#include "fatbin.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace softgpu {
namespace {

struct fat_wrapper {
  std::uint32_t magic, version;
  unsigned char const* data;
  void* more;
};
constexpr std::uint32_t wrapper_magic = 0x466243B1, container_magic = 0xBA55ED50;
constexpr std::uint16_t ptx_kind = 1;
constexpr std::uint64_t compressed_flags = 0xA000;

template <class T>
T read(unsigned char const* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

[[noreturn]] void refuse(char const* why) {
  std::fprintf(stderr, "softgpu: %s\n", why);
  std::abort();
}

}  // namespace

std::string_view ptx_of(void const* wrapper) {
  auto const& outer = *static_cast<fat_wrapper const*>(wrapper);
  unsigned char const* const container = outer.data;
  if (outer.magic != wrapper_magic || read<std::uint32_t>(container) != container_magic) refuse("not a fat binary");

  // Container: magic, u16 version, u16 header bytes, u64 payload bytes. Entry: u16 kind, u16, u32 header bytes,
  // u64 payload bytes, u32 compressed bytes at 16, u64 flags at 40.
  unsigned char const* at = container + read<std::uint16_t>(container + 6);
  unsigned char const* const end = at + read<std::uint64_t>(container + 8);
  std::string_view text;
  while (at < end) {
    auto const header = read<std::uint32_t>(at + 4);
    auto const payload = read<std::uint64_t>(at + 8);
    if (read<std::uint16_t>(at) == ptx_kind) {
      if (read<std::uint32_t>(at + 16) != 0 || (read<std::uint64_t>(at + 40) & compressed_flags) != 0)
        refuse("the PTX is compressed: compile device tests with nvcc --no-compress");
      text = {reinterpret_cast<char const*>(at) + header, payload};
      text = text.substr(0, text.find_last_not_of('\0') + 1);  // padded with zeros
    }
    at += header + payload;
  }
  if (text.empty()) refuse("no PTX in the fat binary: compile with -gencode arch=compute_90,code=compute_90");
  return text;
}

}  // namespace softgpu
