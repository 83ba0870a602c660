/// @file
/// What steps with a new basis take, and what the others do.
#pragma once

#include "lowrank/optim/matrix_optimizer.hpp"
#include "progress.hpp"

namespace llama {

/// Seconds and steps of one matrix, as a history keeps them.
struct step_times {
  float &refreshing_seconds, &refreshing_steps, &plain_seconds, &plain_steps;
};

/// Any optimizer with a stopwatch. Micro-batches count as parts of their step.
template <class Executor>
class timed_optimizer final : public lowrank::matrix_optimizer<Executor> {
 public:
  timed_optimizer(std::unique_ptr<lowrank::matrix_optimizer<Executor>> inner, step_times times)
      : inner_{std::move(inner)}, times_{times} {}

  lowrank::step_status step(Executor& exec, lowrank::any_weight<Executor> const& weight,
                            lowrank::any_gradient<Executor> const& g, lowrank::step_options const& o) override {
    return timed_step([&] { return inner_->step(exec, weight, g, o); });
  }
  void accumulate(Executor& exec, lowrank::any_gradient<Executor> const& g) override {
    double const began = now();
    inner_->accumulate(exec, g);
    before_step_ += now() - began;
  }
  lowrank::step_status step_accumulated(Executor& exec, lowrank::any_weight<Executor> const& weight,
                                        lowrank::step_options const& o) override {
    return timed_step([&] { return inner_->step_accumulated(exec, weight, o); });
  }
  [[nodiscard]] bool accumulates() const noexcept override { return inner_->accumulates(); }
  [[nodiscard]] bool takes_factored() const noexcept override { return inner_->takes_factored(); }
  [[nodiscard]] index_t bytes() const override { return inner_->bytes(); }
  [[nodiscard]] index_t workspace_bytes(lowrank::any_weight<Executor> const& weight, index_t tokens) const override {
    return inner_->workspace_bytes(weight, tokens);
  }
  [[nodiscard]] index_t rank() const noexcept override { return inner_->rank(); }
  [[nodiscard]] double captured() const noexcept override { return inner_->captured(); }
  [[nodiscard]] index_t refreshes() const noexcept override { return inner_->refreshes(); }
  [[nodiscard]] bool refresh_due() const override { return inner_->refresh_due(); }

 private:
  using visitor = typename lowrank::matrix_optimizer<Executor>::visitor;
  /// A state names its values by reference; the interface passes them on by address.
  struct by_address {
    visitor const& f;
    template <class T>
    void operator()(std::string_view name, lowrank::identity_ref<T> value) const {
      f(name, value);
    }
    template <class T>
    void operator()(std::string_view name, T& value) const {
      f(name, &value);
    }
  };
  void visit(visitor const& f) override { visit_state(*inner_, by_address{f}); }

  lowrank::step_status timed_step(auto const& work) {
    index_t const known = inner_->refreshes();
    double const began = now();
    auto const status = work();
    auto const seconds = static_cast<float>(std::exchange(before_step_, 0.0) + now() - began);
    bool const refreshed = inner_->refreshes() != known;
    (refreshed ? times_.refreshing_seconds : times_.plain_seconds) += seconds;
    (refreshed ? times_.refreshing_steps : times_.plain_steps) += 1;
    return status;
  }

  std::unique_ptr<lowrank::matrix_optimizer<Executor>> inner_;
  step_times times_;
  double before_step_{};
};

}  // namespace llama
