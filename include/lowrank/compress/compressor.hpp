/// @file
/// The whole-model pass: spectra -> ranks under one budget -> factors -> form -> LRC or N-LRC.
#pragma once

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>

#include "lowrank/compress/compressed_matrix.hpp"
#include "lowrank/compress/matrix_collection.hpp"
#include "lowrank/factor/factorizer.hpp"
#include "lowrank/rank/allocation.hpp"
#include "lowrank/spectrum/model_spectra.hpp"

namespace lowrank {

/// What becomes of a cut matrix whose factors would take more room than itself.
enum class cut_but_larger : std::uint8_t {
  left_dense,  ///< it stays what it was: truncating it would lose quality and save nothing
  merged,      ///< U V as one matrix, so that quality is that of the ranks: for comparisons
};

/// Which spectrum the allocator sees.
enum class allocation_spectrum : std::uint8_t {
  weights,  ///< singular values of W: needs no data
  outputs,  ///< those of the factorizer's decomposition, for whitened factors of W C^1/2
};

struct compression_options {
  rank_budget budget{};
  rank_options ranks{};  ///< ranks.storage is also the form of factors
  double gate{0.4999};   ///< cut by more than this share of min(m, n): LRC
  cut_but_larger larger{cut_but_larger::left_dense};
  allocation_spectrum sees{allocation_spectrum::weights};

  void check() const {
    budget.check("compressor");
    ranks.check("compressor");
    require(gate >= 0 && gate < 1, "compressor", "gate must be in [0, 1), got ", gate);
  }
};

/// Called before each piece of work: what is done, to which matrix, and how far it is.
struct compression_progress {
  enum class stage : std::uint8_t { spectrum, factors };
  stage doing;
  index_t number, count;
  std::string_view name;
};
using on_compression_progress = std::function<void(compression_progress const&)>;

/// What a pass is going to make of each matrix, in the order of the source.
struct compression_plan {
  std::vector<matrix_plan> matrices;
  std::vector<spectrum> spectra;
  allocation ranks;

  [[nodiscard]] index_t parameters() const noexcept {
    index_t sum = 0;
    for (auto const& m : matrices) sum += m.parameters();
    return sum;
  }
  [[nodiscard]] index_t all_parameters() const noexcept {
    index_t sum = 0;
    for (auto const& m : matrices) sum += m.shape.size();
    return sum;
  }
};

/// The plan that given ranks make.
[[nodiscard]] inline matrix_plan planned(std::string name, extents shape, index_t rank,
                                         compression_options const& options) {
  matrix_plan out{std::move(name), shape, rank};
  out.kind = is_low_rank_component(shape, rank, options.gate) ? component_kind::lrc : component_kind::n_lrc;
  if (!out.is_cut()) return out;
  out.form = smallest_form(shape, rank, options.ranks.storage);
  if (out.form == storage_form::dense && options.larger == cut_but_larger::left_dense)
    out.rank = std::min(shape.rows, shape.cols);
  return out;
}

/// Ranks of a model's matrices by one rule, factors by another. Both steps read one matrix at a time, so that a model may be
/// larger than memory; between them a file can be laid out.
template <rank_allocator Allocator, class Factorizer>
  requires factorizer<Factorizer> || output_weighted_factorizer<Factorizer>
struct compressor {
  Allocator allocator{};
  Factorizer method{};
  compression_options options{};

  void check() const {
    options.check();
    allocator.check();
    method.check();
  }

