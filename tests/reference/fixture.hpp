// A recorded file: safetensors whose metadata says what was run.
#pragma once

#include <string>

#include "lowrank/io/safetensors.hpp"

namespace lowrank_reference {

using fixture_error = lowrank::io_error;

struct fixture {
  explicit fixture(std::string const& path) : file{path} {}

  [[nodiscard]] std::string metadata(std::string const& key) const {
    auto const found = file.metadata().find(key);
    lowrank::require<fixture_error>(found != file.metadata().end(), "replay", "metadata has no \"", key, "\"");
    return found->second;
  }
  [[nodiscard]] lowrank::matrix<float> read(std::string const& name) const { return file.read_matrix(name); }

  lowrank::safetensors_reader file;
};

}  // namespace lowrank_reference
