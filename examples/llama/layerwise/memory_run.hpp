/// @file
/// One model in codes, a few steps, and what they took.
#pragma once

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include "../progress.hpp"
#include "lowrank/core/rng.hpp"
#include "memory_settings.hpp"
#include "process_state.hpp"
#include "step_flops.hpp"

namespace llama {

/// A number that changes when any of the bytes does, but for one chance in 2^64.
template <class Executor>
[[nodiscard]] std::uint64_t fingerprint(Executor& exec, void const* data, index_t bytes) {
  constexpr index_t chunk = 1 << 18;
  std::vector<std::uint64_t> parts(static_cast<std::size_t>((bytes + chunk - 1) / chunk));
  auto const* const from = static_cast<unsigned char const*>(data);
  exec.parallel(static_cast<index_t>(parts.size()), [&](index_t task) {
    std::uint64_t h = 1469598103934665603U;
    for (index_t i = task * chunk; i < std::min(bytes, (task + 1) * chunk); i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + i, static_cast<std::size_t>(std::min<index_t>(8, bytes - i)));
      h = (h ^ word) * 0x9E3779B97F4A7C15U;
      h ^= h >> 29;
    }
    parts[static_cast<std::size_t>(task)] = h;
  });
  std::uint64_t all = 0;
  for (auto const h : parts) all = (all ^ h) * 0x9E3779B97F4A7C15U + 1;
  return all;
}

template <class Executor, class Kind>
class memory_run {
 public:
  using optimizer_type = layer_optimizer<Executor, Kind>;

  /// Throws: state_error, before anything is allocated, where the machine has not the memory.
  explicit memory_run(memory_settings const& s)
      : settings_{s}, config_{shape_of(s)}, optimizer_settings_{settings_of(s, config_)} {
    base_ = resident_now();
    lowrank::host_options const options{.threads = s.threads};
    index_t const threads = s.threads > 0 ? s.threads : static_cast<index_t>(std::thread::hardware_concurrency());
    plan_ = plan_memory<optimizer_type>(config_, optimizer_settings_, s.sequence, threads * options.worker_bytes);
    describe();
    lowrank::require_fits(plan_, memory_available(), "llama_memory");
    auto with_arena = options;
    with_arena.scratch_bytes = plan_.bytes(lowrank::memory_kind::workspace, detail::arena_line);
    exec_.emplace(with_arena);
    stage("arena");
    double const began = now();
    model_.emplace(config_);
    draw(*exec_, *model_, s.seed);
    stage("weights");
    optimizer_.emplace(*exec_, *model_, optimizer_settings_);
    stage("optimizer states");
    passes_.emplace(*exec_, *model_, 1, s.sequence);
    stage("activations");
    std::printf("made in %.1f s\n", now() - began);
    for (index_t i = 0; i < s.sequence; ++i) {
      auto const token = [&](index_t at) {
        return static_cast<std::int32_t>(lowrank::random_word({.seed = s.seed, .purpose = lowrank::rng_purpose::data},
                                                              static_cast<std::uint64_t>(at)) %
                                         static_cast<std::uint32_t>(config_.vocabulary));
      };
      inputs_.push_back(token(i));
      targets_.push_back(token(i + 1));
    }
  }

  /// Whether everything that has to hold does.
  [[nodiscard]] bool run() {
    (void)sgemm_rate();  // the first products of a process are slow
    auto const before = fingerprints();
    for (index_t step = 0; step < settings_.steps; ++step) train_step(step);
    double const last = loss_now();
    std::printf("\nloss after the last step %.4f\n", last);
    report_["loss_after"] = last;
    finite_ = finite_ && std::isfinite(last);
    compare(before, fingerprints());
    report_memory();
    return verdict();
  }
  [[nodiscard]] nlohmann::json const& report() const noexcept { return report_; }

 private:
  struct part_times {
    std::array<double, pass_parts> seconds{};
    double& of(pass_part p) { return seconds[static_cast<std::size_t>(p)]; }
  };
  /// Of all parameters: one of a matrix, one of each row of embedding and head, one of each number of a norm.
  struct prints {
    std::vector<std::uint64_t> matrices, rows, gains;
  };

