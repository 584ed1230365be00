#include "train/distributed/watch.h"

#include <fmt/format.h>

#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "strobe/types.h"

namespace strobe::train {
namespace {

constexpr const char* kVerdictKey = "verdict";  // holds "RANK text"
constexpr const char* kLeft = "left";           // the last beat of a process that ends of its own will

}  // namespace

Watch::Watch(c10::intrusive_ptr<c10d::Store> store, const World& world, const Timing& timing,
             std::function<void()> on_loss)
    : store_(std::move(store)), world_(world), timing_(timing), on_loss_(std::move(on_loss)) {
  peers_.resize(static_cast<std::size_t>(world.size));
  for (int rank = 0; rank < world.size; ++rank) keys_.push_back(key(rank));
  thread_ = std::thread([this] { run(); });
}

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  try {
    say(kLeft);
    if (world_.rank == 0 && !world_.launcher_keeps_store) wait_for_the_others();
  } catch (const std::exception&) {  // the store has gone before us: nobody is left to tell
  }
}

std::string Watch::name(int rank) const { return fmt::format("rank {} of {}", rank, world_.size); }

void Watch::say(const std::string& beat) { store_->set(key(world_.rank), beat); }

void Watch::run() {
  for (int64_t count = 1; !verdict(); ++count) {
    try {
      say(std::to_string(count));
      listen();
    } catch (const std::exception&) {
      const std::string keeper = world_.launcher_keeps_store ? "the launcher" : name(0);
      accept(fmt::format("0 {} is gone: the store at {}:{} that it keeps cannot be reached", keeper, world_.master_addr,
                         world_.master_port));
    }
    std::unique_lock lock(mutex_);
    if (verdict_) break;
    rounds_ = count;
    changed_.notify_all();
    if (changed_.wait_for(lock, timing_.interval, [this] { return stopping_; })) return;
  }
  try {
    on_loss_();
  } catch (const std::exception&) {  // what cannot be ended in order is ended below
  }
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, timing_.last_resort, [this] { return stopping_; })) {
    throw Error("data parallel: " + *verdict_);
  }
}

void Watch::listen() {
  if (store_->check({kVerdictKey})) return accept(store_->get_to_str(kVerdictKey));
  const auto beats = store_->multiGet(keys_);
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    Peer& peer = peers_[rank];
    ++peer.silent_rounds;
    std::string beat(beats[rank].begin(), beats[rank].end());
    if (beat != peer.beat) peer = {std::move(beat)};
  }
  if (const std::optional<int> rank = silent_peer()) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(silence_of(peers_[*rank])).count();
    const bool left = peers_[*rank].beat == kLeft;
    propose(*rank, left ? "has left the run" : fmt::format("is gone: nothing heard of it for {} s", seconds));
  }
}

/// The one that has been silent longest, if that is too long. Who has left is missed only when a collective fails.
std::optional<int> Watch::silent_peer() const {
  const auto limit = collective_failed_ ? timing_.silence_in_failure : timing_.silence;
  std::optional<int> longest;
  for (int rank = 0; rank < world_.size; ++rank) {
    const Peer& peer = peers_[static_cast<std::size_t>(rank)];
    if (rank == world_.rank || silence_of(peer) < limit) continue;
    if (peer.beat == kLeft && !collective_failed_) continue;
    if (!longest || peer.silent_rounds > peers_[static_cast<std::size_t>(*longest)].silent_rounds) longest = rank;
  }
  return longest;
}

/// The first proposal is everybody's verdict.
void Watch::propose(int rank, const std::string& text) {
  accept(store_->compareSet(kVerdictKey, "", fmt::format("{} {} {}", rank, name(rank), text)));
}

void Watch::accept(const std::string& verdict) {
  const auto space = verdict.find(' ');
  {
    const std::lock_guard lock(mutex_);
    if (verdict_) return;
    verdict_ = verdict.substr(space + 1);
    lost_rank_ = std::stoi(verdict);
  }
  changed_.notify_all();
}

std::optional<std::string> Watch::verdict() const {
  const std::lock_guard lock(mutex_);
  return verdict_;
}

std::optional<std::string> Watch::diagnose() {
  collective_failed_ = true;
  std::unique_lock lock(mutex_);
  // Twice the silence: a heartbeat on a machine under load is late too.
  const int64_t last = rounds_ + 2 * timing_.silence_in_failure / timing_.interval + 1;
  changed_.wait(lock, [&] { return verdict_ || rounds_ >= last; });
  return verdict_;
}

void Watch::report(const std::string& reason) {
  try {
    propose(world_.rank, "failed: " + reason);
  } catch (const std::exception&) {  // the store is gone: the others know that already
  }
}

/// With the store its keeper would take the verdict away from those who have not read it yet.
void Watch::wait_for_the_others() {
  const auto end = Clock::now() + timing_.longest_farewell;
  const auto has_left = [&](std::size_t rank, const std::vector<uint8_t>& beat) {
    return static_cast<int>(rank) == lost_rank_ || std::string(beat.begin(), beat.end()) == kLeft;
  };
  while (Clock::now() < end) {
    const auto beats = store_->multiGet(keys_);
    bool all = true;
    for (std::size_t rank = 0; rank < beats.size(); ++rank) all = all && has_left(rank, beats[rank]);
    if (all) return;
    std::this_thread::sleep_for(timing_.interval / 10);
  }
}

}  // namespace strobe::train
