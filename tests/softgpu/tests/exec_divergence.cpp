// Random structured programs, in PTX and in C++: nested branches, loops with early exits, calls of other lanes' values.
#include <algorithm>
#include <array>
#include <random>

#include "kernel_runner.hpp"

namespace softgpu_test {

namespace {

using u32 = std::uint32_t;

/// A program over four variables of a thread, as a tree that is printed as PTX and run directly.
class random_program {
 public:
  explicit random_program(u32 seed) : random_(seed) { root_ = block(0); }

  [[nodiscard]] std::string ptx() {
    text_.clear();
    label_ = 0;
    exits_.clear();
    print(root_);
    return text_;
  }
  /// The variables after a run that starts with these.
  void run(std::array<u32, 4>& v) const {
    u32 budget = 4000;
    (void)run(root_, v, budget);
  }

 private:
  enum class kind { assign, branch, loop, leave, again, stop };
  struct node {
    kind what = kind::assign;
    u32 op = 0, to = 0, left = 0, right = 0, constant = 0;
    std::vector<node> first, second;
  };
  enum class left_by { end, leave, again, stop };

  u32 pick(u32 n) { return std::uniform_int_distribution<u32>(0, n - 1)(random_); }
  std::vector<node> block(int depth, bool in_loop = false) {
    std::vector<node> nodes;
    u32 const count = 1 + pick(4);
    for (u32 n = 0; n < count; ++n) {
      node x;
      x.op = pick(5);
      x.to = pick(4);
      x.left = pick(4);
      x.right = pick(4);
      x.constant = pick(16);
      u32 const roll = pick(12);
      if (depth < 4 && roll < 4) {
        x.what = kind::branch;
        x.first = block(depth + 1, in_loop);
        if (pick(2) == 0) x.second = block(depth + 1, in_loop);
      } else if (depth < 3 && roll < 6) {
        x.what = kind::loop;
        x.first = block(depth + 1, true);
      } else if (in_loop && depth > 1 && roll < 8) {
        x.what = roll == 6 ? kind::leave : kind::again;
        nodes.push_back(x);
        break;  // what follows could not be reached
      } else if (depth > 1 && roll == 8 && pick(4) == 0) {
        x.what = kind::stop;
        nodes.push_back(x);
        break;
      }
      nodes.push_back(x);
    }
    return nodes;
  }

  static u32 apply(u32 op, u32 a, u32 b) {
    switch (op) {
      case 0:
        return a + b;
      case 1:
        return a ^ (b << 3);
      case 2:
        return a * 5 - b;
      case 3:
        return (a >> 2) + (b & 0xff);
      default:
        return a | b * 3;
    }
  }
  static bool condition(node const& x, std::array<u32, 4> const& v) {
    return (v[x.left] + x.constant) % 7 < (v[x.right] & 7);
  }

  left_by run(std::vector<node> const& nodes, std::array<u32, 4>& v, u32& budget) const {
    for (node const& x : nodes) {
      switch (x.what) {
        case kind::assign:
          v[x.to] = apply(x.op, v[x.left], v[x.right] + x.constant);
          break;
        case kind::branch:
          if (auto const how = run(condition(x, v) ? x.first : x.second, v, budget); how != left_by::end) return how;
          break;
        case kind::loop:
          for (u32 n = 0; n < (v[x.left] & 7); ++n) {
            v[x.to] += n;
            auto const how = run(x.first, v, budget);
            if (how == left_by::stop) return how;
            if (how == left_by::leave) break;
            if (n >= 6) break;  // the body may change what bounds it
          }
          break;
        case kind::leave:
          return left_by::leave;
        case kind::again:
          return left_by::again;
        case kind::stop:
          return left_by::stop;
      }
    }
    return left_by::end;
  }

  static std::string r(u32 n) { return "%r" + std::to_string(n); }
  std::string fresh() { return "$L" + std::to_string(label_++); }
  void say(std::string const& s) { text_ += "  " + s + "\n"; }
  void print(std::vector<node> const& nodes) {
    for (node const& x : nodes) {
      switch (x.what) {
        case kind::assign: {
          say("add.u32 %r8, " + r(x.right) + ", " + std::to_string(x.constant) + ";");
          switch (x.op) {
            case 0:
              say("add.u32 " + r(x.to) + ", " + r(x.left) + ", %r8;");
              break;
            case 1:
              say("shl.b32 %r9, %r8, 3; xor.b32 " + r(x.to) + ", " + r(x.left) + ", %r9;");
              break;
            case 2:
              say("mul.lo.u32 %r9, " + r(x.left) + ", 5; sub.u32 " + r(x.to) + ", %r9, %r8;");
              break;
            case 3:
              say("shr.u32 %r9, " + r(x.left) + ", 2; and.b32 %r10, %r8, 255; add.u32 " + r(x.to) + ", %r9, %r10;");
              break;
            default:
              say("mul.lo.u32 %r9, %r8, 3; or.b32 " + r(x.to) + ", " + r(x.left) + ", %r9;");
          }
          break;
        }
        case kind::branch: {
          std::string const otherwise = fresh(), end = fresh();
          say("add.u32 %r8, " + r(x.left) + ", " + std::to_string(x.constant) + "; rem.u32 %r8, %r8, 7; and.b32 %r9, " +
              r(x.right) + ", 7; setp.ge.u32 %p0, %r8, %r9; @%p0 bra " + otherwise + ";");
          print(x.first);
          if (!x.second.empty()) say("bra " + end + ";");
          say(otherwise + ":");
          print(x.second);
          say(end + ":");
          break;
        }
        case kind::loop: {
          std::string const head = fresh(), next = fresh(), end = fresh();
          u32 const counter = 11 + static_cast<u32>(exits_.size());
          say("mov.u32 " + r(counter) + ", 0;");
          say(head + ": and.b32 %r8, " + r(x.left) + ", 7; setp.ge.u32 %p0, " + r(counter) + ", %r8; @%p0 bra " + end +
              ";");
          say("add.u32 " + r(x.to) + ", " + r(x.to) + ", " + r(counter) + ";");
          exits_.push_back({end, next});
          print(x.first);
          exits_.pop_back();
          say(next + ": setp.ge.u32 %p0, " + r(counter) + ", 6; @%p0 bra " + end + "; add.u32 " + r(counter) + ", " +
              r(counter) + ", 1; bra " + head + ";");
          say(end + ":");
          break;
        }
        case kind::leave:
          say("bra " + exits_.back().first + ";");
          break;
        case kind::again:
          say("bra.uni " + exits_.back().second + ";");
          break;
        case kind::stop:
          say("bra $stop;");
          break;
      }
    }
  }