  [[nodiscard]] static optimizer_settings settings_of(memory_settings const& s, config const& c) {
    return {.rank = s.rank > 0 ? s.rank : c.width / 4,
            .learning_rate = s.learning_rate,
            .gradient = s.gradient == "dense" ? matrix_gradient::dense : matrix_gradient::factored,
            .eager_layer = c.layers / 2,
            .block_rows = std::min<index_t>(1024, (c.vocabulary + 3) / 4),
            .seed = s.seed};
  }
  void describe() {
    index_t parameters = 0;
    for (auto const& p : parameter_list(config_)) parameters += p.shape.size();
    auto const& o = optimizer_settings_;
    std::printf("LLaMA %s: %ld parameters, %ld layers, width %ld, ffn %ld, vocabulary %ld; 1 x %ld tokens\n",
                settings_.shape.c_str(), static_cast<long>(parameters), static_cast<long>(config_.layers),
                static_cast<long>(config_.width), static_cast<long>(config_.ffn), static_cast<long>(config_.vocabulary),
                static_cast<long>(settings_.sequence));
    std::printf(
        "Q-GaLore: INT8 weights with stochastic rounding, INT4 bases of rank %ld, %d-bit states, %s gradients.\n"
        "This proves memory and machinery, not learning: the weights are random, the text is random, and rank(G) <= "
        "%ld "
        "tokens%s.\n\nplanned\n",
        static_cast<long>(o.rank), settings_.state_bits, settings_.gradient.c_str(),
        static_cast<long>(settings_.sequence),
        settings_.sequence < o.rank ? ", fewer than the rank: the rest of each basis and of its moments sees only noise"
                                    : "");
    std::cout << plan_ << std::flush;
    report_["shape"] = settings_.shape;
    report_["parameters"] = parameters;
    report_["tokens"] = settings_.sequence;
    report_["rank"] = o.rank;
    report_["state_bits"] = settings_.state_bits;
    report_["gradient"] = settings_.gradient;
    report_["proves"] = "memory and machinery, not learning";
  }
  void stage(char const* name) {
    index_t const rss = resident_now();
    std::printf("%-18s VmRSS %s\n", name, lowrank::in_gib(rss).c_str());
    std::fflush(stdout);
    report_["stages"].push_back({{"after", name}, {"rss", rss}});
  }

  [[nodiscard]] token_view batch() const { return {inputs_, 1, settings_.sequence}; }
  [[nodiscard]] double loss_now() {
    return passes_->forward(batch(), targets_, [](pass_part, index_t, auto const& work) { work(); });
  }
  /// Flops of products: in a second, and in a second of one processor, which says the same beside other programs.
  struct product_rate {
    double flops, flops_a_processor;
  };
  /// Of square products as large as the arena allows.
  [[nodiscard]] product_rate sgemm_rate() {
    auto& exec = *exec_;
    lowrank::scratch_scope const scope{exec};
    auto const room = static_cast<double>(exec.arena().available()) / 12 - 64;
    index_t const n = std::max<index_t>(std::min<index_t>(2048, static_cast<index_t>(std::sqrt(room)) / 64 * 64), 64);
    auto const a = take_matrix(exec, {n, n}), b = take_matrix(exec, {n, n}), c = take_matrix(exec, {n, n});
    fill(exec, a, 0.5F);
    fill(exec, b, 0.25F);
    double const began = now(), own = processor_seconds().own;
    double count = 0;
    for (; now() - began < 0.5; ++count)
      multiply(exec, 1.0F, lowrank::const_view_of<Executor>(a), lowrank::const_view_of<Executor>(b), 0.0F, c);
    auto const side = static_cast<double>(n);
    double const flops = count * 2 * side * side * side;
    return {flops / (now() - began), flops / (processor_seconds().own - own)};
  }

