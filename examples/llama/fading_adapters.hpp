/// @file
/// PC-LoRA in a model: the adapted weights fade while their adapters learn, also from what a teacher's layers put out.
#pragma once

#include "adapter_set.hpp"
#include "lowrank/adapt/distillation.hpp"
#include "lowrank/adapt/pc_lora.hpp"

namespace llama {

/// Adapters whose bases count by a share that the caller lowers to 0. Features are the states behind the layers, each
/// difference measured by the teacher's own size, because those grow by orders of magnitude from the first to the last.
template <class T>
class fading_adapters : public adapter_set<lowrank::adapt::lora_adapter<T>> {
 public:
  explicit fading_adapters(config const& c) : adapter_set<lowrank::adapt::lora_adapter<T>>{c} {}

  /// Of the base in its layer.
  [[nodiscard]] double share() const noexcept { return share_; }
  void set_share(double share) {
    lowrank::require(share >= 0 && share <= 1, "llama::fading_adapters", "the share must be in [0, 1], got ", share);
    share_ = share;
  }

  /// Keeps the features of the last pass, which was the teacher's.  Requires: activations made for training.
  template <class Executor>
  void remember_teacher(Executor& exec, activations<T>& memory) {
    remember(exec, memory, teacher_);
    sizes_.clear();
    for (auto const& feature : teacher_) {
      double energy = 0;
      for (index_t e = 0; e < feature.shape().size(); ++e)
        energy += static_cast<double>(feature.data()[e]) * static_cast<double>(feature.data()[e]);
      sizes_.push_back(std::max(energy / static_cast<double>(feature.shape().size()), 1e-30));
    }
  }
  /// Keeps those of the student's pass, whose backward pass follows, and gives the feature part of the loss; that backward
  /// pass adds its gradient. What it is to be for the task, the caller scales by `how.task_weight()`.
  template <class Executor>
  [[nodiscard]] double distil(Executor& exec, activations<T>& memory, lowrank::adapt::distillation const& how) {
    how.check();
    lowrank::require<lowrank::state_error>(!teacher_.empty() && teacher_.front().shape() == memory.at(1).stream.shape(),
                                           "llama::fading_adapters",
                                           "needs the teacher's pass over the same batch first");
    remember(exec, memory, student_);
    double loss = 0;
    weights_.clear();
    for (std::size_t l = 0; l < teacher_.size(); ++l) {
      weights_.push_back(how.feature_weight(static_cast<index_t>(teacher_.size())) / sizes_[l]);
      loss += weights_.back() * lowrank::adapt::add_feature_loss<Executor, T>(exec, std::as_const(student_[l]).view(),
                                                                              std::as_const(teacher_[l]).view(), 0, {});
    }
    return loss;
  }

  // What a pass calls: see no_adapters.
  [[nodiscard]] bool scales_base() const noexcept { return share_ != 1; }
  template <class U>
  [[nodiscard]] U base_scale(role what, index_t l) const noexcept {
    return this->has(what, l) ? static_cast<U>(share_) : U{1};
  }
  template <class Executor>
  void stream_gradient(Executor& exec, index_t l, view<T> gradient) {
    if (l == 0 || weights_.empty()) return;
    auto const at = static_cast<std::size_t>(l - 1);
    lowrank::adapt::add_feature_loss<Executor, T>(exec, std::as_const(student_[at]).view(),
                                                  std::as_const(teacher_[at]).view(), weights_[at], gradient);
    if (l == 1) weights_.clear();
  }

 private:
  template <class Executor>
  static void remember(Executor& exec, activations<T>& memory, std::vector<lowrank::matrix<T>>& to) {
    for (index_t l = 1; l <= memory.config().layers; ++l) {
      auto const stream = memory.at(l).stream;
      if (static_cast<index_t>(to.size()) < l) to.emplace_back();
      auto& feature = to[static_cast<std::size_t>(l - 1)];
      if (feature.shape() != stream.shape()) feature = lowrank::matrix<T>{stream.shape()};
      copy(exec, view<T const>(stream), feature.view());
    }
  }

  double share_{1};
  std::vector<lowrank::matrix<T>> teacher_, student_;
  std::vector<double> sizes_, weights_;  ///< of each layer; weights only between a student's pass and its backward pass
};

}  // namespace llama