  /// Spectra and ranks. `seen` may be empty unless the allocator sees outputs.
  /// Cost: one values-only decomposition a matrix; memory of one matrix, its scratch and the Grams of `model_spectra`.
  /// Throws: argument_error, for a matrix that is not finite (with its name) and for a budget that cannot be met.
  template <class E, matrix_collection Source>
  [[nodiscard]] compression_plan plan(E& exec, Source const& source, calibration const& seen = {},
                                      on_compression_progress const& progress = {}) const {
    check();
    std::vector<spectrum> spectra;
    auto const tell = [&](index_t i) {
      if (progress) progress({compression_progress::stage::spectrum, i, source.size(), source.name(i)});
    };
    if (options.sees == allocation_spectrum::weights) {
      // Together, because one eigenproblem leaves threads idle.
      matrix<float> loaded;
      std::vector<matrix_source> each;
      for (index_t i = 0; i < source.size(); ++i)
        each.push_back({source.name(i), [&, i] {
                          tell(i);
                          loaded = read(source, i);
                          return matrix_view<float const>(loaded.view());
                        }});
      spectra = model_spectra(exec, each);
    } else {
      for (index_t i = 0; i < source.size(); ++i) tell(i), spectra.push_back(spectrum_of(exec, source, i, seen));
    }
    return plan_of(source, std::move(spectra));
  }
  /// The same from spectra that are known.
  template <matrix_collection Source>
  [[nodiscard]] compression_plan plan_of(Source const& source, std::vector<spectrum> spectra) const {
    check();
    require<shape_error>(static_cast<index_t>(spectra.size()) == source.size(), "compressor::plan_of",
                         "needs a spectrum for each of ", source.size(), " matrices, got ", spectra.size());
    compression_plan out{.matrices = {}, .spectra = std::move(spectra), .ranks = {}};
    out.ranks = allocator.allocate(out.spectra, options.budget, options.ranks);
    for (index_t i = 0; i < source.size(); ++i)
      out.matrices.push_back(
          planned(source.name(i), source.shape(i), out.ranks.ranks[static_cast<std::size_t>(i)], options));
    return out;
  }
  template <class E, matrix_collection Source>
  [[nodiscard]] spectrum spectrum_of(E& exec, Source const& source, index_t i, calibration const& seen) const {
    matrix<float> const w = read(source, i);
    if (options.sees == allocation_spectrum::weights) return singular_values(exec, w.view(), {}, source.name(i));
    require_finite(w, source.name(i));
    return decompose(exec, w.view(), seen_of(seen, source.name(i)), 1).values();
  }

  /// One matrix as planned.
  template <class E, matrix_collection Source>
  [[nodiscard]] compressed_matrix make(E& exec, Source const& source, index_t i, matrix_plan const& plan,
                                       calibration const& seen = {}) const {
    check_plan(source, i, plan);
    return make(exec, read(source, i), source.bias(i), plan, seen);
  }
  /// The same from the matrix and the bias of its layer, if it has one.
  template <class E>
  [[nodiscard]] compressed_matrix make(E& exec, matrix<float> w, std::vector<float> bias, matrix_plan const& plan,
                                       calibration const& seen = {}) const {
    require_finite(w, plan.name);
    if (!plan.is_cut()) return {plan, dense_matrix{std::move(w), std::move(bias)}};
    auto const known = seen_of(seen, plan.name);
    matrix_view<float const> const view = w.view();
    static activation_statistics const none{};
    auto pair = factors(exec, method, decompose(exec, view, known, plan.rank), view,
                        known.inputs != nullptr ? *known.inputs : none, plan.rank, bias);
    if (plan.form == storage_form::factors) return {plan, std::move(pair)};
    if (plan.form == storage_form::pivoted) return {plan, pivoted(exec, pair.view())};
    merge(exec, pair.view(), w.view());
    return {plan, dense_matrix{std::move(w), std::move(pair.bias)}};
  }
  /// Every matrix, each handed to `take(compressed_matrix)`, in their order. Without calibration as many are made together as
  /// the executor has threads, one thread each: half of an eigenproblem has work for one only.
  /// Cost: memory of a matrix, its factors and its scratch; of so many where several are made together.
  template <class E, matrix_collection Source, class Take>
  void run(E& exec, Source const& source, compression_plan const& plan, Take&& take, calibration const& seen = {},
           on_compression_progress const& progress = {}) const {
    require<shape_error>(static_cast<index_t>(plan.matrices.size()) == source.size(), "compressor::run",
                         "needs a plan for ", source.size(), " matrices, got ", plan.matrices.size());
    auto const tell = [&](index_t i) {
      if (progress) progress({compression_progress::stage::factors, i, source.size(), source.name(i)});
    };
    auto const plan_for = [&](index_t i) -> matrix_plan const& { return plan.matrices[static_cast<std::size_t>(i)]; };
    if (seen || exec.threads() == 1) {
      for (index_t i = 0; i < source.size(); ++i) tell(i), take(make(exec, source, i, plan_for(i), seen));
      return;
    }
    std::vector<std::unique_ptr<E>> workers;
    for (int i = 0; i < exec.threads(); ++i) workers.push_back(std::make_unique<E>(host_options{.threads = 1}));
    std::vector<job> jobs(workers.size());
    for (index_t begin = 0; begin < source.size(); begin += exec.threads()) {
      index_t const count = std::min<index_t>(exec.threads(), source.size() - begin);
      for (index_t k = 0; k < count; ++k) {
        tell(begin + k);
        check_plan(source, begin + k, plan_for(begin + k));
        jobs[static_cast<std::size_t>(k)] = {read(source, begin + k), source.bias(begin + k), {}, {}};
      }
      exec.parallel(count, [&](index_t k) {
        auto& one = jobs[static_cast<std::size_t>(k)];
        try {
          one.made = make(*workers[static_cast<std::size_t>(k)], std::move(one.weight), std::move(one.bias),
                          plan_for(begin + k));
        } catch (...) { one.problem = std::current_exception(); }
      });
      for (index_t k = 0; k < count; ++k) {
        auto& one = jobs[static_cast<std::size_t>(k)];
        if (one.problem) std::rethrow_exception(one.problem);
        take(std::move(one.made));
      }
    }
  }

