// Factorizations of small matrices.
#pragma once

#include "device/linalg/sides.hpp"
#include "lowrank/linalg/detail/eigen_workspace.hpp"
#include "lowrank/linalg/svd_output.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

template <class M>
class factorization_cases : public linalg_cases<M> {
 public:
  using typename linalg_cases<M>::space;
  using typename linalg_cases<M>::index_t;
  using typename linalg_cases<M>::extents;
  template <class T>
  using put = placed<M, T>;

  factorization_cases() {
    for (index_t const n : {1, 2, 5, 63, 64, 65, 130, 200}) add_cholesky(n);
    add_bad_pivots();
    for (index_t const n : {1, 2, 7, 40, 90}) add_eigen(n);
    add_eigen_of_special_values();
    for (auto const shape :
         {extents{1, 1}, extents{9, 9}, extents{40, 12}, extents{12, 40}, extents{1, 6}, extents{70, 1}})
      for (auto const how : all_layouts) add_rectangular(shape, how);
    this->add("SVD of NaN", [](M& m) {
      findings out;
      auto values = heavy_tailed(12, 1);
      values[7] = std::numeric_limits<float>::quiet_NaN();
      put<float> a{m, {4, 3}, layout::by_rows, values}, u{m, {4, 3}};
      auto const status = exact_svd(m.exec, a.view(), {.u = u.view()});
      out.close["status"] = {{double(status == lowrank::svd_status::not_finite)}, 0};
      return out;
    });
  }