  void train_step(index_t step) {
    std::printf("\nstep %ld\n", static_cast<long>(step + 1));
    auto const rate_before = sgemm_rate();
    exec_->arena().reset_peak();
    auto const processor_before = processor_seconds();
    auto const watch_before = optimizer_->watch();
    part_times times;
    double const began = now();
    index_t const layers = config_.layers, every = std::max<index_t>(1, layers / 4);
    double const loss = passes_->forward(batch(), targets_, [&](pass_part part, index_t l, auto const& work) {
      double const start = now();
      work();
      times.of(part) += now() - start;
      if (part == pass_part::forward && (l + 1) % every == 0)
        std::printf("  forward   layer %2ld  %6.1f s\n", static_cast<long>(l), now() - began), std::fflush(stdout);
    });
    std::printf("  loss %.4f\n", loss);
    finite_ = finite_ && std::isfinite(loss);
    double layer_began = now();
    index_t layer = layers;
    auto const layer_done = [&] {
      std::printf("  %-9s %s%2ld  %6.1f s  VmRSS %s\n", layer == layers ? "head" : "backward",
                  layer == layers ? "      " : "layer ", static_cast<long>(layer), now() - layer_began,
                  lowrank::in_gib(resident_now()).c_str());
      std::fflush(stdout);
      layer_began = now();
    };
    passes_->backward(batch(), *optimizer_, [&](pass_part part, index_t l, auto const& work) {
      if (part == pass_part::recompute || part == pass_part::embedding) {
        if (part == pass_part::recompute || layer == 0) layer_done();
        layer = l;
      }
      double const start = now();
      work();
      times.of(part) += now() - start;
    });
    double const seconds = now() - began;
    auto const processor = processor_seconds();
    arena_peak_ = std::max(arena_peak_, exec_->arena().peak());
    auto const rate_after = sgemm_rate();
    double const rate = (rate_before.flops + rate_after.flops) / 2,
                 rate_a_processor = (rate_before.flops_a_processor + rate_after.flops_a_processor) / 2;
    auto const& watch = optimizer_->watch();
    index_t const eager = optimizer_settings_.eager_layer;
    auto const flops = count_flops(config_, optimizer_settings_, settings_.sequence, [&](index_t l) {
      return step == 0 ? 1 : l == eager ? 2 : 0;
    });
    double const least = flops.total() / rate, own = processor.own - processor_before.own,
                 foreign = std::max(0.0, processor.all - processor_before.all - own);
    std::printf("  embedding %.1f s; new bases: %ld first, %ld warm, in %.1f s\n", times.of(pass_part::embedding),
                static_cast<long>(watch.cold - watch_before.cold), static_cast<long>(watch.warm - watch_before.warm),
                watch.seconds - watch_before.seconds);
    double const ratio_of_processors = own / (flops.total() / rate_a_processor);
    std::printf("  %.1f s = %.2f x (%.2f Tflop at %.0f GFLOP/s); others used %.2f processors\n", seconds,
                seconds / least, flops.total() * 1e-12, rate * 1e-9, foreign / seconds);
    std::printf("  %.1f s of processors = %.2f x (the same at %.0f GFLOP/s a processor)\n", own, ratio_of_processors,
                rate_a_processor * 1e-9);
    auto const share = [&](char const* what, double taken, double counted) {
      std::printf("    %-18s %7.1f s  %6.2f Tflop  %6.0f GFLOP/s\n", what, taken, counted * 1e-12,
                  counted / taken * 1e-9);
      return nlohmann::json{{"seconds", taken}, {"flops", counted}};
    };
    double const found = watch.seconds - watch_before.seconds;
    nlohmann::json parts;
    parts["forward"] = share("forward", times.of(pass_part::forward), flops.forward);
    parts["recompute"] = share("recompute", times.of(pass_part::recompute), flops.recompute);
    parts["input_gradients"] = share("input gradients", times.of(pass_part::input_gradients), flops.input_gradients);
    parts["bases"] = share("bases", found, flops.bases);
    parts["update"] = share("project, rule, lift", times.of(pass_part::update) - found,
                            flops.projections + flops.lifts + flops.dense_gradients);
    parts["head"] = share("head", times.of(pass_part::head), flops.head);
    parts["embedding"] = {{"seconds", times.of(pass_part::embedding)}};
    report_["steps"].push_back({{"loss", loss},
                                {"seconds", seconds},
                                {"flops", flops.total()},
                                {"gflops_sgemm", rate * 1e-9},
                                {"ratio", seconds / least},
                                {"processor_seconds", own},
                                {"gflops_sgemm_a_processor", rate_a_processor * 1e-9},
                                {"processor_ratio", ratio_of_processors},
                                {"foreign_processors", foreign / seconds},
                                {"first_bases", watch.cold - watch_before.cold},
                                {"warm_bases", watch.warm - watch_before.warm},
                                {"parts", parts},
                                {"rss", resident_now()},
                                {"hwm", peak_resident()}});
  }

