// W ~ U V by the machine of either side.
#pragma once

#include <string>

#include "device/machine.hpp"
#include "lowrank/factor/truncated_svd.hpp"

namespace lowrank_test {

struct split_matrix {
  std::vector<double> energies;
  std::vector<float> u, v;
};
/// What truncated_svd makes of a row-major W, or what it says against it.
struct factor_answer {
  split_matrix split;
  std::string refusal;
};

template <class E>
[[nodiscard]] factor_answer factors_on(machine<E>& m, std::vector<float> const& values, lowrank::extents shape,
                                       lowrank::index_t r, lowrank::factor_balance balance,
                                       lowrank::output_bias bias = lowrank::output_bias::kept) {
  factor_answer out;
  auto const memory = m.upload(values);
  lowrank::const_view_of<E> const w = lowrank::row_major<typename E::space>(memory.data(), shape);
  lowrank::factor::truncated_svd const method{.balance = balance, .bias = bias};
  try {
    auto const basis = method.decompose(m.exec, w);
    auto const pair = lowrank::factors(m.exec, method, basis, w, {}, r);
    out.split = {basis.energies, m.download(pair.u.data(), pair.u.shape().size()),
                 m.download(pair.v.data(), pair.v.shape().size())};
  } catch (lowrank::error const& e) { out.refusal = e.what(); }
  return out;
}

factor_answer device_factors(std::vector<float> const& values, lowrank::extents shape, lowrank::index_t r,
                             lowrank::factor_balance balance, lowrank::output_bias bias = lowrank::output_bias::kept);

}  // namespace lowrank_test
