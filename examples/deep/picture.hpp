/// @file
/// Grey pictures: read as PGM, written as PNG.
#pragma once

#include <array>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "lowrank/core/buffer.hpp"

namespace completion {

using lowrank::extents;
using lowrank::index_t;
using lowrank::matrix;

/// Values in [0, 1] of a binary PGM with 255 greys.
inline matrix<float> read_pgm(std::string const& path) {
  std::ifstream file{path, std::ios::binary};
  std::string kind;
  index_t width = 0, height = 0, most = 0;
  file >> kind >> width >> height >> most;
  file.get();
  lowrank::require<lowrank::io_error>(
      file.good() && kind == "P5" && most == 255 && width > 0 && height > 0 && width < 65536 && height < 65536,
      "read_pgm", "'", path, "' is no PGM of 255 greys");
  std::vector<char> bytes(static_cast<std::size_t>(width * height));
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  lowrank::require<lowrank::io_error>(file.good(), "read_pgm", "'", path, "' is truncated");
  matrix<float> out{height, width};
  for (std::size_t e = 0; e < bytes.size(); ++e)
    out.data()[e] = static_cast<float>(static_cast<unsigned char>(bytes[e])) / 255.0F;
  return out;
}

/// A grey canvas to paste pictures on, each pixel `zoom` pixels wide.
class canvas {
 public:
  canvas(index_t height, index_t width) : pixels_{height, width} {
    for (index_t e = 0; e < pixels_.shape().size(); ++e) pixels_.data()[e] = 255;
  }
  /// value(i, j) in [0, 1], clamped, with its upper left corner at (top, left).
  template <class Value>
  void paste(index_t top, index_t left, extents shape, index_t zoom, Value const& value) {
    for (index_t i = 0; i < shape.rows * zoom; ++i)
      for (index_t j = 0; j < shape.cols * zoom; ++j) {
        double const v = std::clamp(static_cast<double>(value(i / zoom, j / zoom)), 0.0, 1.0);
        pixels_(top + i, left + j) = static_cast<unsigned char>(std::lround(255 * v));
      }
  }
  /// PNG whose only compression is none: blocks are stored as they are.
  void write_png(std::string const& path) const {
    auto const [rows, cols] = pixels_.shape();
    std::string raw;
    for (index_t i = 0; i < rows; ++i) {
      raw += '\0';  // no filter
      raw.append(reinterpret_cast<char const*>(pixels_.data() + i * cols), static_cast<std::size_t>(cols));
    }
    std::string body = "\x78\x01";
    std::uint32_t a = 1, b = 0;
    for (char const c : raw) a = (a + static_cast<unsigned char>(c)) % 65521, b = (b + a) % 65521;
    for (std::size_t at = 0; at < raw.size(); at += 65535) {
      std::size_t const size = std::min<std::size_t>(65535, raw.size() - at);
      body += at + size == raw.size() ? '\1' : '\0';
      for (std::size_t const half : {size, ~size & 0xFFFFU})
        body += static_cast<char>(half & 255U), body += static_cast<char>(half >> 8);
      body.append(raw, at, size);
    }
    body += big_endian(b << 16 | a);
    std::ofstream file{path, std::ios::binary};
    file << "\x89PNG\r\n\x1a\n";
    write_chunk(file, "IHDR",
                big_endian(static_cast<std::uint32_t>(cols)) + big_endian(static_cast<std::uint32_t>(rows)) +
                    std::string{"\x08\0\0\0\0", 5});
    write_chunk(file, "IDAT", body);
    write_chunk(file, "IEND", "");
    lowrank::require<lowrank::io_error>(file.good(), "write_png", "cannot write '", path, "'");
  }

 private:
  static std::string big_endian(std::uint32_t x) {
    return {static_cast<char>(x >> 24), static_cast<char>(x >> 16 & 255U), static_cast<char>(x >> 8 & 255U),
            static_cast<char>(x & 255U)};
  }
  static void write_chunk(std::ofstream& file, std::string const& kind, std::string const& data) {
    std::string const whole = kind + data;
    std::uint32_t crc = ~0U;
    for (char const c : whole) {
      crc ^= static_cast<unsigned char>(c);
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1U) * 0xEDB88320U;
    }
    file << big_endian(static_cast<std::uint32_t>(data.size())) << whole << big_endian(~crc);
  }

  matrix<unsigned char> pixels_;
};

}  // namespace completion
