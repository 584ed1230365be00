// A program in another language that is measured beside ours: a process that is asked, and answers, in lines of JSON.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace strobe::bench {

class Peer {
 public:
  /// Starts `command` and waits for its first line, {"versions": {..}}. Throws strobe::Error where it cannot be started
  /// or ends before that.
  explicit Peer(const std::vector<std::string>& command);
  /// Closes its input, which ends it, and waits for that.
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const nlohmann::json& versions() const { return versions_; }

  /// Throws strobe::Error for an answer {"error": text}, and where the peer has ended.
  nlohmann::json ask(const nlohmann::json& request);

 private:
  nlohmann::json read_answer();
  [[noreturn]] void fail(const std::string& what) const;

  std::string name_;
  pid_t pid_ = 0;
  int socket_ = -1;
  std::string received_;  // beyond the last answer
  nlohmann::json versions_;
};

}  // namespace strobe::bench
