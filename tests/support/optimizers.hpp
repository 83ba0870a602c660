// What tests of optimizers share: copies of states, gradients, bases.
#pragma once

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/basis/given.hpp"
#include "lowrank/core/visit.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

using lowrank::host_executor;

/// Everything a state names, as bytes: equal copies are equal bits.
using state_copy = std::vector<std::pair<std::string, std::vector<std::byte>>>;

template <class State>
[[nodiscard]] state_copy saved(State const& state) {
  state_copy out;
  lowrank::read_state(state, [&out](std::string_view name, auto const& value) {
    auto const bytes = lowrank::bytes_behind(value);
    out.emplace_back(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
  });
  return out;
}
template <class State>
void restore(State& state, state_copy const& from) {
  auto next = from.begin();
  visit_state(state, [&next]<class V>(std::string_view name, V&& held) {
    auto& value = lowrank::detail::without_identity(held);
    auto const bytes = lowrank::bytes_behind(value);
    if (next->first != name || next->second.size() != bytes.size())
      throw std::runtime_error{"another state: " + next->first};
    if (!bytes.empty()) std::memcpy(bytes.data(), next->second.data(), bytes.size());
    ++next;
  });
}
/// The names at which two copies differ, without those of `expected`.
[[nodiscard]] inline std::string differences(state_copy const& a, state_copy const& b,
                                             std::vector<std::string> const& expected = {}) {
  std::string out;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i] && std::find(expected.begin(), expected.end(), a[i].first) == expected.end())
      out += a[i].first + " ";
  return out;
}
/// What may change in a step that is skipped: the count of calls and the report on the refresh.
inline std::vector<std::string> const counts{"calls",
                                             "micro_batches",
                                             "bad_micro_batch",
                                             "retry",
                                             "captured",
                                             "report.call",
                                             "report.rank",
                                             "report.captured",
                                             "report.attempted",
                                             "report.accepted",
                                             "report.bad_gradient",
                                             "report.unchanged"};

/// The numbers behind one name of a state.
template <class T, class State>
[[nodiscard]] std::vector<T> values_of(State const& state, std::string_view wanted) {
  std::vector<T> out;
  for (auto const& [name, bytes] : saved(state))
    if (name == wanted) {
      out.resize(bytes.size() / sizeof(T));
      if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    }
  return out;
}

[[nodiscard]] inline matrix_view<float const> read(matrix<float> const& a) noexcept { return a.view(); }

/// The gradient of step k: no step is like another.
[[nodiscard]] inline matrix<float> gradient_of_step(extents shape, index_t k) {
  return random_matrix(shape, 1000 + static_cast<std::uint64_t>(k));
}

/// The m x m identity, whatever is asked.
[[nodiscard]] inline lowrank::basis::given identity_basis(index_t m) {
  auto const identity = std::make_shared<matrix<float>>(m, m);
  for (index_t i = 0; i < m; ++i) (*identity)(i, i) = 1.0F;
  return {{}, [identity](index_t, lowrank::side) { return matrix_view<float const>(identity->view()); }};
}
/// The columns of `p`, whatever is asked.
[[nodiscard]] inline lowrank::basis::given constant_basis(matrix<float> const& p) {
  return {{}, [&p](index_t, lowrank::side) { return read(p); }};
}

/// `what` thrown by f with an exception of type Error; "" if nothing was.
template <class Error, class F>
[[nodiscard]] std::string refusal(F&& f) {
  try {
    f();
  } catch (Error const& e) { return e.what(); }
  return "";
}

/// ‖a - b‖_max / ‖b - start‖_max: how far apart, in units of how far the weights moved.
[[nodiscard]] inline double relative_deviation(matrix<float> const& a, matrix<float> const& b,
                                               matrix<float> const& start) {
  return largest_difference(a.view(), b.view()) / largest_difference(b.view(), start.view());
}

}  // namespace lowrank_test
