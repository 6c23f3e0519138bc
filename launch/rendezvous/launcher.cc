#include "launch/rendezvous/launcher.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "launch/cli/exit_codes.h"
#include "launch/rendezvous/log_tail.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;

constexpr timespec kLook{0, 50'000'000};    // how often logs and statuses are read
constexpr std::chrono::seconds kSettle{1};  // for ranks to end by themselves after one failed
constexpr std::chrono::seconds kMpirun{5};  // for mpirun to end once it is told to
constexpr int kCannotStart = 127;
constexpr int kLastLines = 10;

// More ranks than cores, and threads that may use any core, are the user's choice here, as is being root.
constexpr std::pair<const char*, const char*> kVariables[] = {
    {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
    {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
    {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
    {"OMPI_MCA_hwloc_base_binding_policy", "none"},
};

std::vector<std::string> Command(const LaunchSpec& spec) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::vector<std::string> command = {
      "mpirun",     "-n", absl::StrCat(spec.ranks), error ? "strata" : self.string(), "launch-rank", "--log-dir",
      spec.log_dir, "--"};
  command.insert(command.end(), spec.arguments.begin(), spec.arguments.end());
  return command;
}

sigset_t Watched() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&set, s);
  return set;
}

// In the child: becomes mpirun, in a process group of its own, so that Ctrl-C reaches the launcher only.
[[noreturn]] void BecomeMpirun(const std::string& log, const std::string& ledger, char* const* argv, pid_t launcher,
                               const sigset_t& mask) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::setpgid(0, 0);
  const int in = ::open("/dev/null", O_RDONLY);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0644);
  if (in >= 0 && out >= 0 && ::getppid() == launcher) {
    ::dup2(in, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    for (const auto& [name, value] : kVariables) ::setenv(name, value, 0);
    if (!ledger.empty()) ::setenv("STRATA_LEDGER", ledger.c_str(), 1);
    ::sigprocmask(SIG_SETMASK, &mask, nullptr);
    ::execvp(argv[0], argv);
  }
  ::_exit(kCannotStart);
}

class Launcher {
 public:
  Launcher(Env& env, const LaunchSpec& spec)
      : env_(env), spec_(spec), mpirun_log_(env, spec.log_dir + "/mpirun.log"), half_lines_(spec.ranks) {
    for (int r = 0; r < spec.ranks; ++r) logs_.emplace_back(env, RankLogPath(spec.log_dir, r));
    result_.ranks.resize(spec.ranks);
    const std::string name = absl::StrFormat("/strata-%d", ::getpid());
    RankLedger::Unlink(name);  // of a process that had this number before
    absl::StatusOr<std::shared_ptr<RankLedger>> ledger = RankLedger::Open(name, spec.ranks);
    if (!ledger.ok()) return;  // reports say less
    ledger_ = *std::move(ledger);
    ledger_name_ = name;
  }
  ~Launcher() {
    if (ledger_ != nullptr) RankLedger::Unlink(ledger_name_);
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  absl::StatusOr<LaunchResult> Run() {
    for (int r = 0; r < spec_.ranks; ++r) RETURN_IF_ERROR(env_.RemoveAll(RankStatusPath(spec_.log_dir, r)));
    const sigset_t watched = Watched();
    sigset_t before;
    ::sigprocmask(SIG_BLOCK, &watched, &before);
    const absl::Status started = Start(before);
    if (started.ok()) {
      while (!MpirunEnded()) {
        const int signal = ::sigtimedwait(&watched, nullptr, &kLook);
        if (signal > 0 && signal != SIGCHLD) OnSignal();
        Look();
        if (TimeIsUp()) break;
      }
      End();
    }
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    RETURN_IF_ERROR(started);
    return std::move(result_);
  }

 private:
  absl::Status Start(const sigset_t& mask) {
    std::vector<std::string> words = Command(spec_);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t self = ::getpid();
    mpirun_ = ::fork();
    if (mpirun_ < 0) return absl::ResourceExhaustedError(absl::StrFormat("fork: %s", std::strerror(errno)));
    if (mpirun_ == 0) BecomeMpirun(mpirun_log_.path(), ledger_name_, argv.data(), self, mask);
    return absl::OkStatus();
  }

  // The first signal asks the ranks to save and end; the second one ends them.
  void OnSignal() {
    if (interrupted_) {
      limit_ = Clock::now();
      return;
    }
    interrupted_ = true;
    Limit(spec_.grace);
    absl::FPrintF(stderr, "interrupted: the ranks have %d s to save and end; again to end them now\n",
                  spec_.grace.count());
  }

  void Limit(Clock::duration wait) {
    const Clock::time_point limit = Clock::now() + wait;
    limit_ = limit_ ? std::min(*limit_, limit) : limit;
  }

  void Look() {
    for (int r = 0; r < spec_.ranks; ++r) {
      RankStatus& status = result_.ranks[r];
      if (!status.ended()) status = ReadRankStatus(env_, spec_.log_dir, r);
      if (interrupted_ && status.state == RankStatus::kRunning && told_.insert(r).second) {
        ::kill(status.supervisor, SIGTERM);
      }
      const bool failed = status.ended() && status.exit_code() != kExitOk && status.exit_code() != kExitPreempted;
      if (failed && !failed_) {
        Limit(kSettle);
        NoteActivities();
      }
      failed_ |= failed;
    }
    ShowLogs();
  }

  void NoteActivities() {
    for (int r = 0; ledger_ != nullptr && r < spec_.ranks; ++r) {
      result_.doing.push_back(ledger_->known(r) ? ledger_->Describe(r) : "");
    }
  }

  void ShowLogs() {
    if (spec_.show == Show::kFailed) return;
    if (spec_.show == Show::kFirst) {
      const std::string text = logs_[0].Next();
      std::fwrite(text.data(), 1, text.size(), stdout);
    } else {
      for (int r = 0; r < spec_.ranks; ++r) ShowLines(r);
    }
    std::fflush(stdout);
  }

  void ShowLines(int r) {
    std::string& text = half_lines_[r];
    text += logs_[r].Next();
    for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
      absl::FPrintF(stdout, "[%d] %s\n", r, text.substr(0, end));
    }
  }

