// Everything that moves or sums numbers, or multiplies matrices.
#pragma once

#include <limits>

#include "device/linalg/sides.hpp"
#include "lowrank/linalg/columns.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/polar.hpp"
#include "lowrank/linalg/reductions.hpp"
#include "lowrank/optim/step_parts.hpp"

namespace lowrank_test {

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

inline std::vector<lowrank::extents> const& odd_shapes() {
  static std::vector<lowrank::extents> const shapes{{1, 1},     {1, 70},   {41, 1},  {33, 65},
                                                    {257, 129}, {7, 1030}, {600, 5}, {64, 256}};
  return shapes;
}
template <class T>
[[nodiscard]] std::vector<T> as(std::vector<float> const& from) {
  std::vector<T> out;
  for (float const x : from) out.push_back(lowrank::detail::convert_element<T>(x));
  return out;
}

// Kernel bodies have to be in functions that a kernel can name.
template <class E, class V>
void store_mean_squares(E& exec, V a, double* out) {
  row_mean_squares(exec, a, [=] LOWRANK_DEVICE(lowrank::index_t i, double mean) { out[i] = mean; });
}
template <class E, class V>
void scale_columns_by(E& exec, V a, float const* factors) {
  scale_columns(exec, a, [=] LOWRANK_DEVICE(lowrank::index_t j) { return factors[j]; });
}

template <class M>
class primitive_cases : public linalg_cases<M> {
 public:
  using typename linalg_cases<M>::space;
  using typename linalg_cases<M>::index_t;
  using typename linalg_cases<M>::extents;
  template <class T>
  using put = placed<M, T>;
  template <class T>
  using constant = lowrank::matrix_view<T const, space>;

  primitive_cases() {
    for (auto const shape : odd_shapes())
      for (auto const how : all_layouts) {
        std::string const where = ", " + name_of(shape) + " " + name_of(how);
        add_elementwise(shape, how, where);
        add_reductions(shape, how, where);
        add_columns(shape, how, where);
      }
    add_reductions({2100, 2048}, layout::by_rows, ", as many groups of rows as there may be");
    add_special_values();
    add_squares();
    add_products();
  }

 private:
  void add_elementwise(extents shape, layout how, std::string const& where) {
    auto const values = heavy_tailed(shape.size(), 3);
    for (auto const from : all_layouts)
      this->add("copy from " + name_of(from) + where, [=](M& m) {
        findings out;
        put<float> a{m, shape, from, values}, b{m, shape, how};
        copy(m.exec, a.view(), b.view());
        b.keep(m, out, "b");
        return out;
      });
    this->add("conversions" + where, [=](M& m) {
      findings out;
      put<float> a{m, shape, layout::by_rows, values}, back{m, shape, how};
      put<lowrank::bf16> narrow{m, shape, how};
      put<lowrank::fp16> half{m, shape, how};
      put<double> wide{m, shape, how};
      convert(m.exec, a.view(), narrow.view());
      convert(m.exec, a.view(), half.view());
      convert(m.exec, a.view(), wide.view());
      narrow.keep(m, out, "bf16"), half.keep(m, out, "fp16"), wide.keep(m, out, "fp64");
      convert(m.exec, half.view(), back.view());
      back.keep(m, out, "fp32 of fp16");
      convert(m.exec, wide.view(), narrow.view());
      narrow.keep(m, out, "bf16 of fp64");
      return out;
    });
    this->add("arithmetic" + where, [=](M& m) {
      findings out;
      auto with_nan = values;
      with_nan[0] = not_a_number;
      put<float> a{m, shape, layout::by_rows, heavy_tailed(shape.size(), 4)}, b{m, shape, how, values};
      put<float> c{m, shape, how, with_nan};
      auto const factors = m.upload(std::vector<float>{0.3F, -1.7F});
      scale(m.exec, 0.7F, b.view());
      b.keep(m, out, "scale");
      scale(m.exec, 0.0F, c.view());
      c.keep(m, out, "scale by 0");
      axpy(m.exec, -0.3F, a.view(), b.view());
      b.keep(m, out, "axpy");
      add_scaled(m.exec, factors.data() + 1, a.view(), b.view());
      b.keep(m, out, "add_scaled");
      combine(m.exec, factors.data(), a.view(), factors.data() + 1, b.view());
      b.keep(m, out, "combine");
      fill_identity(m.exec, b.view());
      b.keep(m, out, "identity");
      fill(m.exec, b.view(), 2.5F);
      b.keep(m, out, "fill");
      return out;
    });
    this->add("random matrices" + where, [=](M& m) {
      findings out;
      put<float> b{m, shape, how};
      put<lowrank::bf16> narrow{m, shape, how};
      lowrank::rng_key const key{.seed = 5, .step = 6, .tensor = 7};
      for (std::uint64_t const first : {std::uint64_t{0}, std::uint64_t{127}, (std::uint64_t{1} << 62) + 333}) {
        fill_rademacher(m.exec, key, b.view(), first);
        b.keep(m, out, "signs from " + std::to_string(first));
      }
      fill_rademacher(m.exec, key, narrow.view());
      narrow.keep(m, out, "bf16 signs");
      fill_gaussian(m.exec, key, b.view());
      b.keep_close(m, out, "gaussian", 2e-7);
      return out;
    });
  }
  void add_reductions(extents shape, layout how, std::string const& where) {
    auto const values = heavy_tailed(shape.size(), 5);
    this->add("sums" + where, [=](M& m) {
      findings out;
      put<float> a{m, shape, how, values}, b{m, shape, layout::by_rows, heavy_tailed(shape.size(), 6)};
      put<lowrank::bf16> narrow{m, shape, how, as<lowrank::bf16>(values)};
      lowrank::buffer<double, space> sum{3}, means{shape.rows};
      squared_norm(m.exec, constant<float>(a.view()), sum.data());
      squared_norm(m.exec, constant<lowrank::bf16>(narrow.view()), sum.data() + 2);
      store_mean_squares(m.exec, constant<float>(a.view()), means.data());
      inner_product(m.exec, constant<float>(a.view()), constant<float>(b.view()), sum.data() + 1);
      m.keep(out.exact, "sums", sum);
      m.keep(out.exact, "means", means);
      return out;
    });
  }

