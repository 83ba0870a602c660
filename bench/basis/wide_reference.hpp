/// @file
/// Subspace updates written down in fp64 as plainly as they are defined: what those of the library are held against.
#pragma once

#include <Eigen/Core>

#include "lowrank/core/rng.hpp"
#include "lowrank/interop/eigen.hpp"

namespace lowrank::bench {

/// Columns become orthonormal by Gram-Schmidt, over and over until nothing is subtracted any more; a column that has
/// nothing new becomes a random one.
inline void orthonormalize_wide(Eigen::MatrixXd& y, rng_key key) {
  key.purpose = rng_purpose::completion;
  for (Eigen::Index k = 0; k < y.cols(); ++k)
    for (int attempt = 0;; ++attempt) {
      auto const before = y.leftCols(k);
      double const length = y.col(k).norm();
      if (length > 0) y.col(k) /= length;
      Eigen::VectorXd const overlap = before.transpose() * y.col(k);
      y.col(k) -= before * overlap;
      double const left = y.col(k).norm();
      if (left > 0.9) {
        y.col(k) /= left;
        break;
      }
      if (left > 1e-12 && attempt < 8) continue;
      for (Eigen::Index i = 0; i < y.rows(); ++i)
        y(i, k) = static_cast<double>(gaussian(key, static_cast<std::uint64_t>(k * y.rows() + i)));
      attempt = 0;
    }
}

/// P <- orth(G Gᵀ P).
inline void warm_wide(matrix_view<float const> g, matrix_view<float> p, rng_key const& key) {
  Eigen::MatrixXd const wide = eigen::map(g).cast<double>();
  Eigen::MatrixXd y = wide * (wide.transpose() * eigen::map(p).cast<double>());
  orthonormalize_wide(y, key);
  eigen::map(p) = y.cast<float>();
}

/// One pass of subspace iteration on a running mean of G Gᵀ, of which only the part inside of P is remembered:
/// Y = b P L + (1 - b) G Gᵀ P,  Q = orth(Y),  L <- sym(QᵀY PᵀQ),  P <- Q.
class tracked_wide {
 public:
  /// L = Pᵀ G Gᵀ P for the first gradient.
  tracked_wide(double decay, matrix_view<float const> g, matrix_view<float const> p) : decay_{decay} {
    Eigen::MatrixXd const inner = eigen::map(p).cast<double>().transpose() * eigen::map(g).cast<double>();
    inside_ = inner * inner.transpose();
  }
  void update(matrix_view<float const> g, matrix_view<float> p, rng_key const& key) {
    Eigen::MatrixXd const wide = eigen::map(g).cast<double>(), old = eigen::map(p).cast<double>();
    Eigen::MatrixXd const y = decay_ * old * inside_ + (1 - decay_) * (wide * (wide.transpose() * old));
    Eigen::MatrixXd q = y;
    orthonormalize_wide(q, key);
    Eigen::MatrixXd const moved = (q.transpose() * y) * (old.transpose() * q);
    inside_ = (moved + moved.transpose()) / 2;
    eigen::map(p) = q.cast<float>();
  }

 private:
  double decay_;
  Eigen::MatrixXd inside_;  ///< r x r
};

}  // namespace lowrank::bench
