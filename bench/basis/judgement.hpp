/// @file
/// Judges every method on the gradients of one stage after another, and keeps the numbers.
#pragma once

#include <span>

#include "basis/measures.hpp"
#include "basis/methods.hpp"

namespace lowrank::bench {

struct judged_settings {
  std::vector<index_t> stages{20, 150, 340};  ///< steps from which gradients are recorded
  std::vector<index_t> lags{1, 10, 50};       ///< steps from the gradient of the old P to the one to be caught
  std::vector<index_t> ranks{16, 32, 64, 128};
  index_t run{16};    ///< consecutive steps, each with an update
  index_t settle{3};  ///< first updates of a run, which do not count: averages have yet to fill

  /// Whether the step `ahead` of a stage is looked at.
  [[nodiscard]] bool wants(index_t ahead) const {
    return ahead <= run || std::find(lags.begin(), lags.end(), ahead) != lags.end();
  }
  [[nodiscard]] index_t last() const { return std::max(run, *std::max_element(lags.begin(), lags.end())); }
  /// Steps until all stages are over.
  /// Throws: argument_error unless they rise and do not meet.
  [[nodiscard]] index_t steps() const {
    index_t free = 0;
    for (index_t const stage : stages) {
      require(stage >= free, "bench::judged_settings", "needs stages ", last() + 1, " steps apart, got ", stage);
      free = stage + last() + 1;
    }
    return free;
  }
};

/// One method at one rank, after one number of steps.
struct refresh_row {
  std::string id;
  refresh_method const* method;
  index_t tokens, lag, rank;
  distribution of_best;    ///< captured energy by the most that this rank can capture
  distribution departure;  ///< from orthonormality, in sqrt(r) eps
  index_t failures{};
};

/// One method at one rank, over a run of steps. Shares of the gradient P was updated with and of the next one, which P has
/// not seen: of what this rank can capture of it at best, and of all its energy.
struct every_step_row {
  std::string id;
  every_step_method const* method;
  index_t tokens, rank;
  distribution current, next, current_of_all, next_of_all, departure;
  index_t failures{};
};

struct spectrum_row {
  index_t tokens, stage;
  char const* matrix;
  spectrum_shape shape;
};

class judgement {
 public:
  /// Of gradients of `watched`, in batches of so many `tokens`.
  judgement(engine& exec, judged_settings settings, std::span<watched_matrix const> watched,
            std::array<index_t, batch_kinds.size()> const& tokens)
      : exec_{exec}, settings_{std::move(settings)}, watched_{watched}, tokens_{tokens} {
    auto const name = [](auto... parts) {
      std::string out;
      ((out += out.empty() ? parts : "-" + parts), ...);
      return out;
    };
    for (index_t const t : tokens_) {
      std::string const batch = "t" + std::to_string(t);
      for (index_t const lag : settings_.lags)
        for (auto const& method : methods_)
          for (index_t const r : settings_.ranks)
            rows_.push_back({name("lag" + std::to_string(lag), "r" + std::to_string(r), method.id, batch),
                             &method,
                             t,
                             lag,
                             r,
                             {},
                             {}});
      for (auto const& method : every_step_)
        for (index_t const r : settings_.ranks)
          every_step_rows_.push_back({name(std::string{"next"}, "r" + std::to_string(r), method.id, batch),
                                      &method,
                                      t,
                                      r,
                                      {},
                                      {},
                                      {},
                                      {},
                                      {}});
    }
  }
  judgement(judgement const&) = delete;
  judgement& operator=(judgement const&) = delete;
  ~judgement() = default;

