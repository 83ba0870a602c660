#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "lowrank/io/detail/checksum.hpp"

namespace checksum_test {

namespace {

std::uint64_t sum_of(std::span<std::byte const> bytes, std::uint64_t seed = 0) {
  lowrank::detail::xxh64 sum{seed};
  sum.add(bytes);
  return sum.value();
}
std::uint64_t sum_of(std::string_view text) { return sum_of(std::as_bytes(std::span{text})); }

std::vector<std::byte> pattern(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 131 + i / 7) % 256);
  return bytes;
}

TEST_SUITE_BEGIN("checksum");

TEST_CASE("XXH64 of short texts is what the reference says") {
  CHECK(sum_of("") == 0xEF46DB3751D8E999U);
  CHECK(sum_of("a") == 0xD24EC4F1A98C6E5BU);
  CHECK(sum_of("abc") == 0x44BC2CF5AD770999U);
  CHECK(sum_of("Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1U);
}

// Recorded from the Python package xxhash.
TEST_CASE("XXH64 of every kind of tail, with and without a seed") {
  struct row {
    std::size_t size;
    std::uint64_t plain, seeded;
  };
  row const rows[] = {{0, 0xEF46DB3751D8E999U, 0xAC75FDA2929B17EFU},   {1, 0xE934A84ADB052768U, 0x5014607643A9B4C3U},
                      {3, 0xA83378D1EB86EC62U, 0x7141AE1BE6589E18U},   {4, 0x9882E57ED36C4CFCU, 0x8B66158328821F76U},
                      {7, 0xF0AEF407B44730F8U, 0x100F13FD67648205U},   {8, 0x6F799D7284A5CBE6U, 0x0E5F05F084E3BF80U},
                      {15, 0x0CED8AF8163558F3U, 0x2C85EDA4EA36B900U},  {16, 0xCFE63FD26AFDF7E5U, 0x677381AE755BF2CAU},
                      {31, 0x3A4BDDF524C48530U, 0x758F18D467D62512U},  {32, 0xA4D75AB355F13155U, 0x686AD5A7A64CC70BU},
                      {33, 0x445A4AAAFFE45526U, 0x40C4BDDC51789A1DU},  {63, 0x3928161314DE657AU, 0x08C57F640A0C2881U},
                      {64, 0x26C01CF9FB1C3888U, 0xFCBEE2C8AF2D6642U},  {65, 0xA8F446CBE17FD94FU, 0xDA5F513786721769U},
                      {100, 0xCC9A8FC04F06D4A5U, 0x340935C536185DE8U}, {255, 0x9248F6668B507A0DU, 0x7092AC1B7ED54605U},
                      {300, 0xD59D074EA765CDBEU, 0xD568161BC1E70D3BU}};
  for (auto const& [size, plain, seeded] : rows) {
    CAPTURE(size);
    CHECK(sum_of(pattern(size)) == plain);
    CHECK(sum_of(pattern(size), 2654435761U) == seeded);
  }
}

TEST_CASE("XXH64 does not depend on how the bytes are cut") {
  auto const bytes = pattern(300);
  for (std::size_t first = 0; first <= bytes.size(); first += 5)
    for (std::size_t second = first; second <= bytes.size(); second += 7) {
      lowrank::detail::xxh64 sum;
      sum.add(std::span{bytes}.first(first));
      sum.add(std::span{bytes}.subspan(first, second - first));
      sum.add(std::span{bytes}.subspan(second));
      REQUIRE(sum.value() == 0xD59D074EA765CDBEU);
    }
}

TEST_SUITE_END();

}  // namespace

}  // namespace checksum_test