  std::mt19937 random_;
  std::vector<node> root_;
  std::string text_;
  int label_ = 0;
  std::vector<std::pair<std::string, std::string>> exits_;
};

}  // namespace

TEST_CASE("600 random programs do what C++ does") {
  std::vector<u32> start(4 * 96);
  for (std::size_t n = 0; n < start.size(); ++n) start[n] = static_cast<u32>(n * 2654435761U >> 7);
  int wrong = 0, diverse = 0;
  for (u32 seed = 0; seed < 600; ++seed) {
    random_program program(seed);
    buffer<u32> const v(start);
    std::string const body =
        "mad.lo.u32 %r20, %r31, 48, %r30; mul.wide.u32 %rd0, %r20, 16; add.u64 %rd0, %rd0, %rd24;"
        "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%rd0];\n" +
        program.ptx() + "$stop: st.global.v4.u32 [%rd0], {%r0, %r1, %r2, %r3};";
    REQUIRE(run_body(body, {2, 48}, {v.address()}) == softgpu::outcome::completed);
    auto const got = v.values();
    std::size_t changed = 0;
    for (std::size_t thread = 0; thread < 96; ++thread) {
      std::array<u32, 4> x{};
      std::copy_n(start.begin() + static_cast<std::ptrdiff_t>(4 * thread), 4, x.begin());
      program.run(x);
      for (std::size_t k = 0; k < 4; ++k) {
        wrong += got[4 * thread + k] != x[k];
        changed += x[k] != start[4 * thread + k];
      }
    }
    diverse += changed > 40;
  }
  CHECK(wrong == 0);
  CHECK(diverse > 500);  // programs that change nothing prove nothing
}

TEST_CASE("lanes that part meet again, and convergence is what shuffles need") {
  buffer<u32> const y(std::vector<u32>(32));
  std::string const parted = R"(
  and.b32 %r0, %r30, 1;
  setp.eq.u32 %p0, %r0, 0;
  @%p0 bra $even;
  mov.u32 %r1, 10;
  bra $join;
$even:
  mov.u32 %r1, 20;
$join:
  shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;
  mul.wide.u32 %rd0, %r30, 4;
  add.u64 %rd0, %rd0, %rd24;
  st.global.u32 [%rd0], %r2;)";
  check_report("", parted, {}, {y.address()});
  for (u32 n = 0; n < 32; ++n) CHECK(y.values()[n] == (n % 2 == 0 ? 10 : 20));
  check_report("warp convergence", "setp.lt.u32 %p0, %r30, 7; @%p0 shfl.sync.bfly.b32 %r1, %r30, 1, 31, -1;", {},
               {y.address()});
  check_report("", "setp.lt.u32 %p0, %r30, 8; @%p0 shfl.sync.bfly.b32 %r1, %r30, 1, 31, 255;", {}, {y.address()});
  check_report("shuffle reads lane 8, which is inactive",
               "setp.lt.u32 %p0, %r30, 8; @%p0 shfl.sync.down.b32 %r1, %r30, 1, 31, 255;", {}, {y.address()});
  check_report("warp convergence", "shfl.sync.bfly.b32 %r1, %r30, 1, 31, 254;", {}, {y.address()});
  // Who has left cannot be waited for.
  check_report("", "setp.lt.u32 %p0, %r30, 7; @%p0 ret; vote.sync.ballot.b32 %r1, %p0, -1;", {}, {y.address()});
}

TEST_CASE("a warp that spins lets the one that it waits for run") {
  buffer<u32> const flag(std::vector<u32>(2));
  check_report("", R"(
  setp.lt.u32 %p0, %r30, 32;
  @%p0 bra $wait;
  st.release.gpu.global.u32 [%rd24], 1;
  bra $end;
$wait:
  ld.acquire.gpu.global.u32 %r0, [%rd24];
  setp.eq.u32 %p1, %r0, 0;
  @%p1 bra $wait;
  st.global.u32 [%rd24+4], 5;
$end:)",
               {1, 64}, {flag.address()});
  CHECK(flag.values()[1] == 5);
}

}  // namespace softgpu_test
