/// @file
/// Text as bytes: the last part for validation, random windows of the rest for training.
#pragma once

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "model.hpp"

namespace llama {

/// A batch that owns its tokens; filled again without allocating.
struct windows {
  index_t sequences{}, length{};
  std::vector<std::int32_t> inputs, targets;

  windows(index_t sequence_count, index_t window_length)
      : sequences{sequence_count},
        length{window_length},
        inputs(static_cast<std::size_t>(sequence_count * window_length)),
        targets(inputs.size()) {}

  [[nodiscard]] batch_view view() const noexcept { return {{inputs, sequences, length}, targets}; }
};

class corpus {
 public:
  /// Throws: argument_error unless `training_share` is inside (0, 1).
  explicit corpus(std::string bytes, double training_share = 0.9) : bytes_{std::move(bytes)} {
    lowrank::require(training_share > 0 && training_share < 1, "llama::corpus",
                     "training_share must be in (0, 1), got ", training_share);
    boundary_ = static_cast<index_t>(static_cast<double>(size()) * training_share);
  }

  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(bytes_.size()); }
  [[nodiscard]] std::string_view training() const noexcept {
    return std::string_view{bytes_}.substr(0, static_cast<std::size_t>(boundary_));
  }
  [[nodiscard]] std::string_view validation() const noexcept {
    return std::string_view{bytes_}.substr(static_cast<std::size_t>(boundary_));
  }

  /// Windows at random places of the training part, the same for the same seed and step.
  /// `micro_batch` tells apart the batches of one step.
  void training_windows(std::uint64_t seed, std::uint32_t step, windows& out, std::uint32_t micro_batch = 0) const {
    auto const part = training();
    index_t const places = checked_places(part, out.length);
    lowrank::rng_key const key{
        .seed = seed, .step = step, .tensor = micro_batch, .purpose = lowrank::rng_purpose::data};
    for (index_t s = 0; s < out.sequences; ++s) {
      auto const word = std::uint64_t{lowrank::random_word(key, static_cast<std::uint64_t>(2 * s))} << 32 |
                        lowrank::random_word(key, static_cast<std::uint64_t>(2 * s + 1));
      copy_window(part, static_cast<index_t>(word % static_cast<std::uint64_t>(places)), s, out);
    }
  }
  /// Batch `number` of `count`, whose windows lie evenly over the validation part.
  void validation_windows(index_t number, index_t count, windows& out) const {
    lowrank::require(count > 0 && number >= 0 && number < count, "llama::corpus", "needs number in [0, count), got ",
                     number, " of ", count);
    auto const part = validation();
    index_t const places = checked_places(part, out.length), all = count * out.sequences;
    for (index_t s = 0; s < out.sequences; ++s)
      copy_window(part, all == 1 ? 0 : (number * out.sequences + s) * (places - 1) / (all - 1), s, out);
  }

 private:
  static index_t checked_places(std::string_view part, index_t length) {
    index_t const places = static_cast<index_t>(part.size()) - length;
    lowrank::require(places > 0, "llama::corpus", "needs more than ", length, " bytes in each part, got ", part.size());
    return places;
  }
  static void copy_window(std::string_view part, index_t place, index_t sequence, windows& out) {
    for (index_t t = 0; t < out.length; ++t) {
      auto const at = static_cast<std::size_t>(sequence * out.length + t), from = static_cast<std::size_t>(place + t);
      out.inputs[at] = static_cast<unsigned char>(part[from]);
      out.targets[at] = static_cast<unsigned char>(part[from + 1]);
    }
  }

  std::string bytes_;
  index_t boundary_{};
};

/// All bytes of a file.  Throws: io_error.
[[nodiscard]] inline std::string read_bytes(std::string const& path) {
  std::ifstream in{path, std::ios::binary};
  lowrank::require<lowrank::io_error>(in.good(), "llama::read_bytes", "cannot open ", path);
  std::string bytes{std::istreambuf_iterator<char>{in}, std::istreambuf_iterator<char>{}};
  lowrank::require<lowrank::io_error>(!in.bad(), "llama::read_bytes", "cannot read ", path);
  return bytes;
}

}  // namespace llama
