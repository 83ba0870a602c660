// The matrices of a model's linear layers, as a GGUF file holds them.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/io/gguf.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/spectrum/model_spectra.hpp"

namespace lowrank::bench {

inline constexpr std::array<char const*, 7> linear_kinds{"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                         "ffn_gate", "ffn_up", "ffn_down"};

/// Block by block, seven kinds in each.
class linear_matrices {
 public:
  explicit linear_matrices(std::string const& path) : file_{path} {
    for (index_t block = 0;; ++block)
      for (auto const* kind : linear_kinds) {
        auto const name = "blk." + std::to_string(block) + "." + kind + ".weight";
        if (file_.find(name) == nullptr) return;
        names_.push_back(name);
      }
  }
  [[nodiscard]] std::vector<std::string> const& names() const noexcept { return names_; }

  /// All in memory, so that reading files is not timed.
  [[nodiscard]] std::vector<matrix_source> loaded() {
    for (auto const& name : names_) all_.push_back(file_.read_matrix(name));
    std::vector<matrix_source> out;
    for (std::size_t i = 0; i < names_.size(); ++i)
      out.push_back({names_[i], [this, i]() -> matrix_view<float const> { return std::as_const(all_[i]).view(); }});
    return out;
  }
  /// The loaded ones as fp32, under the same names, for programs that read no GGUF.
  void write(std::string const& path) const {
    std::vector<tensor_source> tensors;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      auto const shape = all_[i].shape();
      tensors.push_back({{names_[i], dtype::f32, {shape.rows, shape.cols}},
                         std::as_bytes(std::span{all_[i].data(), static_cast<std::size_t>(shape.size())})});
    }
    write_safetensors(path, tensors);
  }

 private:
  gguf_reader file_;
  std::vector<std::string> names_;
  std::vector<matrix<float>> all_;
};

}  // namespace lowrank::bench
