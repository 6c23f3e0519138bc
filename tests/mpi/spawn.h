#pragma once
// Starting programs and watching them, for tests of processes.

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace strata::testing {

// A program in a process group of its own, with what it prints on both outputs. Killed with its group at the end.
class Process {
 public:
  // `environment` is added to this process's, with what mpirun needs to start anything here.
  explicit Process(std::vector<std::string> command, const std::vector<std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  // Exit status as a shell gives it, 128 + signal after a signal; -1 if it takes longer. Call once.
  int Wait(std::chrono::milliseconds limit = std::chrono::seconds(30));
  std::string Output() const;  // so far

 private:
  pid_t pid_ = -1;
  int output_ = -1;  // a file without a name
};

// Ids of processes whose command line holds `text`, and whose environment holds `variable` ("A=b") if that is given.
std::vector<pid_t> Find(const std::string& text, const std::string& variable = "");

}  // namespace strata::testing