  void add_columns(extents shape, layout how, std::string const& where) {
    auto const values = heavy_tailed(shape.size(), 7);
    auto const count = static_cast<std::size_t>(shape.cols);
    this->add("columns" + where, [=](M& m) {
      findings out;
      put<float> y{m, shape, how, values};
      auto const factors = m.upload(heavy_tailed(shape.cols, 8));
      std::vector<double> some(count, 1.0);
      for (std::size_t j = 0; j < count; j += 3) some[j] = 0;
      auto const scales = m.upload(some);
      lowrank::buffer<std::int32_t, space> flag{1};
      lowrank::buffer<lowrank::unit_scale, space> unit{3};
      orient_columns(m.exec, y.view());
      y.keep(m, out, "oriented");
      balance_columns(m.exec, y.view(), flag.data());
      y.keep(m, out, "balanced");
      m.keep(out.exact, "nonfinite", flag);
      scale_columns_by(m.exec, y.view(), factors.data());
      y.keep(m, out, "scaled");
      replace_columns(m.exec, {.seed = 9}, 1234567, scales.data(), y.view());
      y.keep(m, out, "replaced");
      scale_to_unit(m.exec, y.view(), unit.data());
      scale(m.exec, 1000.0F, y.view());
      scale_to_unit(m.exec, y.view(), unit.data() + 1, 40);
      y.keep(m, out, "spared");
      scale(m.exec, 3e-20F, y.view());
      scale_to_unit(m.exec, y.view(), unit.data() + 2, 40);
      y.keep(m, out, "to unit");
      m.keep(out.exact, "exponents", reinterpret_cast<std::int32_t const*>(unit.data()), 9);
      return out;
    });
  }

  /// Zero columns, ties, negative zeros, subnormals, NaN and infinities.
  void add_special_values() {
    extents const shape{5, 12};
    float const subnormal = 1e-42F, largest = std::numeric_limits<float>::max();
    std::vector<float> const values{0,         -0.0F,     1,      -1, 2, subnormal,  largest,  not_a_number,
                                    infinity,  -infinity, 1e-30F, 3,  //
                                    0,         -0.0F,     -1,     1,  2, -subnormal, -largest, 1,
                                    1,         1,         2e-30F, -3,  //
                                    0,         0,         1,      1,  2, subnormal,  largest,  -3,
                                    -infinity, 2,         0,      3,  //
                                    0,         0,         -1,     -1, 2, 0,          0,        2,
                                    5,         3,         0,      -7,  //
                                    -0.0F,     0,         1,      1,  2, 0,          1,        1,
                                    1,         4,         0,      7};
    for (auto const how : all_layouts)
      this->add("special values " + name_of(how), [=](M& m) {
        findings out;
        put<float> y{m, shape, how, values};
        lowrank::buffer<std::int32_t, space> flag{1};
        lowrank::buffer<lowrank::unit_scale, space> unit{1};
        lowrank::buffer<double, space> sum{1};
        auto const finite = y.view().col_range(0, 6);
        squared_norm(m.exec, constant<float>(y.view().col_range(0, 7)), sum.data());
        m.keep(out.exact, "norm", sum);
        orient_columns(m.exec, y.view());
        y.keep(m, out, "oriented");
        balance_columns(m.exec, finite, flag.data());
        m.keep(out.exact, "all finite", flag);
        balance_columns(m.exec, y.view(), flag.data());
        m.keep(out.exact, "not finite", flag);
        y.keep(m, out, "balanced");
        scale_to_unit(m.exec, y.view().col_range(0, 2), unit.data());
        m.keep(out.exact, "zero", reinterpret_cast<std::int32_t const*>(unit.data()), 3);
        scale_to_unit(m.exec, y.view().col_range(7, 8), unit.data());
        m.keep(out.exact, "with NaN", reinterpret_cast<std::int32_t const*>(unit.data()), 3);
        return out;
      });
  }

