// A program of somebody else: prints the version of the lowrank it was built with.
#include <cstdio>

#include <lowrank/version.hpp>
#if __has_include(<lowrank/lowrank.hpp>)
#include <lowrank/lowrank.hpp>
#endif

int main() {
  lowrank::version const version{};
  std::printf("lowrank %d.%d.%d\n", version.major, version.minor, version.patch);
}
