// The algorithms, which are the same code on both sides: orthonormal columns, and as much captured as on the host.
#pragma once

#include <optional>

#include "device/linalg/sides.hpp"
#include "lowrank/linalg/adaptive_range.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/householder.hpp"
#include "lowrank/linalg/polar.hpp"
#include "lowrank/linalg/randomized_svd.hpp"
#include "lowrank/linalg/sketch_range.hpp"
#include "lowrank/linalg/sketched_cholesky.hpp"
#include "lowrank/linalg/tracked_range.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

/// Whether a device tells the algorithm what its memory holds.
enum class sight { looking, blind };

template <class M>
class algorithm_cases : public linalg_cases<M> {
 public:
  using typename linalg_cases<M>::executor;
  using typename linalg_cases<M>::space;
  using typename linalg_cases<M>::index_t;
  using typename linalg_cases<M>::extents;
  using constant = lowrank::matrix_view<float const, space>;
  using put = placed<M, float>;

  algorithm_cases() {
    for (auto const how : {sight::looking, sight::blind}) {
      add_orthonormalizer(how, "Cholesky passes", lowrank::orthonormal::cholesky{});
      add_orthonormalizer(how, "sketched Cholesky", lowrank::orthonormal::sketched_cholesky{});
      add_orthonormalizer(how, "polar factor", lowrank::orthonormal::polar{});
      add_orthonormalizer(how, "Householder", lowrank::orthonormal::householder{});
      add_ranges(how);
    }
  }

 private:
  using scope = std::optional<lowrank::look_scope<executor>>;
  static constexpr double rounding = 20 * eps;

  void add_seen(sight how, std::string const& name, std::function<findings(M&)> const& run) {
    this->add(name + (how == sight::looking ? "" : ", blind"), [=](M& m) {
      m.exec.reserve(index_t{16} << 20);
      scope look;
      if (how == sight::looking) look.emplace(m.exec);
      return run(m);
    });
  }
  [[nodiscard]] static lowrank::matrix<float> host_matrix(std::vector<float> const& values, extents shape) {
    lowrank::matrix<float> out{shape};
    std::copy(values.begin(), values.end(), out.data());
    return out;
  }

  template <class Policy>
  void add_orthonormalizer(sight how, std::string const& name, Policy const& policy) {
    extents const shape{150, 20};
    for (auto const& one : hard_cases(shape.rows, shape.cols)) {
      std::vector<float> const values(one.y.data(), one.y.data() + shape.size());
      for (auto const where : {layout::by_rows, layout::by_columns})
        add_seen(how, name + " of " + one.name + " " + name_of(where), [=](M& m) {
          findings out;
          put y{m, shape, where, values};
          auto const report = m.upload(std::vector<lowrank::orthonormal_report>(1));
          policy(m.exec, y.view(), {.seed = 3}, const_cast<lowrank::orthonormal_report*>(report.data()));
          auto const seen = m.download(report.data(), 1).front();
          auto const q = host_matrix(y.elements(m), shape);
          out.close["failed"] = {{double(seen.failed)}, 0, 1};
          out.close["departure"] = {{departure_from_orthonormal(q.view())}, rounding * 4, 1};
          return out;
        });
    }
    if (how == sight::looking)
      add_seen(how, name + " of NaN", [=](M& m) {
        findings out;
        auto values = heavy_tailed(shape.size(), 1);
        values[77] = std::numeric_limits<float>::quiet_NaN();
        put y{m, shape, layout::by_rows, values};
        auto const report = m.upload(std::vector<lowrank::orthonormal_report>(1));
        policy(m.exec, y.view(), {.seed = 3}, const_cast<lowrank::orthonormal_report*>(report.data()));
        out.close["failed"] = {{double(m.download(report.data(), 1).front().failed != 0)}, 0, 1};
        return out;
      });
  }

  /// How good a basis is: orthonormal, and what share of the energy it captures, within `loss`.
  static void judge(M& m, findings& out, std::string const& name, put& q, extents shape,
                    lowrank::matrix<float> const& g, double loss) {
    auto const basis = host_matrix(q.elements(m), shape);
    out.close[name + ": departure"] = {{departure_from_orthonormal(basis.view())}, rounding * 4, 1};
    out.close[name + ": captured"] = {{captured_energy(basis.view(), g.view())}, loss};
  }