 private:
  /// One of the matrices that are made together.
  struct job {
    matrix<float> weight;
    std::vector<float> bias;
    compressed_matrix made;
    std::exception_ptr problem;
  };

  template <class Source>
  static void check_plan(Source const& source, index_t i, matrix_plan const& plan) {
    require(plan.name == source.name(i) && plan.shape == source.shape(i), "compressor::make", "the plan is for \"",
            plan.name, "\" (", plan.shape, "), the matrix is \"", source.name(i), "\" (", source.shape(i), ")");
  }
  template <class Source>
  [[nodiscard]] static matrix<float> read(Source const& source, index_t i) {
    matrix<float> w{source.shape(i)};
    source.read(i, w.view());
    return w;
  }
  static void require_finite(matrix<float> const& w, std::string const& name) {
    bool const finite = std::all_of(w.data(), w.data() + w.shape().size(), [](float x) { return is_finite(x); });
    require(finite, "compressor", "\"", name, "\" must be finite");
  }
  /// What the factorizer needs to know of a matrix, all of it there.
  [[nodiscard]] static layer_statistics seen_of(calibration const& seen, std::string const& name) {
    auto const out = seen ? seen(name) : layer_statistics{};
    require(!Factorizer::needs_statistics || out.inputs != nullptr, "compressor", "\"", name,
            "\": this factorizer needs statistics of the inputs");
    if constexpr (output_weighted_factorizer<Factorizer>)
      require(out.output_gradients != nullptr, "compressor", "\"", name,
              "\": this factorizer needs statistics of the output gradients");
    return out;
  }
  template <class E>
  [[nodiscard]] output_basis decompose(E& exec, matrix_view<float const> w, layer_statistics const& known,
                                       index_t most) const {
    static activation_statistics const none{};
    auto const& inputs = known.inputs != nullptr ? *known.inputs : none;
    if constexpr (output_weighted_factorizer<Factorizer>)
      return method.decompose(exec, w, inputs, *known.output_gradients);
    else return decompose_for_rank(exec, method, w, inputs, most);
  }
};

}  // namespace lowrank
