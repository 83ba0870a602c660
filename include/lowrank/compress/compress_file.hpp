/// @file
/// From a safetensors model to a compressed one, a matrix at a time, to be taken up again where it was cut off.
#pragma once

#include <filesystem>
#include <optional>
#include <typeinfo>

#include "lowrank/compress/compressed_file.hpp"
#include "lowrank/compress/compressor.hpp"

namespace lowrank {

namespace detail {

/// Finished pieces of a pass, one file each, in a folder beside the output. Pieces of another pass are not taken.
class compression_pieces {
 public:
  /// `identity`: everything the pieces depend on.
  compression_pieces(std::filesystem::path folder, std::string identity)
      : folder_{std::move(folder)}, identity_{std::move(identity)} {
    std::filesystem::create_directories(folder_);
  }
  [[nodiscard]] std::filesystem::path path(std::string_view kind, index_t i) const {
    return folder_ / (std::string{kind} + "-" + std::to_string(i) + ".safetensors");
  }
  /// An existing piece of this pass.
  [[nodiscard]] std::optional<safetensors_reader> find(std::string_view kind, index_t i) const {
    auto const file = path(kind, i);
    if (!std::filesystem::exists(file)) return std::nullopt;
    try {
      safetensors_reader reader{file};
      auto const known = reader.metadata().find(identity_key);
      if (known != reader.metadata().end() && known->second == identity_) return reader;
    } catch (io_error const&) {  // cut off while it was written: made again
    }
    return std::nullopt;
  }
  void write(std::string_view kind, index_t i, std::span<tensor_source const> tensors,
             file_metadata metadata = {}) const {
    metadata.emplace(identity_key, identity_);
    write_safetensors(path(kind, i), tensors, metadata);
  }
  void remove() const { std::filesystem::remove_all(folder_); }

 private:
  static constexpr char const* identity_key = "lowrank.pass";
  std::filesystem::path folder_;
  std::string identity_;
};

/// Whether `tensor` is replaced by what becomes of one of the matrices.
[[nodiscard]] inline bool is_replaced(std::string_view tensor, std::span<matrix_plan const> plans) {
  return std::any_of(plans.begin(), plans.end(), [&](matrix_plan const& plan) {
    return tensor == plan.name || (plan.name.ends_with(".weight") && tensor == module_name(plan.name) + ".bias");
  });
}

/// All bytes of a tensor from one file to another, a chunk at a time.
inline void copy_tensor(safetensors_reader const& from, std::string const& name, safetensors_writer& to) {
  constexpr index_t chunk = index_t{1} << 20;
  index_t const size = from.at(name).bytes();
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::min(chunk, size)));
  for (index_t done = 0; done < size;) {
    auto const part = std::span{bytes}.first(static_cast<std::size_t>(std::min(chunk, size - done)));
    from.read_part(name, done, part);
    to.append(name, part);
    done += static_cast<index_t>(part.size());
  }
}

}  // namespace detail

struct file_compression {
  std::filesystem::path input, output;
  std::function<bool(std::string_view)> wanted;  ///< names of the matrices to compress
  std::string identity;  ///< what else a half-done pass depends on: calibration text, settings of the factorizer
};

/// Compresses the matrices of a file that `wanted` names; all other tensors pass through as they are. The output appears
/// when it is complete; what is finished before lies in `output` + ".parts" and is not done again.
/// Memory: one matrix and the scratch of its decomposition, beside statistics of the caller.
/// Ensures: `input` is only read.  Throws: io_error, argument_error, shape_error.
template <class E, rank_allocator A, class F>
compression_plan compress_file(E& exec, compressor<A, F> const& how, file_compression const& job,
                               calibration const& seen = {}, on_compression_progress const& progress = {}) {
  how.check();
  require(job.wanted != nullptr, "compress_file", "needs to be told which matrices to compress");
  require<io_error>(!std::filesystem::exists(job.output) || !std::filesystem::equivalent(job.input, job.output),
                    "compress_file", "must not write over its input ", job.input.string());
  safetensors_reader const model{job.input};
  matrices_in_file const source{model, job.wanted};
  require(source.size() > 0, "compress_file", "no matrix of ", job.input.string(), " is wanted");
  auto const budget = how.options.budget;
  std::ostringstream identity;
  identity << job.identity << "; " << typeid(how).name() << "; " << job.input.string() << " of "
           << std::filesystem::file_size(job.input) << " bytes, changed "
           << std::filesystem::last_write_time(job.input).time_since_epoch().count() << "; " << std::hexfloat
           << budget.removal << " " << budget.unit << " " << how.options.gate << " "
           << static_cast<int>(how.options.larger) << static_cast<int>(how.options.sees)
           << static_cast<int>(how.options.ranks.storage) << " " << how.options.ranks.multiple << " "
           << how.options.ranks.least;
  detail::compression_pieces const pieces{job.output.string() + ".parts", identity.str()};

  std::vector<spectrum> spectra;
  for (index_t i = 0; i < source.size(); ++i) {
    if (progress) progress({compression_progress::stage::spectrum, i, source.size(), source.name(i)});
    extents const shape = source.shape(i);
    if (auto const piece = pieces.find("spectrum", i); piece && piece->at("values").shape.size() == 1) {
      spectrum known{.shape = shape, .values = {}, .whole = 0};
      known.values.resize(static_cast<std::size_t>(piece->at("values").shape[0]));
      piece->read("values", std::span{known.values});
      spectra.push_back(std::move(known));
      continue;
    }
    spectra.push_back(how.spectrum_of(exec, source, i, seen));
    auto const& values = spectra.back().values;
    tensor_source const tensor{{"values", dtype::f64, {static_cast<index_t>(values.size())}},
                               std::as_bytes(std::span{values})};
    pieces.write("spectrum", i, std::span{&tensor, 1});
  }
  auto plan = how.plan_of(source, std::move(spectra));

  std::vector<tensor_spec> specs;
  std::map<std::string, index_t, std::less<>> piece_of;
  file_metadata metadata = model.metadata();
  metadata[std::string{compressed_key}] = "1";
  for (index_t i = 0; i < source.size(); ++i) {
    auto const& what = plan.matrices[static_cast<std::size_t>(i)];
    if (progress) progress({compression_progress::stage::factors, i, source.size(), what.name});
    auto piece = pieces.find("matrix", i);
    if (!piece || piece->metadata().find(matrix_key)->second != to_text(what)) {
      auto const made = how.make(exec, source, i, what, seen);
      pieces.write("matrix", i, sources_of(made), {{std::string{matrix_key}, to_text(what)}});
      piece = pieces.find("matrix", i);
      require<io_error>(piece.has_value(), "compress_file", "cannot read back ", pieces.path("matrix", i).string());
    }
    metadata[std::string{matrix_key} + what.name] = to_text(what);
    for (auto const& t : piece->tensors()) {
      specs.push_back({t.name, t.type, t.shape});
      piece_of[t.name] = i;
    }
  }
  for (auto const& t : model.tensors())
    if (!detail::is_replaced(t.name, plan.matrices)) specs.push_back({t.name, t.type, t.shape});

  safetensors_writer out{job.output, std::move(specs), metadata};
  for (auto const& t : out.tensors()) {
    auto const place = piece_of.find(t.name);
    if (place == piece_of.end()) detail::copy_tensor(model, t.name, out);
    else detail::copy_tensor(safetensors_reader{pieces.path("matrix", place->second)}, t.name, out);
  }
  out.commit();
  pieces.remove();
  return plan;
}

}  // namespace lowrank
