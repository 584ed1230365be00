#include "cli/launcher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "strobe/types.h"

namespace strobe::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kMark = "STROBE_NPROC";  // tells a process that `--nproc` has started it
/// Between SIGTERM and SIGKILL once a process has failed: longer than the others need to find that out by themselves.
constexpr auto kGrace = std::chrono::seconds(45);

[[noreturn]] void fail(const std::string& what) { throw Error("--nproc: " + what + ": " + std::strerror(errno)); }

/// A socket that listens on a free port of 127.0.0.1. Rank 0 inherits it, so that nobody can take the port in between.
class Listener {
 public:
  Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (fd_ < 0 || ::bind(fd_, generic, length) != 0 || ::listen(fd_, SOMAXCONN) != 0 ||
        ::getsockname(fd_, generic, &length) != 0) {
      fail("no port of 127.0.0.1 can be opened");
    }
    port_ = ::ntohs(address.sin_port);
  }
  ~Listener() { ::close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int fd() const { return fd_; }
  int port() const { return port_; }

 private:
  int fd_;
  int port_ = 0;
};

std::vector<std::string> own_command_line() {
  std::ostringstream content;
  content << std::ifstream("/proc/self/cmdline", std::ios::binary).rdbuf();
  std::vector<std::string> words;
  std::istringstream rest(content.str());
  for (std::string word; std::getline(rest, word, '\0');) words.push_back(word);
  return words;
}

class Processes {
 public:
  explicit Processes(int count) : children_(static_cast<std::size_t>(count)) {
    ::sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) ::sigaddset(&signals_, signal);
    ::sigprocmask(SIG_BLOCK, &signals_, &mask_before_);
    words_ = own_command_line();
    for (std::string& word : words_) arguments_.push_back(word.data());
    arguments_.push_back(nullptr);
    for (std::size_t rank = 0; rank < children_.size(); ++rank) start(rank);
  }
  ~Processes() { ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr); }
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  int wait() {
    while (living() > 0) {
      timespec pause{1, 0};
      const int signal = ::sigtimedwait(&signals_, nullptr, &pause);
      if (signal == SIGCHLD) {
        reap();
      } else if (signal > 0) {
        forwarded_ = signal;
        send(signal);
      }
      if (failed_ && Clock::now() > deadline_) send(SIGKILL);
    }
    return status_;
  }

 private:
  struct Child {
    pid_t pid = 0;
    bool alive = false;
  };

  int living() const {
    int count = 0;
    for (const Child& child : children_) count += child.alive ? 1 : 0;
    return count;
  }

  void start(std::size_t rank) {
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) {
      send(SIGKILL);
      fail("fork");
    }
    if (pid == 0) become(rank, parent);
    children_[rank] = {pid, true};
  }

  /// What the new process does.
  [[noreturn]] void become(std::size_t rank, pid_t parent) {
    ::setpgid(0, 0);  // a terminal's Ctrl-C reaches only the launcher, which forwards it once
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    const auto set = [](const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); };
    const std::string size = std::to_string(children_.size());
    set("RANK", std::to_string(rank));
    set("LOCAL_RANK", std::to_string(rank));
    set("WORLD_SIZE", size);
    set("LOCAL_WORLD_SIZE", size);
    set("MASTER_ADDR", "127.0.0.1");
    set("MASTER_PORT", std::to_string(listener_.port()));
    set(kMark, size);
    ::unsetenv("TORCHELASTIC_USE_AGENT_STORE");
    if (rank == 0) {
      ::fcntl(listener_.fd(), F_SETFD, 0);
      set("STROBE_STORE_FD", std::to_string(listener_.fd()));
    }
    ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
    ::execv("/proc/self/exe", arguments_.data());
    ::_exit(127);
  }

  void reap() {
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      for (std::size_t rank = 0; rank < children_.size(); ++rank) {
        if (children_[rank].pid != pid) continue;
        children_[rank].alive = false;
        ended(rank, status);
      }
    }
  }

  void ended(std::size_t rank, int status) {
    const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (code == 0 || failed_) return;
    if (status_ == 0) status_ = code;
    if (forwarded_ != 0 && code == 128 + forwarded_) return;  // as it was told
    failed_ = true;
    status_ = code;
    const std::string who = "rank " + std::to_string(rank) + " of " + std::to_string(children_.size()) + " (pid " +
                            std::to_string(children_[rank].pid) + ")";
    const std::string how = WIFSIGNALED(status) ? "was ended by signal " + std::to_string(WTERMSIG(status)) + " (" +
                                                      ::strsignal(WTERMSIG(status)) + ")"
                                                : "failed with status " + std::to_string(code);
    std::fprintf(stderr, "strobe: error: %s %s%s\n", who.c_str(), how.c_str(),
                 living() > 0 ? "; stopping the others" : "");
    send(SIGTERM);
    deadline_ = Clock::now() + kGrace;
  }

  void send(int signal) const {
    for (const Child& child : children_) {
      if (child.alive) ::kill(child.pid, signal);
    }
  }

  Listener listener_;
  std::vector<Child> children_;
  std::vector<std::string> words_;
  std::vector<char*> arguments_;
  sigset_t signals_;
  sigset_t mask_before_;
  int forwarded_ = 0;
  bool failed_ = false;
  int status_ = 0;
  Clock::time_point deadline_;
};

}  // namespace

void ProcessOptions::add_to(CLI::App& command) {
  command.add_option("--nproc", processes, "processes on this machine that train together, each on its GPU or cores")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

std::optional<int> ProcessOptions::launch() const {
  if (processes == 1 || std::getenv(kMark) != nullptr) return std::nullopt;
  for (const char* name : {"RANK", "OMPI_COMM_WORLD_RANK"}) {
    if (std::getenv(name) == nullptr) continue;
    throw Error(std::string("--nproc: expected to start the processes, found ") + name +
                " in the environment: another launcher has started this one");
  }
  return Processes(processes).wait();
}

}  // namespace strobe::cli
