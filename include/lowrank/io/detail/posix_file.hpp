/// @file
/// Files as this library uses them: read at an offset; written all or not at all.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "lowrank/core/config.hpp"
#include "lowrank/core/error.hpp"

namespace lowrank::detail {

/// Throws io_error with what the system says about the last call that failed.
[[noreturn]] inline void refuse_system(std::string_view caller, std::string_view verb,
                                       std::filesystem::path const& path) {
  auto const reason = std::error_code{errno, std::generic_category()}.message();
  throw io_error{join("lowrank::", caller, ": cannot ", verb, " ", path.string(), ": ", reason)};
}

class descriptor {
 public:
  explicit descriptor(int number = -1) noexcept : number_{number} {}
  descriptor(descriptor&& other) noexcept : number_{std::exchange(other.number_, -1)} {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  descriptor(descriptor const&) = delete;
  descriptor& operator=(descriptor const&) = delete;
  ~descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int number() const noexcept { return number_; }

 private:
  int number_;
};

/// A regular file open for reading at any offset. Reading, not mapping: a file that shrinks is an error, not a signal.
class input_file {
 public:
  input_file(std::filesystem::path path, std::string_view caller) : path_{std::move(path)}, caller_{caller} {
    // Without O_NONBLOCK opening a pipe would wait for a writer.
    file_ = descriptor{::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file_.number() < 0) refuse_system(caller_, "open", path_);
    struct stat status {};
    if (::fstat(file_.number(), &status) != 0) refuse_system(caller_, "examine", path_);
    require<io_error>(S_ISREG(status.st_mode), caller_, path_.string(), " must be a regular file");
    size_ = status.st_size;
  }
  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }
  [[nodiscard]] index_t size() const noexcept { return size_; }

  void read(index_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      auto const got = ::pread(file_.number(), out.data(), std::min(out.size(), most_at_once), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) refuse_system(caller_, "read", path_);
      require<io_error>(got != 0, caller_, path_.string(), " ends at byte ", offset, ", although it had ", size_,
                        " bytes when it was opened");
      offset += got;
      out = out.subspan(static_cast<std::size_t>(got));
    }
  }

 private:
  static constexpr std::size_t most_at_once = std::size_t{1} << 30;

  std::filesystem::path path_;
  std::string caller_;
  descriptor file_;
  index_t size_{};
};

/// A file that appears, complete and on the disk, at `commit`. Until then, and if anything fails, what was at `path`
/// before stays there, and the temporary file beside it is removed.
class atomic_file {
 public:
  atomic_file(std::filesystem::path path, std::string_view caller) : path_{std::move(path)}, caller_{caller} {
    require<io_error>(path_.has_filename(), caller_, "needs the name of a file, got \"", path_.string(), "\"");
    pending_.reserve(capacity);
    struct stat old {};
    bool const exists = ::stat(path_.c_str(), &old) == 0;
    require<io_error>(!exists || S_ISREG(old.st_mode), caller_, path_.string(),
                      " exists and is not a regular file; it will not be replaced");
    open_temporary();
    if (exists) static_cast<void>(::fchmod(file_.number(), old.st_mode & 07777U));  // a wish, not a promise
  }
  atomic_file(atomic_file const&) = delete;
  atomic_file& operator=(atomic_file const&) = delete;
  ~atomic_file() {
    if (!committed_) ::unlink(temporary_.c_str());
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }

  void append(std::span<std::byte const> bytes) {
    if (pending_.size() + bytes.size() > capacity) flush();
    if (bytes.size() >= capacity) write(bytes);
    else pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  }
  /// Replaces bytes that were appended earlier.
  void patch(index_t offset, std::span<std::byte const> bytes) {
    flush();
    while (!bytes.empty()) {
      auto const done = ::pwrite(file_.number(), bytes.data(), bytes.size(), offset);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) refuse_system(caller_, "write", temporary_);
      offset += done;
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }
  void commit() {
    flush();
    if (::fsync(file_.number()) != 0) refuse_system(caller_, "flush", temporary_);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) refuse_system(caller_, "replace", path_);
    committed_ = true;
    // The name is on the disk only once its directory is. Some file systems cannot do that and say EINVAL.
    auto const folder = descriptor{::open(directory().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (folder.number() < 0 || (::fsync(folder.number()) != 0 && errno != EINVAL))
      refuse_system(caller_, "flush the directory of", path_);
  }

 private:
  static constexpr std::size_t capacity = std::size_t{1} << 18;

  [[nodiscard]] std::filesystem::path directory() const {
    return path_.has_parent_path() ? path_.parent_path() : std::filesystem::path{"."};
  }
  void open_temporary() {
    static std::atomic<unsigned> count{};
    // A killed process leaves its temporary file behind, and process numbers come back.
    for (int attempt = 0; attempt < 1000; ++attempt) {
      temporary_ = directory() / join(".lowrank-", ::getpid(), "-", count.fetch_add(1), ".partial");
      file_ = descriptor{::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
      if (file_.number() >= 0) return;
      if (errno != EEXIST) break;
    }
    refuse_system(caller_, "create a temporary file beside", path_);
  }
  void flush() {
    write(pending_);
    pending_.clear();
  }
  void write(std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      auto const done = ::write(file_.number(), bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) refuse_system(caller_, "write", temporary_);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }

  std::filesystem::path path_, temporary_;
  std::string caller_;
  descriptor file_;
  std::vector<std::byte> pending_;
  bool committed_{};
};

}  // namespace lowrank::detail