  void add_squares() {
    for (index_t const n : {1, 2, 31, 64, 100, 257})
      this->add("fp64 squares of " + std::to_string(n), [=](M& m) {
        findings out;
        auto const shape = extents{n, n};
        put<double> c{m, shape, layout::by_rows, as<double>(heavy_tailed(n * n, 11))};
        put<float> w{m, shape, layout::by_columns}, v{m, shape};
        lowrank::buffer<double, space> scales{n}, departure{1};
        lowrank::buffer<lowrank::gram_condition, space> condition{1};
        lowrank::buffer<lowrank::unit_scale, space> unit{1};
        narrow_symmetric(m.exec, c.view(), v.view(), unit.data());
        v.keep(m, out, "narrow");
        m.keep(out.exact, "exponent", reinterpret_cast<std::int32_t const*>(unit.data()), 3);
        newton_schulz_factor(m.exec, c.view(), v.view(), departure.data());
        v.keep(m, out, "Newton-Schulz");
        keep_close(m, out, "departure", departure.data(), 1);
        unit_scales(m.exec, c.view(), scales.data(), 0.5);
        m.keep(out.exact, "scales", scales);
        scale_gram(m.exec, c.view(), scales.data(), 1e-15, condition.data());
        keep_condition(m, out, "scaled", condition);
        first_order_inverse(m.exec, c.view(), scales.data(), w.view());
        w.keep(m, out, "first order");
        narrow_inverse(m.exec, c.view(), scales.data(), v.view());
        v.keep(m, out, "inverse");
        drop_dependent(m.exec, c.view(), 2.0, scales.data(), condition.data());
        m.keep(out.exact, "scales left", scales);
        keep_condition(m, out, "dropped", condition);
        c.keep(m, out, "c");
        return out;
      });
  }
  static void keep_close(M& m, findings& out, std::string const& name, double const* data, index_t size) {
    out.close[name] = {m.download(data, size), 1e-13};
  }
  static void keep_condition(M& m, findings& out, std::string const& name,
                             lowrank::buffer<lowrank::gram_condition, space> const& condition) {
    auto const seen = m.download(condition.data(), 1).front();
    out.close[name] = {{seen.departure, double(seen.dead), double(seen.dropped), seen.weakest}, 1e-13};
  }

