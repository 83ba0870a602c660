/// @file
/// Checkpoints: the state of a training run in one safetensors file that any tool reads and that resumes bit for bit.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/executor.hpp"
#include "lowrank/core/visit.hpp"
#include "lowrank/io/detail/checkpoint_format.hpp"
#include "lowrank/io/detail/staged_bytes.hpp"
#include "lowrank/io/detail/strided_bytes.hpp"
#include "lowrank/io/safetensors.hpp"

namespace lowrank {

/// Collects what a checkpoint is to hold, then writes it. Tensors are referred to, not copied: they must not change
/// between `add` and `write`. Scalars are copied.
class checkpoint_writer {
 public:
  checkpoint_writer() = default;
  checkpoint_writer(checkpoint_writer&&) = default;
  checkpoint_writer& operator=(checkpoint_writer&&) = default;

  /// Everything a state names, as "prefix.name"; as "name" if the prefix is empty.
  template <visitable State>
  void add(std::string_view prefix, State const& state) {
    read_state(state, [&](std::string_view name, auto const& value) {
      using value_type = std::remove_cvref_t<decltype(value)>;
      auto full = detail::joined_name(prefix, name);
      if constexpr (state_scalar<value_type>) add_scalar(std::move(full), value);
      else if constexpr (requires { value.view(); }) add_tensor(std::move(full), value.view());
      else add_tensor(std::move(full), value.span());
    });
  }
  /// The same for a state in the memory of `exec`, which outlives `write`. A file says nothing of memory: what was saved on
  /// a device can be loaded on the host, and the other way round.
  /// Synchronises: `write`, on a device, for every 64 KiB.
  template <executor E, visitable State>
  void add(E& exec, std::string_view prefix, State const& state) {
    if constexpr (std::same_as<typename E::space, host_space>) add(prefix, state);
    else
      read_state(state, [&](std::string_view name, auto const& value) {
        using value_type = std::remove_cvref_t<decltype(value)>;
        auto full = detail::joined_name(prefix, name);
        if constexpr (state_scalar<value_type>) add_scalar(std::move(full), value);
        else
          add_source(std::move(full), dtype_of<typename value_type::value_type>, detail::shape_of_memory(value),
                     detail::staged_bytes<E>{exec, value.data(), value.bytes()});
      });
  }
  /// A vector.
  template <storable T, std::size_t Size>
  void add_tensor(std::string name, std::span<T, Size> values) {
    auto const size = static_cast<index_t>(values.size());
    add_source(std::move(name), dtype_of<T>, {size}, detail::strided_bytes::of(row_major(values.data(), {1, size})));
  }
  /// A matrix, with any strides.
  template <storable T>
  void add_tensor(std::string name, matrix_view<T, host_space> values) {
    add_source(std::move(name), dtype_of<T>, {values.rows, values.cols}, detail::strided_bytes::of(values));
  }
  /// A number, an enumeration or an array of them. Floats keep their bits.
  template <state_scalar T>
  void add_scalar(std::string name, T const& value) {
    auto const from = bytes_behind(value);
    auto& kept = scalars_.emplace_back(from.begin(), from.end());
    auto const count = static_cast<index_t>(kept.size());
    add_source(std::move(name), detail::scalar_dtype<T>, detail::scalar_shape<T>(),
               detail::strided_bytes{kept.data(), 1, 1, count, 0, 1});
  }
  /// Text that belongs to the run: the options it was started with, for example. The checksum covers it.
  void add_metadata(std::string key, std::string value) {
    bool const reserved = std::ranges::find(detail::reserved_metadata, key) != detail::reserved_metadata.end();
    require(!reserved, "checkpoint_writer", "metadata must not be called ", detail::quoted{key});
    require(!metadata_.contains(key), "checkpoint_writer", "there are two metadata ", detail::quoted{key});
    metadata_.emplace(std::move(key), std::move(value));
  }

  /// Writes the file. What was at `path` before stays, whole, until the new file is whole and on the disk.
  /// Throws: argument_error for names that occur twice or are not UTF-8; io_error when the disk refuses.
  void write(std::filesystem::path const& path) const {
    std::vector<tensor_spec> specs;
    std::map<std::string_view, source const*> source_of;
    for (auto const& one : sources_) {
      specs.push_back(one.spec);
      source_of[one.spec.name] = &one;
    }
    auto metadata = metadata_;
    metadata["format"] = detail::checkpoint_format;
    metadata["format_version"] = std::to_string(detail::newest_checkpoint);
    metadata["checksum"] = detail::checksum_text(0);
    safetensors_writer file{path, std::move(specs), metadata};
    auto sum = detail::checksum_of_header(metadata, file.tensors());
    for (auto const& tensor : file.tensors())
      source_of[tensor.name]->for_each_piece([&](std::span<std::byte const> piece) {
        sum.add(piece);
        file.append(tensor.name, piece);
      });
    metadata["checksum"] = detail::checksum_text(sum.value());
    file.replace_metadata(metadata);
    file.commit();
  }