  void add_ranges(sight how) {
    extents const shape{96, 70};
    index_t const r = 12;
    struct spectrum {
      std::string name;
      std::vector<double> values;
      double loss;
    };
    for (auto const& one :
         {spectrum{"a steep spectrum", geometric(70, 1e9), 1e-5}, spectrum{"a flat spectrum", power_law(70, 0.4), 2e-2},
          spectrum{"rank 5", power_law(5, 0.3), 1e-6}, spectrum{"1e-15", {1e-15, 1e-16, 1e-17}, 1e-5}}) {
      auto const g = with_spectrum(shape, one.values, 8);
      std::vector<float> const values(g.data(), g.data() + shape.size());
      for (auto const where : {layout::by_rows, layout::by_columns})
        add_seen(how, "ranges of " + one.name + " " + name_of(where),
                 [=, loss = one.loss](M& m) { return run_ranges(m, values, shape, r, where, loss); });
    }
    add_seen(how, "ranges of a factored gradient", [=](M& m) {
      findings out;
      index_t const tokens = 40;
      auto const dy = random_matrix({tokens, shape.rows}, 1), x = random_matrix({tokens, shape.cols}, 2);
      put left{m, {tokens, shape.rows}, layout::by_rows, {dy.data(), dy.data() + dy.shape().size()}};
      put right{m, {tokens, shape.cols}, layout::by_rows, {x.data(), x.data() + x.shape().size()}};
      lowrank::outer_product<space> const g{left.view(), right.view()};
      auto const product = plain_product(dy.view().t(), x.view());
      std::vector<float> const values(product.data(), product.data() + shape.size());
      auto const formed = host_matrix(values, shape);
      put q{m, {shape.rows, r}};
      lowrank::buffer<double, space> norms{2};
      lowrank::find_range(m.exec, g, q.view(), {.power_iterations = 2}, {.seed = 4});
      judge(m, out, "find_range", q, {shape.rows, r}, formed, 3e-2);
      lowrank::find_range_by_gram(m.exec, g, q.view(), {}, {.seed = 4});
      judge(m, out, "find_range_by_gram", q, {shape.rows, r}, formed, 1e-5);
      squared_norm(m.exec, g, norms.data());
      lowrank::energy_bound(m.exec, g, norms.data() + 1);
      out.close["norms"] = {m.download(norms.data(), 2), 1e-6};
      return out;
    });
    add_seen(how, "range of NaN", [=](M& m) {
      findings out;
      auto values = heavy_tailed(shape.size(), 1);
      values[500] = std::numeric_limits<float>::quiet_NaN();
      put g{m, shape, layout::by_rows, values}, q{m, {shape.rows, r}}, p{m, {shape.rows, r}};
      fill_identity(m.exec, p.view());
      auto const report = m.upload(std::vector<lowrank::range_report>(2));
      auto* const seen = const_cast<lowrank::range_report*>(report.data());
      lowrank::find_range(m.exec, constant(g.view()), q.view(), {}, {.seed = 4}, seen);
      lowrank::warm_range(m.exec, constant(g.view()), constant(p.view()), q.view(), {}, {.seed = 4}, seen + 1);
      for (auto const& each : m.download(report.data(), 2))
        out.close["failed"].values.push_back(double(each.failed != 0));
      return out;
    });
  }
  [[nodiscard]] static findings run_ranges(M& m, std::vector<float> const& values, extents shape, index_t r,
                                           layout where, double loss) {
    using namespace lowrank;
    findings out;
    auto const formed = host_matrix(values, shape);
    extents const basis{shape.rows, r};
    put g{m, shape, where, values}, q{m, basis, where}, p{m, basis}, v{m, {shape.cols, r}, where};
    constant const gradient = g.view();
    buffer<double, space> energies{r};
    auto const fresh = m.upload(std::vector<range_report>(1));
    auto* const report = const_cast<range_report*>(fresh.data());
    rng_key const key{.seed = 4};
    auto const judged = [&](std::string const& name, put& found, double allowed) {
      out.close[name + ": failed"] = {{double(m.download(report, 1).front().failed)}, 0, 1};
      judge(m, out, name, found, basis, formed, allowed);
    };

    find_range(m.exec, gradient, q.view(), {.power_iterations = 2}, key, report, energies.data());
    judged("find_range", q, loss);
    out.close["energies"] = {m.download(energies.data(), r), loss};
    find_range(m.exec, gradient, q.view(), {.sketch = sketch_kind::gaussian, .space = search_space::every_block}, key,
               report);
    judged("block Krylov", q, loss);
    find_range_by_gram(m.exec, gradient, q.view(), {}, key, report);
    judged("by Gram, eigenvectors", q, loss);
    find_range_by_gram(m.exec, gradient, q.view(), {.solver = gram_solver::subspace}, key, report);
    judged("by Gram, subspace", q, loss);
    sketch_range(m.exec, gradient, p.view(), key, report);
    judged("sketch_range", p, 20 * loss);
    warm_range(m.exec, gradient, constant(p.view()), q.view(), {.fresh = 4, .passes = 2}, key, report);
    judged("warm_range, fresh columns", q, 2 * loss);
    warm_range(m.exec, gradient, constant(p.view()), q.view(),
               {.order = column_order::by_energy, .align = alignment::nearest_frame}, key, report);
    judged("warm_range, nearest frame", q, 4 * loss);
    warm_range(m.exec, gradient, constant(p.view()), q.view(), {.align = alignment::signs, .retained = 1e-4F}, key,
               report);
    judged("warm_range, signs", q, 4 * loss);
    warm_range(m.exec, gradient, constant(p.view()), q.view(), {.between = between_products::shift, .again = 2}, key,
               report);
    judged("warm_range, shifted", q, 4 * loss);
    randomized_svd(m.exec, gradient, r, {q.view(), energies.data(), v.view()}, {.power_iterations = 2}, key, report);
    judged("randomized_svd", q, loss);
    out.close["singular values"] = {m.download(energies.data(), r), loss};

    auto const adaptive = m.upload(std::vector<adaptive_report>(1));
    put wide{m, {shape.rows, 70}};
    find_adaptive_range(m.exec, gradient, wide.view(), {.tolerance = 0.2, .block = 4}, key,
                        const_cast<adaptive_report*>(adaptive.data()));
    auto const seen = m.download(adaptive.data(), 1).front();
    out.close["adaptive rank"] = {{double(seen.rank)}, 3, 1};  // who cannot look searches more than it needs
    out.close["adaptive energy"] = {{seen.energy}, 1e-12};
    out.close["adaptive reached"] = {{double(seen.reached)}, 0, 1};

    put mean{m, {r, r}}, next{m, {r, r}};
    auto const exponents = m.upload(std::vector<std::int64_t>(2));
    auto* const exponent = const_cast<std::int64_t*>(exponents.data());
    tracked_range(m.exec, gradient, constant(p.view()), {mean.view(), exponent}, q.view(), {next.view(), exponent + 1},
                  {}, key, report);
    judged("tracked_range", q, 4 * loss);
    out.close["tracked exponent"] = {{double(m.download(exponents.data(), 2)[1])}, 0, 1};
    return out;
  }
};

}  // namespace lowrank_test
