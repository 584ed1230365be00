#include "bench/peer.h"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "strobe/types.h"

extern char** environ;

namespace strobe::bench {
namespace {

/// The process reads and writes one socket; its messages for people go where ours go.
int spawn(const std::vector<std::string>& command, int socket, pid_t& pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, socket, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, socket, STDOUT_FILENO);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const int error = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

}  // namespace

Peer::Peer(const std::vector<std::string>& command) : name_(command.at(0)) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail(std::strerror(errno));
  socket_ = ends[0];
  const int error = spawn(command, ends[1], pid_);
  ::close(ends[1]);
  if (error != 0) {
    ::close(socket_);
    fail(std::strerror(error));
  }
  if (command.size() > 1) name_ = std::filesystem::path(command[1]).filename();
  try {
    versions_ = read_answer().at("versions");
  } catch (...) {
    ::close(socket_);
    ::waitpid(pid_, nullptr, 0);
    throw;
  }
}

Peer::~Peer() {
  ::close(socket_);
  ::waitpid(pid_, nullptr, 0);
}

nlohmann::json Peer::ask(const nlohmann::json& request) {
  const std::string line = request.dump() + '\n';
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t count = ::send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("it has ended");
    sent += static_cast<std::size_t>(count);
  }
  return read_answer();
}

nlohmann::json Peer::read_answer() {
  std::size_t end = 0;
  while ((end = received_.find('\n')) == std::string::npos) {
    char bytes[65536];
    const ssize_t count = ::recv(socket_, bytes, sizeof bytes, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("it ended without an answer; what it said stands above");
    received_.append(bytes, static_cast<std::size_t>(count));
  }
  const nlohmann::json answer = nlohmann::json::parse(received_.substr(0, end));
  received_.erase(0, end + 1);
  if (answer.contains("error")) fail(answer["error"].get<std::string>());
  return answer;
}

void Peer::fail(const std::string& what) const { throw Error("peer " + name_ + ": " + what); }

}  // namespace strobe::bench