  void add_products() {
    struct sizes {
      index_t m, k, n;
    };
    for (auto const size : {sizes{1, 1, 1}, sizes{5, 1, 9}, sizes{1, 40, 1}, sizes{33, 65, 17}, sizes{4, 0, 6},
                            sizes{0, 3, 2}, sizes{130, 70, 1}})
      for (auto const of_a : product_layouts)
        for (auto const of_b : product_layouts)
          for (auto const of_c : product_layouts) {
            auto const name = name_of(extents{size.m, size.k}) + " " + name_of(of_a) + " times " + name_of(of_b) +
                              " into " + std::to_string(size.n) + " columns " + name_of(of_c);
            this->add(name, [=](M& m) { return run_product(m, size.m, size.k, size.n, of_a, of_b, of_c); });
          }
    for (auto const how : product_layouts)
      for (auto const shape : {extents{1, 1}, extents{70, 33}, extents{5, 9}, extents{0, 3}, extents{33000, 65}})
        this->add("Gram of " + name_of(shape) + " " + name_of(how), [=](M& m) {
          findings out;
          put<float> y{m, shape, how, heavy_tailed(shape.size(), 12)};
          put<double> c{m,
                        {shape.cols, shape.cols},
                        layout::inside,
                        std::vector<double>(static_cast<std::size_t>(shape.cols * shape.cols), 1e300)};
          gram(m.exec, constant<float>(y.view()), c.view());
          c.keep_close(m, out, "wide", 1e-13);
          gram_mixed(m.exec, constant<float>(y.view()), c.view());
          c.keep_close(m, out, "mixed", 1e-5);
          return out;
        });
  }
  [[nodiscard]] static findings run_product(M& m, index_t rows, index_t depth, index_t cols, layout of_a, layout of_b,
                                            layout of_c) {
    findings out;
    extents const left{rows, depth}, right{depth, cols}, shape{rows, cols};
    auto const a_values = heavy_tailed(left.size(), 13), b_values = heavy_tailed(right.size(), 14),
               c_values = heavy_tailed(shape.size(), 15);
    std::vector<float> const nothing(c_values.size(), not_a_number);
    put<float> a{m, left, of_a, a_values}, b{m, right, of_b, b_values}, c{m, shape, of_c, c_values},
        d{m, shape, of_c, nothing};
    put<double> wide_a{m, left, of_a, as<double>(a_values)}, wide_b{m, right, of_b, as<double>(b_values)},
        wide_c{m, shape, of_c, as<double>(c_values)};
    multiply(m.exec, 1.5F, constant<float>(a.view()), constant<float>(b.view()), -0.5F, c.view());
    c.keep_close(m, out, "c", 1e-5);
    multiply(m.exec, 1.0F, constant<float>(a.view()), constant<float>(b.view()), 0.0F, d.view());
    d.keep_close(m, out, "over NaN", 1e-5);
    multiply(m.exec, 1.5, constant<double>(wide_a.view()), constant<double>(wide_b.view()), -0.5, wide_c.view());
    wide_c.keep_close(m, out, "wide", 1e-14);
    multiply(m.exec, 0.0F, constant<float>(a.view()), constant<float>(b.view()), 2.0F, c.view());
    c.keep_close(m, out, "alpha 0", 1e-5);
    auto const factors = m.upload(std::vector<float>{0.25F, 0.75F, 0.0F});
    multiply_by_pointers(m, factors.data(), a.view(), b.view(), factors.data() + 1, c.view());
    c.keep_close(m, out, "factors in memory", 1e-5);
    multiply_by_pointers(m, factors.data(), a.view(), b.view(), factors.data() + 2, d.view());
    d.keep_close(m, out, "beta 0 in memory", 1e-5);
    multiply_narrow<lowrank::bf16>(m, a_values, left, of_a, b_values, right, of_b, c);
    c.keep_close(m, out, "bf16", 1e-5);
    multiply_narrow<lowrank::fp16>(m, a_values, left, of_a, b_values, right, of_b, c);
    c.keep_close(m, out, "fp16", 1e-5);
    multiply_gradient<lowrank::bf16>(m, a_values, left, of_a, b.view(), c);
    c.keep_close(m, out, "a gradient in bf16", 1e-5);
    multiply_gradient<lowrank::fp16>(m, a_values, left, of_a, b.view(), c);
    c.keep_close(m, out, "a gradient in fp16", 1e-5);
    return out;
  }
  /// C = G B - C / 2 with G in 16 bits and B in fp32.
  template <class T>
  static void multiply_gradient(M& m, std::vector<float> const& g, extents shape, layout how, constant<float> b,
                                put<float>& c) {
    put<T> narrow{m, shape, how, as<T>(g)};
    m.exec.reserve(lowrank::gradient_product_bytes(lowrank::narrow_gradient, b.cols));
    multiply(m.exec, 1.0F, constant<T>(narrow.view()), b, -0.5F, c.view());
  }
  /// C = A B - C / 2 of operands rounded to T. The host has no products of these, but their fp32 values.
  template <class T>
  static void multiply_narrow(M& m, std::vector<float> const& a, extents left, layout of_a, std::vector<float> const& b,
                              extents right, layout of_b, put<float>& c) {
    auto const run = [&]<class Operand>(std::type_identity<Operand>) {
      put<Operand> x{m, left, of_a, as<Operand>(as_floats(as<T>(a)))},
          y{m, right, of_b, as<Operand>(as_floats(as<T>(b)))};
      multiply(m.exec, 1.0F, constant<Operand>(x.view()), constant<Operand>(y.view()), -0.5F, c.view());
    };
    if constexpr (std::same_as<space, lowrank::host_space>) run(std::type_identity<float>{});
    else run(std::type_identity<T>{});
  }
  template <class T>
  [[nodiscard]] static std::vector<float> as_floats(std::vector<T> const& from) {
    std::vector<float> out;
    for (T const x : from) out.push_back(lowrank::to_float(x));
    return out;
  }
  static void multiply_by_pointers(M& m, float const* alpha, constant<float> a, constant<float> b, float const* beta,
                                   lowrank::matrix_view<float, space> c) {
    if constexpr (std::same_as<space, lowrank::host_space>) multiply(m.exec, *alpha, a, b, *beta, c);
    else multiply(m.exec, alpha, a, b, beta, c);
  }
};

}  // namespace lowrank_test
