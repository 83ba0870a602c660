#include <doctest/doctest.h>

#include "lowrank/interop/eigen.hpp"

namespace eigen_test {

using namespace lowrank;

namespace {

using column_matrix = Eigen::MatrixXf;
using row_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class M>
M numbered(Eigen::Index rows, Eigen::Index cols) {
  M out(rows, cols);
  for (Eigen::Index i = 0; i < rows; ++i)
    for (Eigen::Index j = 0; j < cols; ++j) out(i, j) = static_cast<float>(100 * i + j);
  return out;
}

template <class M>
void check_same_elements(M&& m) {
  auto const v = eigen::view(m);
  REQUIRE(v.shape() == extents{m.rows(), m.cols()});
  for (Eigen::Index i = 0; i < m.rows(); ++i)
    for (Eigen::Index j = 0; j < m.cols(); ++j) CHECK(&v(i, j) == &m.coeffRef(i, j));
}

/// Takes what Eigen's users write in signatures.
extents shape_seen(Eigen::Ref<column_matrix const> const& m) { return eigen::view(m).shape(); }

}  // namespace

TEST_SUITE("eigen") {
  TEST_CASE_TEMPLATE("views have the elements of what they view", M, column_matrix, row_matrix) {
    auto m = numbered<M>(6, 5);
    check_same_elements(m);
    check_same_elements(m.block(1, 2, 4, 3));
    check_same_elements(m.row(2));
    check_same_elements(m.col(3));
    check_same_elements(m.transpose());
    Eigen::Map<M, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> sparse{m.data(), 2, 2, {12, 2}};
    check_same_elements(sparse);
    Eigen::Ref<M> whole{m};
    check_same_elements(whole);
    eigen::view(m)(5, 4) = -1;
    CHECK(m(5, 4) == -1);
  }

  TEST_CASE("fixed sizes, vectors, fp64 and emptiness") {
    Eigen::Matrix3f fixed = Eigen::Matrix3f::Identity();
    check_same_elements(fixed);
    Eigen::VectorXf vector = Eigen::VectorXf::LinSpaced(7, 0, 6);
    CHECK(eigen::view(vector).shape() == extents{7, 1});
    CHECK(eigen::view(vector).t().shape() == extents{1, 7});
    CHECK(eigen::view(vector).t().is_row_major());
    Eigen::MatrixXd wide(2, 3);
    check_same_elements(wide);
    column_matrix const empty(0, 4);
    CHECK(eigen::view(empty).shape() == extents{0, 4});
  }

  TEST_CASE("what is read-only stays read-only") {
    column_matrix const m = numbered<column_matrix>(3, 2);
    static_assert(std::is_same_v<decltype(eigen::view(m)), matrix_view<float const>>);
    CHECK(eigen::view(Eigen::Map<column_matrix const>{m.data(), 3, 2})(2, 1) == m(2, 1));
    CHECK(shape_seen(m) == extents{3, 2});
    static_assert(eigen::dense_storage<Eigen::Block<column_matrix>>);
    static_assert(!eigen::dense_storage<decltype(m + m)>);
  }

  TEST_CASE("a map that writes one address twice is refused") {
    column_matrix m = numbered<column_matrix>(4, 4);
    using strides = Eigen::OuterStride<>;
    Eigen::Map<column_matrix, 0, strides> folded{m.data(), 4, 2, strides{1}};
    CHECK_THROWS_AS(std::ignore = eigen::view(folded), shape_error);
  }

  TEST_CASE_TEMPLATE("views become maps of the same elements", M, column_matrix, row_matrix) {
    auto m = numbered<M>(6, 5);
    auto const v = eigen::view(m).sub({1, 5, 2, 5});
    CHECK(eigen::map(v) == m.block(1, 2, 4, 3));
    CHECK(eigen::map(v.t()) == m.block(1, 2, 4, 3).transpose());
    if (M::IsRowMajor) {
      CHECK(eigen::row_major_map(v) == m.block(1, 2, 4, 3));
      CHECK(eigen::column_major_map(v.t()) == m.block(1, 2, 4, 3).transpose());
      CHECK_THROWS_AS(std::ignore = eigen::column_major_map(v), shape_error);
    } else {
      CHECK(eigen::column_major_map(v) == m.block(1, 2, 4, 3));
      CHECK(eigen::row_major_map(v.t()) == m.block(1, 2, 4, 3).transpose());
      CHECK_THROWS_AS(std::ignore = eigen::row_major_map(v), shape_error);
    }
    eigen::map(v)(3, 2) = -7;
    CHECK(m(4, 4) == -7);
    matrix_view<float const> const read = v;
    CHECK(eigen::map(read).sum() == m.block(1, 2, 4, 3).sum());
  }
}

}  // namespace eigen_test
