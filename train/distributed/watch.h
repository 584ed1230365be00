// Which process of a run is lost: every process says several times a second that it lives, and listens to the others.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "train/distributed/world.h"

namespace c10d {
class Store;
}

namespace strobe::train {

/// Heartbeats through the run's store, on a thread of its own, so that a process that computes or validates for hours
/// is not taken for lost. The first process that finds another silent writes the verdict into the store; all take that
/// one. The store itself goes with the process that keeps it: who cannot reach it any more takes that process for lost.
///
/// Silence is counted in this process's own rounds of listening: when the whole machine stands still for a while, nobody
/// has listened either, and nobody is lost.
///
/// A process that computes for long, or waits in a collective that nothing can end (over Gloo, for one that is frozen
/// or whose machine has gone), cannot take notice of the verdict: at last the watching thread ends it, as an exception
/// that nobody catches does, with the verdict on stderr.
class Watch {
 public:
  struct Timing {
    std::chrono::milliseconds interval{500};             // between heartbeats
    std::chrono::milliseconds silence{30000};            // after which a process is lost
    std::chrono::milliseconds silence_in_failure{3000};  // the same, once a collective has failed here
    std::chrono::milliseconds last_resort{30000};        // after the verdict, for this process to come to its end
    std::chrono::milliseconds longest_farewell{10000};   // that the store's keeper waits for the others at the end
  };

  /// `store` is a connection that nothing else uses. `on_loss` is called once, on the watching thread, after verdict()
  /// has changed: to end collectives that wait for the lost process.
  Watch(c10::intrusive_ptr<c10d::Store> store, const World& world, const Timing& timing, std::function<void()> on_loss);
  ~Watch();  // says that this process leaves of its own will
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// What ended the run, naming the rank; none while all is well.
  std::optional<std::string> verdict() const;

  /// To be asked when a collective has failed here: waits some rounds for the verdict. None where all others live.
  std::optional<std::string> diagnose();

  /// Ends the run on all processes, since this one cannot go on.
  void report(const std::string& reason);

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {
    std::string beat;
    int silent_rounds = 0;  // of listening since the beat changed
  };
  std::string key(int rank) const { return "beat/" + std::to_string(rank); }
  std::string name(int rank) const;
  void run();
  void listen();
  void say(const std::string& beat);
  std::chrono::milliseconds silence_of(const Peer& peer) const { return peer.silent_rounds * timing_.interval; }
  std::optional<int> silent_peer() const;
  void propose(int rank, const std::string& text);
  void accept(const std::string& verdict);
  void wait_for_the_others();

  c10::intrusive_ptr<c10d::Store> store_;
  World world_;
  Timing timing_;
  std::function<void()> on_loss_;
  std::vector<Peer> peers_;
  std::vector<std::string> keys_;
  std::atomic<bool> collective_failed_ = false;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::optional<std::string> verdict_;
  int lost_rank_ = -1;
  int64_t rounds_ = 0;  // of listening so far
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace strobe::train
