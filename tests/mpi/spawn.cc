#include "tests/mpi/spawn.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "core/base/env.h"

namespace strata::testing {
namespace {

// mpirun as root, in a container, with more ranks than cores.
constexpr const char* kMpiEnvironment[] = {"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                           "OMPI_MCA_rmaps_base_oversubscribe=1",
                                           "OMPI_MCA_btl_vader_single_copy_mechanism=none", "OPENBLAS_NUM_THREADS=1"};

// The zero-terminated words of a file of /proc, each between spaces; none of a process that is just ending.
std::string Words(const std::string& path) {
  std::string text = " " + ReadKernelText(path).value_or("");
  for (char& c : text) c = c == '\0' ? ' ' : c;
  return text;
}

}  // namespace

Process::Process(std::vector<std::string> command, const std::vector<std::string>& environment) {
  std::vector<char*> argv, env;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  for (char** e = environ; *e != nullptr; ++e) env.push_back(*e);
  for (const char* e : kMpiEnvironment) env.push_back(const_cast<char*>(e));
  for (const std::string& e : environment) env.push_back(const_cast<char*>(e.c_str()));
  env.push_back(nullptr);
  output_ = ::memfd_create("output", MFD_CLOEXEC);
  pid_ = ::fork();
  if (pid_ != 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setpgid(0, 0);
  ::dup2(::open("/dev/null", O_RDONLY), 0);
  ::dup2(output_, 1);
  ::dup2(output_, 2);
  ::execvpe(argv[0], argv.data(), env.data());
  ::_exit(127);
}

Process::~Process() {
  if (pid_ > 0) {
    ::kill(-pid_, SIGKILL);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(output_);
}

int Process::Wait(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) != pid_) {
    if (std::chrono::steady_clock::now() > end) return -1;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string Process::Output() const {
  std::string text(static_cast<size_t>(::lseek(output_, 0, SEEK_CUR)), '\0');
  const ssize_t n = ::pread(output_, text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

std::vector<pid_t> Find(const std::string& text, const std::string& variable) {
  std::vector<pid_t> found;
  DIR* proc = ::opendir("/proc");
  while (const dirent* entry = ::readdir(proc)) {
    const int pid = std::atoi(entry->d_name);
    if (pid <= 0 || pid == ::getpid()) continue;
    const std::string folder = std::string("/proc/") + entry->d_name;
    if (Words(folder + "/cmdline").find(text) == std::string::npos) continue;
    if (!variable.empty() && Words(folder + "/environ").find(" " + variable + " ") == std::string::npos) continue;
    found.push_back(pid);
  }
  ::closedir(proc);
  return found;
}

}  // namespace strata::testing