 private:
  using piece_visitor = std::function<void(std::span<std::byte const>)>;
  struct source {
    tensor_spec spec;
    std::function<void(piece_visitor const&)> for_each_piece;
  };
  template <class Bytes>
  void add_source(std::string name, dtype type, std::vector<index_t> shape, Bytes const& bytes) {
    sources_.push_back(
        {{std::move(name), type, std::move(shape)}, [bytes](piece_visitor const& f) { bytes.for_each_piece(f); }});
  }

  std::deque<std::vector<std::byte>> scalars_;  // a deque: what is in it does not move
  std::vector<source> sources_;
  file_metadata metadata_;
};

/// An open checkpoint. Opening reads the whole file once and verifies its format, version and checksum.
/// Throws: io_error, naming what is wrong, for anything that is not a whole checkpoint of a version this library knows.
class checkpoint_reader {
 public:
  explicit checkpoint_reader(std::filesystem::path path)
      : file_{std::move(path)}, version_{detail::checkpoint_version_of(file_.metadata(), caller())} {
    auto sum = detail::checksum_of_header(file_.metadata(), file_.tensors());
    std::vector<std::byte> memory(piece_bytes);
    for (auto const& tensor : file_.tensors())
      for (index_t done = 0; done < tensor.bytes();) {
        auto const piece =
            std::span{memory}.first(static_cast<std::size_t>(std::min(piece_bytes, tensor.bytes() - done)));
        file_.read_part(tensor.name, done, piece);
        sum.add(piece);
        done += static_cast<index_t>(piece.size());
      }
    auto const found = file_.metadata().find("checksum");
    std::string_view const promised = found != file_.metadata().end() ? std::string_view{found->second} : "none";
    auto const actual = detail::checksum_text(sum.value());
    require<io_error>(promised == actual, caller(), "the checksum must be ", detail::quoted{promised},
                      ", the content has ", actual, ": the file is damaged");
  }

  [[nodiscard]] int format_version() const noexcept { return version_; }
  [[nodiscard]] file_metadata const& metadata() const noexcept { return file_.metadata(); }
  [[nodiscard]] std::span<tensor_info const> tensors() const noexcept { return file_.tensors(); }
  [[nodiscard]] bool contains(std::string_view name) const noexcept { return file_.find(name) != nullptr; }

