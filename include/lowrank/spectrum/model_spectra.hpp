/// @file
/// Spectra of all matrices of a model, with one of them in memory at a time.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lowrank/spectrum/singular_values.hpp"

namespace lowrank {

/// A matrix that is brought into memory when it is asked for.
struct matrix_source {
  std::string name;
  std::function<matrix_view<float const>()> load;  ///< valid until the next load of any source; may be called again
};

struct spectra_progress {
  index_t done{}, total{};
  std::string_view name;  ///< of the matrix that was finished last
};

struct model_spectra_options {
  spectrum_options spectrum{};
  index_t gram_bytes{16 << 20};  ///< Grams kept to be worked on together, one thread each; one is kept in any case
  std::function<void(spectra_progress const&)> progress{};  ///< called after each matrix; what it throws ends the pass

  void check() const {
    spectrum.check();
    require(gram_bytes >= 0, "model_spectra", "gram_bytes must be >= 0, got ", gram_bytes);
  }
};

namespace detail {

/// Grams of several matrices, solved together.
template <class E>
class gram_batch {
 public:
  gram_batch(E& exec, index_t limit) : exec_{exec}, limit_{limit} {}

  /// Whether a matrix of that shape must wait for the ones before it.
  [[nodiscard]] bool full_for(extents shape) const noexcept { return used_ > 0 && bytes_ + gram_bytes(shape) > limit_; }
  void add(std::size_t number, const_view_of<E> w) {
    if (used_ == slots_.size()) slots_.emplace_back();
    auto& next = slots_[used_++];
    index_t const n = std::min(w.rows, w.cols);
    if (next.memory.size() < n * n) next.memory = buffer<double>{}, next.memory = buffer<double>{n * n};
    next.number = number;
    next.one.begin(exec_, w, next.memory.data());
    bytes_ += gram_bytes(w.shape());
  }
  /// done(number, gram_spectrum) for every matrix in the order they came.
  template <class Done>
  void solve(Done const& done) {
    std::vector<eigenvalue_problem> problems;
    for (std::size_t i = 0; i < used_; ++i) problems.push_back(slots_[i].one.problem);
    symmetric_eigenvalues(exec_, std::span{problems});
    for (std::size_t i = 0; i < used_; ++i) {
      slots_[i].one.problem.failed = problems[i].failed;
      done(slots_[i].number, slots_[i].one);
    }
    used_ = 0, bytes_ = 0;
  }

 private:
  struct slot {
    std::size_t number{};
    gram_spectrum one;
    buffer<double> memory;
  };
  [[nodiscard]] static index_t gram_bytes(extents shape) noexcept {
    index_t const n = std::min(shape.rows, shape.cols);
    return n * n * index_t{sizeof(double)};
  }

  E& exec_;
  index_t limit_, bytes_{};
  std::size_t used_{};
  std::vector<slot> slots_;
};

}  // namespace detail

/// Spectra of all sources, in their order: those that `singular_values` gives, bit by bit. A matrix whose Gram turns out not to
/// be accurate enough is loaded once more.
/// Cost: memory for one matrix, which is the source's, and for the Grams of options.gram_bytes.
/// Throws: argument_error that names a matrix with NaN or Inf; what sources and progress throw.
template <class E>
[[nodiscard]] std::vector<spectrum> model_spectra(E& exec, std::span<matrix_source const> sources,
                                                  model_spectra_options const& options = {}) {
  options.check();
  std::vector<spectrum> out(sources.size());
  index_t done = 0;
  auto const finish = [&](std::size_t i, spectrum found) {
    out[i] = std::move(found);
    if (options.progress)
      options.progress({.done = ++done, .total = static_cast<index_t>(sources.size()), .name = sources[i].name});
  };
  auto const& asked = options.spectrum;
  auto const load = [&](std::size_t i) {
    require(static_cast<bool>(sources[i].load), "model_spectra", sources[i].name, " has nothing to load it with");
    return sources[i].load();
  };
  std::vector<std::size_t> again;
  detail::gram_batch<E> batch{exec, options.gram_bytes};
  auto const keep = [&](std::size_t i, detail::gram_spectrum& one) {
    one.finish(sources[i].name);
    if (asked.route == spectrum_route::gram || gram_error(one.result) <= asked.accuracy)
      finish(i, std::move(one.result));
    else again.push_back(i);
  };
  for (std::size_t i = 0; i < sources.size(); ++i) {
    matrix_view<float const> const w = load(i);
    if (asked.route == spectrum_route::randomized || asked.route == spectrum_route::exact || w.empty()) {
      finish(i, singular_values(exec, w, asked, sources[i].name));
      continue;
    }
    if (batch.full_for(w.shape())) batch.solve(keep);
    batch.add(i, w);
  }
  batch.solve(keep);
  for (std::size_t const i : again) finish(i, detail::exact_spectrum<E>(exec, load(i), sources[i].name));
  return out;
}

}  // namespace lowrank
