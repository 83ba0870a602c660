// The smaller and the larger of two, as min and max of integers and of atomics choose them.
#pragma once

namespace softgpu {

struct smaller {
  template <class T>
  T operator()(T x, T y) const {
    return y < x ? y : x;
  }
};
struct larger {
  template <class T>
  T operator()(T x, T y) const {
    return x < y ? y : x;
  }
};

}  // namespace softgpu
