// A folder of its own for every test, gone afterwards; whole files as strings.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "support/messages.hpp"

class temporary_folder {
 public:
  temporary_folder() {
    static std::atomic<int> count{};
    path_ = std::filesystem::temp_directory_path() /
            ("lowrank-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directory(path_);
  }
  temporary_folder(temporary_folder const&) = delete;
  temporary_folder& operator=(temporary_folder const&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }
  [[nodiscard]] auto entries() const {
    return std::distance(std::filesystem::directory_iterator{path_}, std::filesystem::directory_iterator{});
  }

 private:
  std::filesystem::path path_;
};

inline std::string content_of(std::filesystem::path const& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}
inline void write_content(std::filesystem::path const& path, std::string_view content) {
  std::ofstream{path, std::ios::binary | std::ios::trunc} << content;
}

// A safetensors file of a header and data, whatever they are.
inline std::string file_of(std::string_view header, std::string_view data) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i) & 0xFFU);
  return file.append(header).append(data);
}