 private:
  /// A positive definite matrix whose upper triangle is not to be read.
  [[nodiscard]] static std::vector<double> positive_definite(index_t n) {
    auto const a = random_matrix({n, n + 3}, 3);
    std::vector<double> out(static_cast<std::size_t>(n * n), 1e30);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j <= i; ++j) {
        double sum = i == j ? 1 : 0;
        for (index_t k = 0; k < n + 3; ++k) sum += static_cast<double>(a(i, k)) * static_cast<double>(a(j, k));
        out[static_cast<std::size_t>(i * n + j)] = sum;
      }
    return out;
  }
  static void keep_lower(M& m, findings& out, std::string const& name, put<double>& c, index_t n) {
    auto all = c.elements(m);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = i + 1; j < n; ++j) all[static_cast<std::size_t>(i * n + j)] = 0;
    out.close[name] = {all, 1e-13};
  }
  void add_cholesky(index_t n) {
    for (auto const how : {layout::by_rows, layout::inside})
      this->add("Cholesky of " + std::to_string(n) + " " + name_of(how), [=](M& m) {
        findings out;
        put<double> c{m, {n, n}, how, positive_definite(n)};
        auto const failed = m.upload(std::vector<std::int32_t>{9});
        factor_cholesky(m.exec, c.view(), const_cast<std::int32_t*>(failed.data()));
        m.keep(out.exact, "failed", failed);
        keep_lower(m, out, "factor", c, n);
        invert_lower(m.exec, c.view());
        c.keep_close(m, out, "inverse", 1e-12);
        return out;
      });
  }
  void add_bad_pivots() {
    for (index_t const bad : {0, 1, 63, 64, 99})
      for (double const value :
           {-1.0, 0.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
        this->add("Cholesky with pivot " + std::to_string(bad) + " of " + std::to_string(value), [=](M& m) {
          findings out;
          index_t const n = 100;
          auto values = positive_definite(n);
          values[static_cast<std::size_t>(bad * n + bad)] = value;
          put<double> c{m, {n, n}, layout::by_rows, values};
          auto const failed = m.upload(std::vector<std::int32_t>{9});
          factor_cholesky(m.exec, c.view(), const_cast<std::int32_t*>(failed.data()));
          m.keep(out.exact, "failed", failed);
          auto all = c.elements(m);
          double below = 0, other = 0;
          for (index_t i = bad + 1; i < n; ++i) below += std::abs(all[static_cast<std::size_t>(i * n + bad)]);
          for (index_t j = 0; j < n; ++j) other += j == bad ? 0 : all[static_cast<std::size_t>(j * n + j)];
          out.close["root"] = {{1e150 * all[static_cast<std::size_t>(bad * n + bad)], below}, 1e-12, 1};
          out.close["other pivots"] = {{other}, 1e-12};
          return out;
        });
  }

  /// Q diag(k + 1) Qᵀ times a scale.
  [[nodiscard]] static std::vector<double> symmetric(index_t n, double scale) {
    auto const q = orthonormal_columns(n, n, 4);
    std::vector<double> out(static_cast<std::size_t>(n * n));
    for (index_t k = 0; k < n; ++k)
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j)
          out[static_cast<std::size_t>(i * n + j)] += scale * q(k, i) * static_cast<double>(n / 2 - k) * q(k, j);
    return out;
  }
  void add_eigen(index_t n) {
    for (double const scale : {1.0, 1e-200, 1e200})
      this->add("eigenvectors of " + std::to_string(n) + " times " + std::to_string(std::log10(scale)), [=](M& m) {
        findings out;
        m.exec.reserve(lowrank::symmetric_eigen_bytes(n));
        auto const before = symmetric(n, scale);
        put<double> c{m, {n, n}, layout::inside, before};
        lowrank::buffer<double, space> values{n};
        auto const failed = m.upload(std::vector<std::int32_t>{9});
        symmetric_eigen(m.exec, c.view(), values.data(), const_cast<std::int32_t*>(failed.data()));
        m.keep(out.exact, "failed", failed);
        auto w = m.download(values.data(), n);
        auto const v = c.elements(m);
        double departure = 0, residual = 0;
        for (index_t a = 0; a < n; ++a)
          for (index_t b = 0; b < n; ++b) {
            double dot = a == b ? -1 : 0,
                   rest = -w[static_cast<std::size_t>(b)] / scale * v[static_cast<std::size_t>(a * n + b)];
            for (index_t i = 0; i < n; ++i) {
              dot += v[static_cast<std::size_t>(i * n + a)] * v[static_cast<std::size_t>(i * n + b)];
              rest += before[static_cast<std::size_t>(a * n + i)] / scale * v[static_cast<std::size_t>(i * n + b)];
            }
            departure = std::max(departure, std::abs(dot));
            residual = std::max(residual, std::abs(rest));
          }
        for (double& x : w) x /= scale;
        out.close["values"] = {w, 1e-13};
        out.close["departure"] = {{departure}, 1e-13, 1};
        out.close["residual"] = {{residual}, 1e-12, 1};
        return out;
      });
  }
  void add_eigen_of_special_values() {
    for (double const value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
      this->add("eigenvectors of " + std::to_string(value), [=](M& m) {
        findings out;
        m.exec.reserve(lowrank::symmetric_eigen_bytes(6));
        auto values = symmetric(6, 1);
        values[4 * 6 + 2] = value;
        put<double> c{m, {6, 6}, layout::by_rows, values};
        lowrank::buffer<double, space> w{6};
        auto const failed = m.upload(std::vector<std::int32_t>{9});
        symmetric_eigen(m.exec, c.view(), w.data(), const_cast<std::int32_t*>(failed.data()));
        m.keep(out.exact, "failed", failed);
        return out;
      });
  }

  void add_rectangular(extents shape, layout how) {
    for (float const scale : {1.0F, 1e-30F, 1e30F})
      this->add("SVD of " + name_of(shape) + " " + name_of(how) + " times " + std::to_string(std::log10(scale)),
                [=](M& m) {
                  findings out;
                  index_t const k = std::min(shape.rows, shape.cols);
                  auto const a_values = spectrum_of(shape, scale);
                  put<float> a{m, shape, how, a_values}, u{m, {shape.rows, k}, how},
                      v{m, {shape.cols, k}, layout::inside}, only{m, {shape.cols, k}};
                  lowrank::buffer<double, space> values{k}, alone{k};
                  auto const status = exact_svd(m.exec, a.view(), {u.view(), values.data(), v.view()});
                  auto const without = exact_svd(m.exec, a.view(), {.values = alone.data()});
                  auto const right = exact_svd(m.exec, a.view(), {.v = only.view()});
                  for (auto const one : {status, without, right})
                    out.close["status"].values.push_back(double(one == lowrank::svd_status::converged));
                  out.close["values"] = {m.download(values.data(), k), 5e-6};
                  out.close["values alone"] = {m.download(alone.data(), k), 5e-6};
                  u.keep_close(m, out, "u", 2e-5);
                  v.keep_close(m, out, "v", 2e-5);
                  only.keep_close(m, out, "v alone", 2e-5);
                  return out;
                });
    this->add("QR of " + name_of(shape) + " " + name_of(how), [=](M& m) {
      findings out;
      put<float> a{m, shape, how, spectrum_of(shape, 1)}, q{m, {shape.rows, std::min(shape.rows, shape.cols)}, how};
      householder_qr(m.exec, lowrank::matrix_view<float const, space>(a.view()), q.view());
      q.keep_close(m, out, "q", 2e-5);
      return out;
    });
  }
  [[nodiscard]] static std::vector<float> spectrum_of(extents shape, float scale) {
    std::vector<double> s;
    for (index_t i = 0; i < std::min(shape.rows, shape.cols); ++i)
      s.push_back(static_cast<double>(scale) * std::pow(0.8, i));
    auto const a = with_spectrum(shape, s, 21);
    return {a.data(), a.data() + shape.size()};
  }
};

}  // namespace lowrank_test
