// Threads that fill the slots of the next batches while the consumer works on the last one.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

namespace strobe::clip::internal {

/// A Producer has a type Batch and
///   int64_t begin(), end()                                 the batches' numbers
///   Batch allocate(int64_t batch)
///   int64_t slots(int64_t batch)
///   void fill(Batch& batch, int64_t number, int64_t slot)  called from the threads, once a slot, in any order
/// Batches come out in order. The first exception of a thread comes out of next() and ends it all.
template <typename Producer>
class Prefetcher {
 public:
  using Batch = typename Producer::Batch;

  Prefetcher(Producer producer, int workers, int batches_ahead)
      : producer_(std::move(producer)),
        ring_(static_cast<std::size_t>(std::max(batches_ahead, 1))),
        wanted_(producer_.begin()),
        next_(producer_.begin()) {
    for (int i = 0; i < std::max(workers, 1); ++i) {
      threads_.emplace_back([this](std::stop_token stop) { work(stop); });
    }
  }

  ~Prefetcher() {
    for (std::jthread& thread : threads_) thread.request_stop();
    threads_.clear();  // waits for them, while what they use is still there
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  const Producer& producer() const { return producer_; }

  std::optional<Batch> next() {
    std::unique_lock lock(mutex_);
    if (wanted_ == producer_.end()) return std::nullopt;
    Entry& entry = entry_of(wanted_);
    batch_done_.wait(lock, [&] { return error_ != nullptr || (entry.batch && entry.unfilled == 0); });
    if (error_ != nullptr) std::rethrow_exception(error_);
    std::optional<Batch> batch = std::exchange(entry.batch, std::nullopt);
    ++wanted_;
    slot_free_.notify_all();
    return batch;
  }

 private:
  struct Entry {
    std::optional<Batch> batch;
    int64_t unfilled = 0;
  };

  Entry& entry_of(int64_t batch) { return ring_[static_cast<std::size_t>(batch) % ring_.size()]; }

  bool has_work() const {
    return next_ < producer_.end() && next_ < wanted_ + static_cast<int64_t>(ring_.size()) && error_ == nullptr;
  }

  /// The next slot in order: the batch's number and the slot's.
  std::pair<int64_t, int64_t> take() {
    Entry& entry = entry_of(next_);
    const int64_t slots = producer_.slots(next_);
    if (next_slot_ == 0) {
      entry.batch = producer_.allocate(next_);
      entry.unfilled = slots;
    }
    const std::pair<int64_t, int64_t> work(next_, next_slot_);
    if (++next_slot_ == slots) {
      ++next_;
      next_slot_ = 0;
    }
    return work;
  }

  void work(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    while (slot_free_.wait(lock, stop, [this] { return has_work(); })) {
      try {
        const auto [number, slot] = take();
        Entry& entry = entry_of(number);
        lock.unlock();
        producer_.fill(*entry.batch, number, slot);
        lock.lock();
        if (--entry.unfilled == 0) batch_done_.notify_all();
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (error_ == nullptr) error_ = std::current_exception();
        batch_done_.notify_all();
      }
    }
  }

  Producer producer_;
  std::mutex mutex_;
  std::condition_variable batch_done_;
  std::condition_variable_any slot_free_;
  std::vector<Entry> ring_;
  int64_t wanted_;         // the consumer's next batch
  int64_t next_;           // the batch that slots are taken from
  int64_t next_slot_ = 0;  // of that batch
  std::exception_ptr error_;
  std::vector<std::jthread> threads_;
};

}  // namespace strobe::clip::internal
