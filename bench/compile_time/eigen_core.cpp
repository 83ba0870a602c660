// What a unit pays that does nothing but include Eigen's matrices.
#include <Eigen/Core>
