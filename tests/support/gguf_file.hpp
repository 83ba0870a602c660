// GGUF files as a test wants them, lies included.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace lowrank_test {

/// The bytes of a number, as files hold it.
template <class T>
std::string raw(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}
template <class T>
std::string raw(std::vector<T> const& values) {
  std::string out;
  for (T const value : values) out += raw<T>(value);
  return out;
}
inline std::string gguf_text(std::string_view text) { return raw(std::uint64_t{text.size()}) + std::string{text}; }

/// The numbers of the types of values.
enum class gguf_kind : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// The parts of a GGUF file, put together by `bytes`. Whatever can be wrong about one of them can be written.
class gguf_file {
 public:
  std::string magic{"GGUF"};
  std::uint32_t version{3};
  std::uint64_t alignment{32};
  std::uint64_t more_keys{0}, more_tensors{0};  ///< that the counts promise and the file does not hold

  gguf_file& key(std::string_view name, gguf_kind kind, std::string_view value) {
    keys_ += gguf_text(name) + raw(kind) + std::string{value};
    ++key_count_;
    return *this;
  }
  gguf_file& text(std::string_view name, std::string_view value) {
    return key(name, gguf_kind::text, gguf_text(value));
  }
  gguf_file& u32(std::string_view name, std::uint32_t value) { return key(name, gguf_kind::u32, raw(value)); }
  gguf_file& f32(std::string_view name, float value) { return key(name, gguf_kind::f32, raw(value)); }
  gguf_file& array(std::string_view name, gguf_kind kind, std::uint64_t count, std::string_view values) {
    return key(name, gguf_kind::array, raw(kind) + raw(count) + std::string{values});
  }
  gguf_file& texts(std::string_view name, std::vector<std::string> const& values) {
    std::string all;
    for (auto const& value : values) all += gguf_text(value);
    return array(name, gguf_kind::text, values.size(), all);
  }
  gguf_file& numbers(std::string_view name, std::vector<std::int32_t> const& values) {
    return array(name, gguf_kind::i32, values.size(), raw(values));
  }
  /// Dimensions as the file has them, the fastest first.
  gguf_file& tensor(std::string_view name, std::uint32_t type, std::vector<std::uint64_t> const& dimensions,
                    std::string_view content) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    placed(name, type, dimensions, data_.size());
    data_ += content;
    return *this;
  }
  /// An entry whose bytes are said to be at `offset`.
  gguf_file& placed(std::string_view name, std::uint32_t type, std::vector<std::uint64_t> const& dimensions,
                    std::uint64_t offset) {
    entries_ += gguf_text(name) + raw(static_cast<std::uint32_t>(dimensions.size())) + raw(dimensions) + raw(type) +
                raw(offset);
    ++tensor_count_;
    return *this;
  }
  [[nodiscard]] std::string header() const {
    std::string out =
        magic + raw(version) + raw(tensor_count_ + more_tensors) + raw(key_count_ + more_keys) + keys_ + entries_;
    return out;
  }
  [[nodiscard]] std::string bytes() const {
    auto out = header();
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data_;
  }

 private:
  std::string keys_, entries_, data_;
  std::uint64_t key_count_{}, tensor_count_{};
};

}  // namespace lowrank_test