  /// Looks at what was recorded from step `stage` on.
  void add(index_t stage, gradient_recording& recorded) {
    for (auto& [when, samples] : recorded)
      for (auto& sample : samples) sample.exact = decompose(exec_, sample.view());
    for (std::size_t number = 0; number < batch_kinds.size(); ++number) {
      auto const at = [&, kind = batch_kinds[number]](index_t ahead, std::size_t matrix) -> gradient_sample const& {
        return recorded.at({stage + ahead, kind})[matrix];
      };
      for (std::size_t m = 0; m < watched_.size(); ++m) {
        spectra_.push_back({tokens_[number], stage, watched_[m].name, spectrum_shape{at(0, m).exact}});
        for (auto& row : rows_)
          if (row.tokens == tokens_[number]) judge(row, at(0, m), at(row.lag, m), key(stage, m));
        for (auto& row : every_step_rows_)
          if (row.tokens == tokens_[number])
            judge(
                row, [&](index_t ahead) -> gradient_sample const& { return at(ahead, m); }, key(stage, m));
      }
    }
  }

  [[nodiscard]] judged_settings const& settings() const noexcept { return settings_; }
  [[nodiscard]] std::span<watched_matrix const> watched() const noexcept { return watched_; }
  [[nodiscard]] std::vector<refresh_row> const& rows() const noexcept { return rows_; }
  [[nodiscard]] std::vector<every_step_row> const& every_step_rows() const noexcept { return every_step_rows_; }
  [[nodiscard]] std::vector<spectrum_row> const& spectra() const noexcept { return spectra_; }

 private:
  [[nodiscard]] static rng_key key(index_t step, std::size_t matrix) noexcept {
    return {.seed = 1, .step = static_cast<std::uint32_t>(step), .tensor = static_cast<std::uint32_t>(matrix)};
  }
  [[nodiscard]] matrix<float> exact_of(gradient_sample const& g, index_t r) {
    matrix<float> p{g.view().rows, r};
    detail::copy_exact(exec_, g, p.view());
    return p;
  }
  [[nodiscard]] double of_best(gradient_sample const& g, matrix<float> const& p) {
    return captured_energy(exec_, g.view(), p.view()) / g.exact.energy(p.shape().cols);
  }

  void judge(refresh_row& row, gradient_sample const& old, gradient_sample const& g, rng_key const& key) {
    auto const before = exact_of(old, row.rank);
    matrix<float> p{before.shape()};
    if (row.method->find(exec_, g, before.view(), p.view(), key) == outcome::failed) {
      ++row.failures;
      return;
    }
    row.of_best.add(of_best(g, p));
    row.departure.add(bench::departure(exec_, p.view()));
  }
  template <class At>
  void judge(every_step_row& row, At const& at, rng_key key) {
    auto p = exact_of(at(0), row.rank);
    auto const update = row.method->start(exec_, at(0), p.view());
    std::vector<double> current, next, current_of_all, next_of_all;
    double worst = 0;
    for (index_t ahead = 1; ahead < settings_.run; ++ahead) {
      ++key.step;
      if (update(exec_, at(ahead), p.view(), key) == outcome::failed) {
        ++row.failures;
        return;
      }
      if (ahead <= settings_.settle) continue;
      auto const look = [&](gradient_sample const& g, auto& shares, auto& shares_of_all) {
        shares.push_back(of_best(g, p));
        shares_of_all.push_back(shares.back() * g.exact.energy(row.rank) / g.energy);
      };
      look(at(ahead), current, current_of_all);
      look(at(ahead + 1), next, next_of_all);
      worst = std::max(worst, bench::departure(exec_, p.view()));
    }
    row.current.add(mean(current));
    row.next.add(mean(next));
    row.current_of_all.add(mean(current_of_all));
    row.next_of_all.add(mean(next_of_all));
    row.departure.add(worst);
  }

  engine& exec_;
  judged_settings settings_;
  std::span<watched_matrix const> watched_;
  std::array<index_t, batch_kinds.size()> tokens_;
  std::vector<refresh_method> methods_{refresh_methods()};
  std::vector<every_step_method> every_step_{every_step_methods()};
  std::vector<refresh_row> rows_;
  std::vector<every_step_row> every_step_rows_;
  std::vector<spectrum_row> spectra_;
};

}  // namespace lowrank::bench
