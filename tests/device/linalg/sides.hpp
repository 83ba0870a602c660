// What the linear algebra computes on one side: bytes that must be the same on both, and numbers that must be close.
#pragma once

#include <limits>
#include <memory>

#include "device/machine.hpp"

namespace lowrank_test {

/// Within `tolerance` of the other side's, in units of the largest magnitude there.
struct approximate {
  std::vector<double> values;
  double tolerance;
  double unit{0};  ///< not 0: instead of that magnitude
};

struct findings {
  outcome exact;
  std::map<std::string, approximate> close;
};

struct linalg_case {
  std::string name;
  std::function<findings()> run;
};
using linalg_side = std::vector<linalg_case>;

linalg_side host_primitives();
linalg_side device_primitives();
linalg_side host_factorizations();
linalg_side device_factorizations();
linalg_side host_algorithms();
linalg_side device_algorithms();

/// What a captured graph computes, once for each of two inputs, and what the same calls compute without it.
struct replay {
  outcome captured, direct;
};
std::vector<replay> device_replays();

/// What the device primitives say to matrices that they cannot take.
std::vector<std::string> device_refusals();

enum class layout { by_rows, by_columns, inside, strided };
inline constexpr layout all_layouts[]{layout::by_rows, layout::by_columns, layout::inside, layout::strided};
inline constexpr layout product_layouts[]{layout::by_rows, layout::by_columns, layout::inside};

[[nodiscard]] inline std::string name_of(layout how) {
  char const* const names[]{"by rows", "by columns", "inside", "strided"};
  return names[static_cast<int>(how)];
}
[[nodiscard]] inline std::string name_of(lowrank::extents shape) {
  return std::to_string(shape.rows) + "x" + std::to_string(shape.cols);
}

/// A matrix in memory of one side. What lies around it is compared as well: nobody may write there.
template <class M, class T>
class placed {
 public:
  using index_t = lowrank::index_t;
  using view_type = lowrank::matrix_view<T, typename M::space>;

  /// `values` row by row.
  placed(M& m, lowrank::extents shape, layout how, std::vector<T> const& values) : shape_{shape} {
    offset_ = how == layout::inside ? shape.cols + 7 : 0;
    row_stride_ = how == layout::by_columns ? 1
                  : how == layout::inside   ? shape.cols + 5
                  : how == layout::strided  ? 6 * shape.cols + 1
                                            : shape.cols;
    col_stride_ = how == layout::by_columns ? shape.rows : how == layout::strided ? 3 : 1;
    index_t const extent =
        shape.size() == 0 ? 1 : offset_ + (shape.rows - 1) * row_stride_ + (shape.cols - 1) * col_stride_ + 4;
    std::vector<T> storage(static_cast<std::size_t>(extent));
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) storage[at(i, j)] = values[static_cast<std::size_t>(i * shape.cols + j)];
    memory_ = m.upload(storage);
  }
  placed(M& m, lowrank::extents shape, layout how = layout::by_rows)
      : placed{m, shape, how, std::vector<T>(static_cast<std::size_t>(shape.size()))} {}

  [[nodiscard]] view_type view() {
    return {memory_.data() + offset_, shape_.rows, shape_.cols, row_stride_, col_stride_};
  }
  /// All memory. Which NaN it is depends on the processor.
  void keep(M& m, findings& out, std::string const& name) {
    auto all = m.download(memory_.data(), memory_.size());
    if constexpr (std::floating_point<T>)
      for (T& x : all)
        if (std::isnan(x)) x = std::numeric_limits<T>::quiet_NaN();
    auto const* const bytes = reinterpret_cast<std::byte const*>(all.data());
    out.exact[name].assign(bytes, bytes + all.size() * sizeof(T));
  }
  /// The elements, row by row.
  [[nodiscard]] std::vector<T> elements(M& m) {
    auto const all = m.download(memory_.data(), memory_.size());
    std::vector<T> out;
    for (index_t i = 0; i < shape_.rows; ++i)
      for (index_t j = 0; j < shape_.cols; ++j) out.push_back(all[at(i, j)]);
    return out;
  }
  void keep_close(M& m, findings& out, std::string const& name, double tolerance) {
    auto const all = elements(m);
    out.close[name] = {{all.begin(), all.end()}, tolerance};
  }

 private:
  [[nodiscard]] std::size_t at(index_t i, index_t j) const {
    return static_cast<std::size_t>(offset_ + i * row_stride_ + j * col_stride_);
  }

  lowrank::extents shape_;
  index_t offset_, row_stride_, col_stride_;
  lowrank::buffer<T, typename M::space> memory_;
};

template <class M>
class linalg_cases {
 public:
  using executor = typename M::executor;
  using space = typename M::space;
  using index_t = lowrank::index_t;
  using extents = lowrank::extents;

  void add(std::string name, std::function<findings(M&)> run) {
    cases_.push_back({std::move(name), [shared = machine_, run = std::move(run)] { return run(*shared); }});
  }
  [[nodiscard]] linalg_side take() { return std::move(cases_); }

 private:
  std::shared_ptr<M> machine_ = std::make_shared<M>();
  linalg_side cases_;
};

}  // namespace lowrank_test
