#include "launch/rendezvous/supervise.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "launch/cli/exit_codes.h"
#include "launch/rendezvous/environment.h"
#include "launch/rendezvous/rank_status.h"

namespace strata {
namespace {

constexpr timespec kLook{0, 200'000'000};  // how often the parent is looked after
constexpr int kCannotStart = 127;

sigset_t Watched() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGHUP}) sigaddset(&set, s);
  return set;
}

// In the child: becomes the rank. Dies with the supervisor.
[[noreturn]] void Become(const std::string& log, const std::string& head, char* const* argv, pid_t supervisor,
                         const sigset_t& mask) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd >= 0 && ::getppid() == supervisor && ::write(fd, head.data(), head.size()) >= 0) {
    ::dup2(fd, STDOUT_FILENO);
    ::dup2(fd, STDERR_FILENO);
    ::sigprocmask(SIG_SETMASK, &mask, nullptr);
    ::execv("/proc/self/exe", argv);
  }
  ::_exit(kCannotStart);
}

// Waits for the child, passing signals on; kills it where `parent` is gone.
int WaitPassingSignals(pid_t child, pid_t parent, const sigset_t& watched) {
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) != child) {
    const int signal = ::sigtimedwait(&watched, nullptr, &kLook);
    if (signal > 0 && signal != SIGCHLD) ::kill(child, signal);
    if (::getppid() != parent) ::kill(child, SIGKILL);
  }
  return status;
}

void WaitForEnd(pid_t parent, const sigset_t& watched) {
  while (::getppid() == parent) {
    const int signal = ::sigtimedwait(&watched, nullptr, &kLook);
    if (signal > 0 && signal != SIGCHLD) return;
  }
}

}  // namespace

absl::Status SuperviseRank(const std::string& log_dir, const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const ProcessPlace place, ReadPlace(EnvironmentVariables()));
  const pid_t parent = ::getppid(), self = ::getpid();
  const sigset_t watched = Watched();
  sigset_t before;
  ::sigprocmask(SIG_BLOCK, &watched, &before);

  std::vector<std::string> words = {"strata"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::string head = absl::StrFormat("== rank %d of %d: %s\n", place.rank, place.size, absl::StrJoin(words, " "));
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  RETURN_IF_ERROR(WriteRankStatus(Env::Posix(), log_dir, place.rank, {RankStatus::kRunning, 0, self}));
  const pid_t child = ::fork();
  if (child < 0) return absl::ResourceExhaustedError(absl::StrFormat("fork: %s", std::strerror(errno)));
  if (child == 0) Become(RankLogPath(log_dir, place.rank), head, argv.data(), self, before);

  const int status = WaitPassingSignals(child, parent, watched);
  RankStatus end{WIFSIGNALED(status) ? RankStatus::kKilled : RankStatus::kExited,
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), self};
  end.time_ns = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  RETURN_IF_ERROR(WriteRankStatus(Env::Posix(), log_dir, place.rank, end));
  if (end.exit_code() != kExitOk && end.exit_code() != kExitPreempted) WaitForEnd(parent, watched);
  return absl::OkStatus();
}

}  // namespace strata
