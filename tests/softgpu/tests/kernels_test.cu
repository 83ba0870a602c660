// What nvcc makes of C++: double precision and its slow paths, wide integers, calls, local arrays, tables of branches,
// halves, atomics, asynchronous copies. Compared with the host; everything here holds on a real GPU as well.
#include <doctest/doctest.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "softgpu/softgpu.hpp"

using namespace softgpu;

namespace {

/// A device copy for the length of a scope.
template <class T>
class on_device {
 public:
  explicit on_device(std::vector<T> const& values) : count_(values.size()) {
    cudaMalloc(reinterpret_cast<void**>(&data_), count_ * sizeof(T));
    cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  explicit on_device(std::size_t count) : on_device(std::vector<T>(count)) {}
  on_device(on_device const&) = delete;
  on_device& operator=(on_device const&) = delete;
  ~on_device() { cudaFree(data_); }

  operator T*() const { return data_; }
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> copy(count_);
    CHECK(cudaMemcpy(copy.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return copy;
  }

 private:
  std::size_t count_;
  T* data_ = nullptr;
};

constexpr int n = 1000, threads = 128, blocks = (n + threads - 1) / threads;

__device__ int thread() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

std::vector<std::uint64_t> random_words(std::size_t count) {
  std::vector<std::uint64_t> words(count);
  std::uint64_t state = 88172645463325252U;
  for (auto& w : words) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    w = state;
  }
  return words;
}

// ---- double

constexpr int functions = 16;
__host__ __device__ void all_functions(double v, double* y) {
  double const a = fabs(v);
  y[0] = fma(v, v, 1.0);
  y[1] = sqrt(a);
  y[2] = 1 / v;
  y[3] = v / 3.7;
  y[4] = pow(a, 1.7);
  y[5] = log(a);
  y[6] = exp(v);
  y[7] = sin(v * 1e5);
  y[8] = cos(v * 1e300);  // the long way of reducing an argument: a call
  y[9] = tanh(v);
  y[10] = erf(v);
  y[11] = cbrt(v);
  y[12] = log1p(a) + expm1(v);
  y[13] = fmod(v, 0.3);
  y[14] = floor(v) + ceil(v * 3) + rint(v * 7) + trunc(v * 9);
  y[15] = static_cast<double>(static_cast<long long>(v * 1e15)) + static_cast<double>(static_cast<unsigned>(a));
}
__global__ void functions_of(double const* x, double* y) {
  if (thread() < n) all_functions(x[thread()], y + functions * thread());
}

// ---- integers

__global__ void wide_integers(std::uint64_t const* x, std::uint64_t* y) {
  int const i = thread();
  if (i >= n) return;
  std::uint64_t const a = x[i], b = x[(i * 7 + 1) % n];
  y += 8 * i;
  y[0] = a * b;
  y[1] = __umul64hi(a, b);
  y[2] = __umulhi(static_cast<unsigned>(a), static_cast<unsigned>(b));
  y[3] = a / (b >> 40 | 1);
  y[4] = a % (b >> 20 | 1);
  y[5] = static_cast<std::uint64_t>(static_cast<std::int64_t>(a) / static_cast<std::int64_t>(b >> 30 | 1));
  unsigned __int128 const product =
      static_cast<unsigned __int128>(a) * b + (static_cast<unsigned __int128>(b) << 64 | a);
  y[6] = static_cast<std::uint64_t>(product >> 64);
  y[7] = static_cast<std::uint64_t>(__popcll(a) + __clzll(static_cast<long long>(b)) +
                                    __ffsll(static_cast<long long>(a))) +
         __brev(static_cast<unsigned>(a)) + __funnelshift_l(static_cast<unsigned>(a), static_cast<unsigned>(b), 7);
}
__global__ void choices(int const* x, int* y) {
  int const i = thread();
  if (i >= n) return;
  int const v = x[i];
  int r = 1;
  switch (v & 15) {
    case 0:
      r = v * 3;
      break;
    case 1:
      r = v + 17;
      break;
    case 2:
      r = v ^ 99;
      break;
    case 3:
      r = v * 8;
      break;
    case 4:
      r = v / 3;
      break;
    case 5:
      r = v % 11;
      break;
    case 6:
      r = -v;
      break;
    case 7:
      r = v | 5;
      break;
    case 8:
      r = ~v;
      break;
    case 9:
      r = v * v;
      break;
    case 10:
      r = v - 1000;
      break;
    case 11:
      r = v >> 2;
      break;
    default:
      break;
  }
  y[i] = r;
}
int chosen(int v) {
  int const r[] = {v * 3, v + 17, v ^ 99, v * 8, v / 3, v % 11, -v, v | 5, ~v, v * v, v - 1000, v >> 2, 1, 1, 1, 1};
  return r[v & 15];
}

// ---- calls and local memory

__noinline__ __device__ int sum_below(int limit, int step) {
  int sum = 0;
  for (int k = 0; k < limit; ++k) sum += k * step;
  return sum;
}
__noinline__ __device__ int2 both(int2 a, int const* x) { return {a.x + x[0], sum_below(a.y & 7, x[1])}; }
__global__ void calls(int const* x, int* y) {
  int const i = thread();
  if (i >= n) return;
  int r = sum_below(i % 7, x[i]);
  if (i % 2 == 1) r += sum_below(r & 15, 3);
  int2 const q = both({r, i}, x + i % 3);
  y[i] = q.x + q.y;
  if (i == 5) printf("a printed line may be dropped\n");
}
__global__ void sorted_neighbours(int const* x, int* y) {
  int const i = thread();
  if (i >= n) return;
  int a[16];
  for (int k = 0; k < 16; ++k) a[k] = x[(i + k) % n];
  for (int k = 1; k < 16; ++k)
    for (int j = k; j > 0 && a[j - 1] > a[j]; --j) {
      int const t = a[j];
      a[j] = a[j - 1];
      a[j - 1] = t;
    }
  y[i] = a[i % 16];
}

// ---- blocks

__global__ void product(float const* a, float const* b, float* c, int size) {
  __shared__ float s[16][17], t[16][17];
  int const x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  int const row = static_cast<int>(blockIdx.y) * 16 + y, col = static_cast<int>(blockIdx.x) * 16 + x;
  float r = 0;
  for (int k = 0; k < size; k += 16) {
    s[y][x] = a[row * size + k + x];
    t[y][x] = b[(k + y) * size + col];
    __syncthreads();
    for (int q = 0; q < 16; ++q) r += s[y][q] * t[q][x];
    __syncthreads();
  }
  c[row * size + col] = r;
}
/// The last block to come adds up what the others left.
__global__ void sum_in_one_launch(float const* x, float* partial, unsigned* ticket, float* y, int count) {
  __shared__ float s[threads];
  __shared__ bool last;
  float v = 0;
  for (int i = thread(); i < count; i += static_cast<int>(gridDim.x * blockDim.x)) v += x[i];
  s[threadIdx.x] = v;
  __syncthreads();
  for (unsigned o = threads / 2; o > 0; o /= 2) {
    if (threadIdx.x < o) s[threadIdx.x] += s[threadIdx.x + o];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = s[0];
    __threadfence();
    last = atomicAdd(ticket, 1U) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];
  *y = sum;
  *ticket = 0;
}
__global__ void atomics(int* i, unsigned* u, float* f, double* d, unsigned long long* l) {
  int const k = thread();
  if (k >= n) return;
  atomicAdd(i, k);
  atomicMax(i + 1, k);
  atomicMin(i + 2, -k);
  atomicXor(i + 3, k);
  atomicAnd(i + 4, ~(1 << (k % 20)));
  atomicOr(i + 5, 1 << (k % 30));
  atomicInc(u, 100U);
  atomicDec(u + 1, 50U);
  atomicExch(u + 2, 7U);
  atomicCAS(u + 3, 0U, 9U);
  atomicAdd(f, 0.5F);
  atomicAdd(d, 0.25);
  atomicAdd(l, static_cast<unsigned long long>(k) * 1000000007ULL);
}
__global__ void copy_ahead(float4 const* x, float4* y) {
  __shared__ float4 s[2][threads];
  unsigned const t = threadIdx.x;
  for (unsigned k = 0; k < 2; ++k) {
    __pipeline_memcpy_async(&s[k][t], x + (blockIdx.x * 2 + k) * threads + t, 16);
    __pipeline_commit();
  }
  __pipeline_wait_prior(1);
  __syncthreads();
  float4 a = s[0][threads - 1 - t];
  __pipeline_wait_prior(0);
  __syncthreads();
  a.x += s[1][(t + 1) % threads].y;
  y[blockIdx.x * threads + t] = a;
}

// ---- halves

/// Sums, products and comparisons that are exact, so that host and device have nothing to differ by but mistakes.
template <class Pair>
__global__ void pairs(Pair const* a, Pair const* b, Pair* y) {
  int const i = thread();
  if (i >= n) return;
  Pair const x = a[i], z = b[i];
  Pair const r = __hfma2(x, z, __hsub2(__hmul2(x, x), __hneg2(z)));
  y[i] = __hmax2(__hadd2(r, __habs2(z)), __hmin2(x, z));
}

}  // namespace

TEST_CASE("double precision and its functions") {
  std::vector<double> x(n);
  for (int i = 0; i < n; ++i) x[static_cast<std::size_t>(i)] = (i % 2 == 0 ? 1 : -1) * (0.01 + i * 0.0123);
  on_device<double> const on(x), out(static_cast<std::size_t>(n * functions));
  functions_of<<<blocks, threads>>>(on, out);
  auto const got = out.values();
  double worst[functions] = {};
  for (std::size_t i = 0; i < n; ++i) {
    double wanted[functions];
    all_functions(x[i], wanted);
    for (std::size_t k = 0; k < functions; ++k)
      worst[k] =
          std::max(worst[k], std::fabs(got[functions * i + k] - wanted[k]) / std::max(std::fabs(wanted[k]), 1e-9));
  }
  for (int k = 0; k < functions; ++k) {
    CAPTURE(k);
    CHECK(worst[k] <= (k < 4 || k > 12 ? 0 : k == 12 ? 1e-12 : 1e-14));  // 12 cancels
  }
}
TEST_CASE("integers of 64 and 128 bits") {
  auto const x = random_words(n);
  on_device<std::uint64_t> const on(x), out(std::size_t{8} * n);
  wide_integers<<<blocks, threads>>>(on, out);
  auto const got = out.values();
  int wrong = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t const a = x[i], b = x[(i * 7 + 1) % n];
    std::uint32_t const low = static_cast<std::uint32_t>(a), other = static_cast<std::uint32_t>(b);
    unsigned __int128 const p = static_cast<unsigned __int128>(a) * b;
    std::uint32_t reversed = 0;
    for (int k = 0; k < 32; ++k) reversed |= (low >> k & 1U) << (31 - k);
    std::uint64_t const wanted[] = {
        a * b,
        static_cast<std::uint64_t>(p >> 64),
        std::uint64_t{low} * other >> 32,
        a / (b >> 40 | 1),
        a % (b >> 20 | 1),
        static_cast<std::uint64_t>(static_cast<std::int64_t>(a) / static_cast<std::int64_t>(b >> 30 | 1)),
        static_cast<std::uint64_t>((p + (static_cast<unsigned __int128>(b) << 64 | a)) >> 64),
        static_cast<std::uint64_t>(__builtin_popcountll(a) + __builtin_clzll(b) +
                                   __builtin_ffsll(static_cast<long long>(a))) +
            static_cast<std::uint32_t>(reversed + (other << 7 | low >> 25))};
    for (std::size_t k = 0; k < 8; ++k) {
      std::uint64_t const mine = got[8 * i + k];
      wrong += k == 7 ? static_cast<std::uint32_t>(mine) != static_cast<std::uint32_t>(wanted[k]) : mine != wanted[k];
    }
  }
  CHECK(wrong == 0);
}
TEST_CASE("switches, calls, local arrays") {
  std::vector<int> x(n);
  for (int i = 0; i < n; ++i) x[static_cast<std::size_t>(i)] = (i * 7919) % 1009 - 300;
  on_device<int> const on(x), out(std::size_t{n});
  choices<<<blocks, threads>>>(on, out);
  auto got = out.values();
  int wrong = 0;
  for (std::size_t i = 0; i < n; ++i) wrong += got[i] != chosen(x[i]);
  CHECK(wrong == 0);

  calls<<<blocks, threads>>>(on, out);
  got = out.values();
  auto const sum = [](int limit, int step) { return limit * (limit - 1) / 2 * step; };
  wrong = 0;
  for (std::size_t i = 0; i < n; ++i) {
    int const k = static_cast<int>(i);
    int r = sum(k % 7, x[i]);
    if (k % 2 == 1) r += sum(r & 15, 3);
    wrong += got[i] != r + x[i % 3] + sum(k & 7, x[i % 3 + 1]);
  }
  CHECK(wrong == 0);

  sorted_neighbours<<<blocks, threads>>>(on, out);
  got = out.values();
  wrong = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<int> a;
    for (std::size_t k = 0; k < 16; ++k) a.push_back(x[(i + k) % n]);
    std::sort(a.begin(), a.end());
    wrong += got[i] != a[i % 16];
  }
  CHECK(wrong == 0);
}
TEST_CASE("tiles in shared memory, and a sum in one launch") {
  constexpr int size = 64;
  std::vector<float> a(size * size), b(size * size);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(static_cast<int>(i % 13) - 6);
    b[i] = static_cast<float>(static_cast<int>(i % 11) - 5);
  }
  on_device<float> const on_a(a), on_b(b), c(a.size()), partial(std::size_t{8}), sum(std::size_t{1});
  product<<<dim3(4, 4), dim3(16, 16)>>>(on_a, on_b, c, size);
  auto const got = c.values();
  int wrong = 0;
  for (std::size_t i = 0; i < size; ++i)
    for (std::size_t j = 0; j < size; ++j) {
      float r = 0;
      for (std::size_t k = 0; k < size; ++k) r += a[i * size + k] * b[k * size + j];
      wrong += got[i * size + j] != r;
    }
  CHECK(wrong == 0);

  on_device<unsigned> const ticket(std::size_t{1});
  float wanted = 0;
  for (float const v : a) wanted += v;
  for (int again = 0; again < 2; ++again) {
    sum_in_one_launch<<<8, threads>>>(on_a, partial, ticket, sum, size * size);
    CHECK(sum.values()[0] == wanted);
  }
}
TEST_CASE("atomic operations") {
  on_device<int> const i(std::vector<int>{0, 0, 0, 0, -1, 0});
  on_device<unsigned> const u(std::size_t{4});
  on_device<float> const f(std::size_t{1});
  on_device<double> const d(std::size_t{1});
  on_device<unsigned long long> const l(std::size_t{1});
  atomics<<<blocks, threads>>>(i, u, f, d, l);
  int bits = 0;
  for (int k = 0; k < n; ++k) bits ^= k;
  CHECK(i.values() == std::vector<int>{n * (n - 1) / 2, n - 1, 1 - n, bits, -1 << 20, (1 << 30) - 1});
  CHECK(u.values() == std::vector<unsigned>{n % 101, (51 * 20 - n) % 51, 7, 9});
  CHECK(f.values()[0] == 0.5F * n);
  CHECK(d.values()[0] == 0.25 * n);
  CHECK(l.values()[0] == 1000000007ULL * (n * (n - 1) / 2));
}
TEST_CASE("asynchronous copies") {
  std::vector<float4> x(8 * threads);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = {static_cast<float>(i), 2 * static_cast<float>(i), 0, 1};
  on_device<float4> const on(x), out(std::size_t{4} * threads);
  copy_ahead<<<4, threads>>>(on, out);
  auto const got = out.values();
  int wrong = 0;
  for (std::size_t b = 0; b < 4; ++b)
    for (std::size_t t = 0; t < threads; ++t)
      wrong += got[b * threads + t].x !=
               x[b * 2 * threads + threads - 1 - t].x + x[(b * 2 + 1) * threads + (t + 1) % threads].y;
  CHECK(wrong == 0);
}
TEST_CASE("pairs of halves and of bfloat16") {
  auto const low = [](int i) { return static_cast<float>(i % 9 - 4); };
  auto const high = [](int i) { return static_cast<float>(i % 7 - 3) / 2; };
  auto const wanted = [](float x, float z) {
    float const r = x * z + (x * x + z);
    return std::max(r + std::fabs(z), std::min(x, z));
  };
  std::vector<__half2> a(n), b(n);
  std::vector<__nv_bfloat162> c(n), d(n);
  for (int i = 0; i < n; ++i) {
    auto const k = static_cast<std::size_t>(i);
    a[k] = __floats2half2_rn(low(i), high(i));
    b[k] = __floats2half2_rn(high(i + 3), low(i + 1));
    c[k] = __floats2bfloat162_rn(low(i), high(i));
    d[k] = __floats2bfloat162_rn(high(i + 3), low(i + 1));
  }
  on_device<__half2> const on_a(a), on_b(b), half_result(std::size_t{n});
  on_device<__nv_bfloat162> const on_c(c), on_d(d), bf16_result(std::size_t{n});
  pairs<<<blocks, threads>>>(static_cast<__half2 const*>(on_a), static_cast<__half2 const*>(on_b),
                             static_cast<__half2*>(half_result));
  pairs<<<blocks, threads>>>(static_cast<__nv_bfloat162 const*>(on_c), static_cast<__nv_bfloat162 const*>(on_d),
                             static_cast<__nv_bfloat162*>(bf16_result));
  auto const halves = half_result.values();
  auto const bf16s = bf16_result.values();
  int wrong = 0;
  for (int i = 0; i < n; ++i) {
    auto const k = static_cast<std::size_t>(i);
    float const first = wanted(low(i), high(i + 3)), second = wanted(high(i), low(i + 1));
    wrong += __low2float(halves[k]) != first || __high2float(halves[k]) != second;
    wrong += __low2float(bf16s[k]) != first || __high2float(bf16s[k]) != second;
  }
  CHECK(wrong == 0);
}
TEST_CASE("distinct sectors of a launch" * doctest::skip(!test::present())) {
  on_device<float> const x(std::size_t{4096}), y(std::size_t{4096}), partial(std::size_t{8}), sum(std::size_t{1});
  on_device<unsigned> const ticket(std::size_t{1});
  sum_in_one_launch<<<8, threads>>>(x, partial, ticket, sum, 4096);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  softgpu_counts counts{};
  softgpu_last(&counts);
  CHECK(counts.sectors_read == 4096 * 4 / 32 + 1 + 1);
  CHECK(counts.sectors_written == 1 + 1 + 1);
}