  bool MpirunEnded() {
    if (mpirun_ > 0 && ::waitpid(mpirun_, &mpirun_status_, WNOHANG) == mpirun_) mpirun_ = 0;
    return mpirun_ == 0;
  }

  bool AllEnded() const {
    return std::all_of(result_.ranks.begin(), result_.ranks.end(), [](const RankStatus& s) { return s.ended(); });
  }

  bool TimeIsUp() {
    if (failed_ && AllEnded()) return true;
    if (!limit_ || Clock::now() < *limit_) return false;
    result_.out_of_grace = interrupted_ && !failed_;
    return true;
  }

  // Of everything: mpirun ends the supervisors, and they their ranks; who is left is killed.
  void End() {
    Look();  // who ends after this only ends because he is told to
    if (!MpirunEnded()) ::kill(mpirun_, SIGTERM);
    for (const auto limit = Clock::now() + kMpirun; !MpirunEnded() && Clock::now() < limit;) {
      ::nanosleep(&kLook, nullptr);
    }
    ShowLogs();
    for (const LogTail& log : logs_) result_.last_lines.push_back(log.LastLines(kLastLines));
    for (int r = 0; r < spec_.ranks; ++r) {
      const RankStatus now = ReadRankStatus(env_, spec_.log_dir, r);
      if (now.state == RankStatus::kRunning) ::kill(now.supervisor, SIGKILL);
      (void)env_.RemoveAll(RankStatusPath(spec_.log_dir, r));
    }
    if (!MpirunEnded()) {
      ::kill(-mpirun_, SIGKILL);
      ::waitpid(mpirun_, &mpirun_status_, 0);
    }
    Explain();
  }

  void Explain() {
    if (failed_ || AllEnded() || result_.out_of_grace) return;
    const int code = WIFSIGNALED(mpirun_status_) ? 128 + WTERMSIG(mpirun_status_) : WEXITSTATUS(mpirun_status_);
    const bool missing = code == kCannotStart && mpirun_log_.LastLines(1).empty();
    result_.problem =
        missing ? "mpirun cannot be started; is Open MPI or MPICH installed?"
                : absl::StrFormat("mpirun ended with exit code %d\n%s", code, mpirun_log_.LastLines(kLastLines));
  }

  Env& env_;
  const LaunchSpec& spec_;
  std::string ledger_name_;             // empty: none
  std::shared_ptr<RankLedger> ledger_;  // what the ranks do
  std::vector<LogTail> logs_;
  const LogTail mpirun_log_;
  std::vector<std::string> half_lines_;
  LaunchResult result_;
  pid_t mpirun_ = 0;  // 0: ended
  int mpirun_status_ = 0;
  bool interrupted_ = false, failed_ = false;
  std::set<int> told_;                      // ranks that were sent the signal
  std::optional<Clock::time_point> limit_;  // for the ranks to end
};

}  // namespace

std::string LaunchCommand(const LaunchSpec& spec) {
  std::string text;
  for (const auto& [name, value] : kVariables) absl::StrAppend(&text, name, "=", value, " ");
  return text + absl::StrJoin(Command(spec), " ");
}

absl::StatusOr<LaunchResult> LaunchRanks(Env& env, const LaunchSpec& spec) { return Launcher(env, spec).Run(); }

}  // namespace strata