  /// Throws unless `load(prefix, state)` would succeed: the file must have exactly the tensors the state names below
  /// `prefix`, each of the same type and shape, and every `identity` must be equal. Verify all states of a model before
  /// the first is loaded. No prefix may be the beginning of another, up to a dot.
  template <visitable State>
  void verify(std::string_view prefix, State const& state) const {
    std::set<std::string, std::less<>> named;
    std::vector<std::string> missing;
    read_state(state, [&](std::string_view name, auto const& value, auto is_identity) {
      auto const& full = *named.insert(detail::joined_name(prefix, name)).first;
      if (contains(full)) verify_value(full, value, is_identity);
      else missing.push_back(full);
    });
    require<io_error>(missing.empty(), caller(),
                      "the state needs tensors that the file does not have: ", detail::name_list{missing});
    auto const below = detail::joined_name(prefix, "");
    std::vector<std::string> extra;
    for (auto const& tensor : file_.tensors())
      if (tensor.name.starts_with(below) && !named.contains(tensor.name)) extra.push_back(tensor.name);
    require<io_error>(extra.empty(), caller(),
                      "the file has tensors that the state does not know: ", detail::name_list{extra});
  }
  /// Overwrites buffers and scalars of `state`, in place, with those saved under `prefix`; identities are compared
  /// only. Nothing is written unless everything fits. Only a disk that fails between opening and now can leave it half
  /// done.
  template <visitable State>
  void load(std::string_view prefix, State& state) {
    verify(prefix, state);
    visit_state(state, [&]<class V>(std::string_view name, V&& value) {
      auto const full = detail::joined_name(prefix, name);
      if constexpr (!detail::is_identity<std::remove_cvref_t<V>>) file_.read_into(full, bytes_behind(value));
      read_.insert(full);
    });
  }
  /// The same for a state in the memory of `exec`. A device that fails can leave it half done, as a disk can.
  /// Synchronises: on a device, for every 64 KiB.
  template <executor E, visitable State>
  void load(E& exec, std::string_view prefix, State& state) {
    if constexpr (std::same_as<typename E::space, host_space>) return load(prefix, state);
    else {
      verify(prefix, state);
      visit_state(state, [&]<class V>(std::string_view name, V&& value) {
        using value_type = std::remove_cvref_t<V>;
        auto const full = detail::joined_name(prefix, name);
        if constexpr (state_memory<value_type>)
          detail::staged_bytes<E>{exec, value.data(), value.bytes()}.fill_pieces(
              [&](index_t begin, std::span<std::byte> piece) { file_.read_part(full, begin, piece); });
        else if constexpr (!detail::is_identity<value_type>) file_.read_into(full, bytes_behind(value));
        read_.insert(full);
      });
    }
  }
  /// A vector that was added as one. Requires: the same type and size.
  template <storable T, std::size_t Size>
  void read(std::string_view name, std::span<T, Size> out) {
    read(name, {static_cast<index_t>(out.size())}, row_major(out.data(), {1, static_cast<index_t>(out.size())}));
  }
  /// A matrix that was added as one, into a matrix with any strides. Requires: the same type and shape.
  template <storable T>
  void read(std::string_view name, matrix_view<T, host_space> out) {
    read(name, {out.rows, out.cols}, out);
  }
  template <state_scalar T>
  [[nodiscard]] T read_scalar(std::string_view name) {
    require_tensor(name, detail::scalar_dtype<T>, detail::scalar_shape<T>());
    verify_booleans<T>(name);
    T value{};
    file_.read_into(name, bytes_behind(value));
    read_.insert(std::string{name});
    return value;
  }
  /// Throws, naming them, if the file has tensors that nobody has read.
  void require_all_read() const {
    std::vector<std::string> left;
    for (auto const& tensor : file_.tensors())
      if (!read_.contains(tensor.name)) left.push_back(tensor.name);
    require<io_error>(left.empty(), caller(),
                      "the file has tensors that nothing here knows: ", detail::name_list{left});
  }

 private:
  static constexpr index_t piece_bytes = index_t{1} << 18;

  [[nodiscard]] std::string caller() const { return "checkpoint_reader: " + file_.path().string(); }

  void require_tensor(std::string_view name, dtype type, std::vector<index_t> const& shape) const {
    auto const* const info = file_.find(name);
    require<io_error>(info != nullptr, caller(), "there is no tensor ", detail::quoted{name});
    require<io_error>(info->type == type && info->shape == shape, caller(), "tensor ", detail::quoted{name},
                      " must be ", type, " ", detail::shape_text{shape}, ", the file has ", info->type, " ",
                      detail::shape_text{info->shape});
  }
  template <class V, class IsIdentity>
  void verify_value(std::string const& name, V const& value, IsIdentity) const {
    if constexpr (state_scalar<V>) {
      require_tensor(name, detail::scalar_dtype<V>, detail::scalar_shape<V>());
      verify_booleans<V>(name);
      if constexpr (IsIdentity::value) {
        V saved{};
        file_.read_into(name, bytes_behind(saved));
        require<io_error>(std::ranges::equal(bytes_behind(saved), bytes_behind(value)), caller(),
                          "the saved state is of another kind: ", detail::quoted{name}, " is ",
                          detail::scalar_text<V>{saved}, " in the file and ", detail::scalar_text<V>{value}, " here");
      }
    } else {
      static_assert(!std::is_same_v<typename V::value_type, bool>, "lowrank: save flags as std::uint8_t");
      require_tensor(name, dtype_of<typename V::value_type>, detail::shape_of_memory(value));
    }
  }
  /// A bool of any other byte than 0 and 1 would be undefined to look at.
  template <class V>
  void verify_booleans(std::string_view name) const {
    if constexpr (detail::scalar_dtype<V> == dtype::boolean) {
      std::array<std::uint8_t, sizeof(V)> saved{};
      file_.read_into(name, std::as_writable_bytes(std::span{saved}));
      for (int const x : saved)
        require<io_error>(x <= 1, caller(), "tensor ", detail::quoted{name}, " must hold 0 or 1, got ", x);
    }
  }
  template <class T>
  void read(std::string_view name, std::vector<index_t> const& shape, matrix_view<T, host_space> out) {
    require_tensor(name, dtype_of<T>, shape);
    index_t done = 0;
    detail::strided_bytes::of(out).fill_pieces([&](std::span<std::byte> piece) {
      file_.read_part(name, done, piece);
      done += static_cast<index_t>(piece.size());
    });
    read_.insert(std::string{name});
  }

  safetensors_reader file_;
  int version_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace lowrank