  [[nodiscard]] prints fingerprints() {
    prints out;
    auto& exec = *exec_;
    for (index_t i = 0; i < model_->count(); ++i) {
      auto const& p = (*model_)[i];
      if (p.is_norm()) {
        auto const g = model_->gain(i);
        for (index_t j = 0; j < g.cols; ++j) out.gains.push_back(std::bit_cast<std::uint32_t>(g(0, j)));
      } else if (is_coded(p)) {
        auto const codes = model_->codes(i).view();
        out.matrices.push_back(fingerprint(exec, codes.codes, p.shape.size()));
      } else {
        auto const w = model_->narrow(p.what).values;
        std::size_t const first = out.rows.size();
        out.rows.resize(first + static_cast<std::size_t>(w.rows));
        exec.parallel(w.rows, [&](index_t row) {
          std::uint64_t h = 0;
          for (index_t j = 0; j < w.cols; ++j)
            h = (h ^ std::bit_cast<std::uint16_t>(w(row, j))) * 0x9E3779B97F4A7C15U + 1;
          out.rows[first + static_cast<std::size_t>(row)] = h;
        });
      }
    }
    return out;
  }
  void compare(prints const& before, prints const& after) {
    auto const say = [&](char const* key, char const* what, index_t count, std::size_t of) {
      std::printf("%-44s %ld of %zu changed\n", what, static_cast<long>(count), of);
      report_["changed"][key] = {{"changed", count}, {"of", of}};
      return count == static_cast<index_t>(of);
    };
    auto const changed = [](auto const& a, auto const& b, std::size_t begin, std::size_t end) {
      index_t count = 0;
      for (std::size_t i = begin; i < end; ++i) count += a[i] != b[i] ? 1 : 0;
      return count;
    };
    auto const rows = static_cast<std::size_t>(config_.vocabulary);
    std::set<std::int32_t> const used(inputs_.begin(), inputs_.end());
    index_t read = 0;
    for (auto const token : used)
      read += before.rows[static_cast<std::size_t>(token)] != after.rows[static_cast<std::size_t>(token)] ? 1 : 0;
    all_changed_ = say("matrices", "matrices of INT8 codes",
                       changed(before.matrices, after.matrices, 0, before.matrices.size()), before.matrices.size());
    all_changed_ &= say("norms", "numbers of norms (fp32)", changed(before.gains, after.gains, 0, before.gains.size()),
                        before.gains.size());
    all_changed_ &= say("head_rows", "rows of the head (bf16)", changed(before.rows, after.rows, rows, 2 * rows), rows);
    all_changed_ &= say("embedding_rows_read", "rows of the embedding (bf16) that were read", read, used.size());
    // The others only decay, by less than bf16 can hold: stochastic rounding moves one number in some thousands.
    (void)say("embedding_rows", "all rows of the embedding", changed(before.rows, after.rows, 0, rows), rows);
  }

