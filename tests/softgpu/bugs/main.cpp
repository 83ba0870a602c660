// Runs every row in a process of its own, as control and as bug, and compares with what the table says.
//   bugs                       all rows; the streams are as SOFTGPU_STREAMS says
//   bugs controls              the controls alone: what a real GPU can be asked
//   bugs <row> control|bug     one of them, in this process
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "softgpu/bugs/planted.hpp"

using namespace planted;

namespace {

constexpr int report_status = 97, value_status = 1, refusal_status = 2;

std::vector<row> all_rows() {
  std::vector<row> rows;
  for (auto const part : {memory_rows(), block_rows(), order_rows(), library_rows(), capture_rows()})
    rows.insert(rows.end(), part.begin(), part.end());
  return rows;
}

int run_here(row const& r, variant which) {
  bench b;
  r.run(b, which);
  switch (b.verdict()) {
    case noticed::by_value:
      return value_status;
    case noticed::by_status:
      return refusal_status;
    default:
      return 0;
  }
}

struct observation {
  noticed how = noticed::not_at_all;
  std::string said;
};

observation run_apart(row const& r, variant which) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return {};
  std::fflush(nullptr);
  pid_t const child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    execl("/proc/self/exe", "bugs", r.name, which == variant::bug ? "bug" : "control", nullptr);
    _exit(127);
  }
  close(ends[1]);
  observation seen;
  std::array<char, 4096> part{};
  for (ssize_t n = 0; (n = ::read(ends[0], part.data(), part.size())) > 0;)
    seen.said.append(part.data(), static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) seen.how = noticed::by_signal;
  else if (WEXITSTATUS(status) == report_status) seen.how = noticed::by_report;
  else if (WEXITSTATUS(status) == value_status) seen.how = noticed::by_value;
  else if (WEXITSTATUS(status) == refusal_status) seen.how = noticed::by_status;
  return seen;
}

char const* text(noticed how) {
  constexpr std::array names{"not at all", "report", "status", "value", "signal"};
  return names[static_cast<std::size_t>(how)];
}

bool check_control(row const& r) {
  observation const control = run_apart(r, variant::control);
  bool const silent = control.how == noticed::not_at_all && control.said.empty();
  if (!silent) std::printf("FAILED: the control of \"%s\": %s: %s\n", r.name, text(control.how), control.said.c_str());
  return silent;
}

bool check(row const& r, noticed expected) {
  bool const silent = check_control(r);
  observation const bug = run_apart(r, variant::bug);
  bool const noticed_as_told =
      bug.how == expected && (expected != noticed::by_report || bug.said.find(r.says) != std::string::npos);
  std::printf("%-38s %-10s %s\n", r.name, text(bug.how), bug.said.substr(0, bug.said.find('\n')).c_str());
  if (!noticed_as_told) std::printf("FAILED: expected %s %s, got: %s\n", text(expected), r.says, bug.said.c_str());
  return silent && noticed_as_told;
}

}  // namespace

int main(int argc, char** argv) {
  auto const rows = all_rows();
  if (argc == 3) {
    for (row const& r : rows)
      if (std::string_view{r.name} == argv[1])
        return run_here(r, std::string_view{argv[2]} == "bug" ? variant::bug : variant::control);
    return 127;
  }
  char const* const streams = std::getenv("SOFTGPU_STREAMS");
  bool const eager = streams != nullptr && std::string_view{streams} == "eager";
  int failed = 0;
  bool const only_controls = argc == 2 && std::string_view{argv[1]} == "controls";
  for (row const& r : rows)
    if (only_controls) failed += check_control(r) ? 0 : 1;
    else failed += check(r, eager ? r.eager : r.lazy) ? 0 : 1;
  std::printf("%zu rows, %d failed\n", rows.size(), failed);
  return failed == 0 ? 0 : 1;
}