  void report_memory() {
    auto const found = count_memory(*exec_, *model_, *passes_, *optimizer_);
    std::printf("\n%-12s %-30s %15s %15s\n", "memory", "", "planned", "counted");
    for (auto const& line : plan_.lines()) {
      bool const is_arena = line.what == detail::arena_line;
      index_t const bytes = is_arena ? arena_peak_ : found.bytes(line.kind, line.what);
      double const off =
          line.bytes == 0 ? 0 : std::abs(static_cast<double>(bytes - line.bytes) / static_cast<double>(line.bytes));
      worst_line_ = std::max(worst_line_, off);
      auto const kind = std::string{lowrank::name_of(line.kind)};
      std::printf("%-12s %-30s %15ld %15ld %12s\n", kind.c_str(), line.what.c_str(), static_cast<long>(line.bytes),
                  static_cast<long>(bytes), lowrank::in_gib(bytes).c_str());
      report_["memory"]["lines"].push_back(
          {{"kind", kind}, {"what", line.what}, {"planned", line.bytes}, {"counted", bytes}});
    }
    peak_ = peak_resident();
    std::printf("%-12s %-30s %15s\n%-12s %-30s %15s %15s  VmHWM\n", "resident", "",
                lowrank::in_gib(plan_.resident()).c_str(), "peak", "", lowrank::in_gib(plan_.peak()).c_str(),
                lowrank::in_gib(peak_).c_str());
    std::printf("(VmHWM beyond the plan: %s; the program had %s when it began: libraries, stacks, buffers of BLAS)\n",
                lowrank::in_gib(peak_ - plan_.peak()).c_str(), lowrank::in_gib(base_).c_str());
    auto& m = report_["memory"];
    m["planned_resident"] = plan_.resident();
    m["planned_peak"] = plan_.peak();
    m["hwm"] = peak_;
    m["rss_at_start"] = base_;
    m["arena_reserved"] = exec_->arena().reserved();
    m["arena_peak"] = arena_peak_;
  }
  [[nodiscard]] bool verdict() {
    auto const& watch = optimizer_->watch();
    double limit = settings_.limit_gib;
    if (limit == 0 && settings_.shape == "7b") limit = settings_.state_bits == 4 ? 10 : 12;
    bool good = true;
    std::printf("\n");
    auto const check = [&](char const* key, bool holds, std::string const& value) {
      std::printf("%-4s %-44s %s\n", holds ? "ok" : "NOT", key, value.c_str());
      report_["checks"].push_back({{"what", key}, {"holds", holds}, {"value", value}});
      good = good && holds;
    };
    auto const text = [](double x) {
      char out[32];
      std::snprintf(out, sizeof out, "%.3g", x);
      return std::string{out};
    };
    check("losses are finite", finite_, "");
    check("every float parameter and matrix changed", all_changed_, "");
    check("no step was refused", optimizer_->refused() == 0, std::to_string(optimizer_->refused()));
    check("bases orthonormal, |PtP - I| <= 1e-4", watch.worst_departure <= 1e-4, text(watch.worst_departure));
    if (settings_.steps > 1) {
      check("warm bases were found", watch.warm == 7 * (settings_.steps - 1), std::to_string(watch.warm));
      double const kept = optimizer_->least_overlap();
      double const shared =
          std::max(0.0, 1 - static_cast<double>(settings_.sequence) / static_cast<double>(optimizer_settings_.rank));
      check("and share with the old ones what G leaves", kept >= shared - 0.05, text(kept));
    }
    check("counted as planned, within 2 %", worst_line_ <= 0.02, text(worst_line_));
    check("arena's peak is the planned one", arena_peak_ == exec_->arena().reserved(), std::to_string(arena_peak_));
    if (limit > 0)
      check(("VmHWM <= " + text(limit) + " GiB").c_str(), static_cast<double>(peak_) <= limit * 1073741824.0,
            lowrank::in_gib(peak_));
    report_["departure"] = watch.worst_departure;
    report_["least_overlap"] = optimizer_->least_overlap();
    return good;
  }

  memory_settings settings_;
  config config_;
  optimizer_settings optimizer_settings_;
  lowrank::memory_plan plan_;
  nlohmann::json report_;
  std::optional<Executor> exec_;
  std::optional<coded_model> model_;
  std::optional<optimizer_type> optimizer_;
  std::optional<layer_passes<Executor>> passes_;
  std::vector<std::int32_t> inputs_, targets_;
  index_t base_{}, peak_{}, arena_peak_{};
  double worst_line_{};
  bool finite_{true}, all_changed_{true};
};

}  // namespace llama
