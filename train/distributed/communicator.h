// The processes of a data-parallel run, and what they say to each other.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "train/distributed/watch.h"
#include "train/distributed/world.h"

namespace c10d {
class ProcessGroup;
}  // namespace c10d
namespace torch::nn {
class Module;
}

namespace strobe::train {

/// Collectives over all processes: every process calls the same ones in the same order. Over Gloo for tensors on the
/// CPU, over NCCL for those on a GPU; the latter are put into the current stream's order and the host does not wait for
/// them. A process alone is a run of size 1, where all of this does nothing.
///
/// A collective that fails, or is called after a process was lost, throws strobe::Error that names the lost rank, on
/// every process that is left.
class Communicator {
 public:
  struct Options {
    std::chrono::seconds join_timeout{300};     // for all processes to arrive
    std::chrono::hours collective_timeout{24};  // over Gloo: others wait while one validates; the lost are watched for
    Watch::Timing watch;
  };

  /// One process alone.
  Communicator();
  /// Waits for all processes of `world`, and has this process ignore SIGPIPE if there are others. `device` is what this
  /// process trains on. Throws strobe::Error naming the address that cannot be reached or the ranks that have not
  /// arrived.
  Communicator(const World& world, at::Device device, const Options& options);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const;
  int size() const;
  bool is_root() const { return rank() == 0; }

  /// In place, over all ranks. Contiguous tensors of the same shape and dtype everywhere.
  void sum(at::Tensor& tensor);
  void broadcast(at::Tensor& tensor);  // from rank 0
  /// [size, ...]: the tensors of all ranks in their order.
  at::Tensor all_gather(const at::Tensor& tensor) { return begin_all_gather(tensor).wait(); }

  /// An all_gather under way. Must go before its communicator.
  class Gathering {
   public:
    at::Tensor wait();  // once

   private:
    friend class Communicator;
    std::function<void()> arrive_;  // none: alone
    at::Tensor gathered_;
  };
  /// What is computed between this and wait() runs beside the transfer.
  Gathering begin_all_gather(const at::Tensor& tensor);

  /// [size * n, ...] of every rank -> [n, ...]: the own part of their sum.
  at::Tensor scatter_sum(const at::Tensor& tensor);

  /// Of numbers that the hosts hold.
  int64_t max(int64_t value);
  int64_t min(int64_t value) { return -max(-value); }

  /// Parameters and buffers of rank 0 for everyone.
  void broadcast_state(const torch::nn::Module& module);

  /// Runs what communicates; turns its failure into an error that names the lost rank, where there is one.
  void guarded(const std::function<void()>& collective);

  /// Throws where a process has been lost: before what a device has computed is trusted.
  void check() const;

  /// Ends the run on all other processes, whose errors will hold `reason`.
  void report(const std::string& reason);

  /// Of a run of more than one process.
  const c10::intrusive_ptr<c10d::ProcessGroup>& process_group() const;

 private:
  struct Group;
  std::unique_ptr<Group> group_;  // null: alone
};

/// Runs `body` with the processes of `world` joined, tells the others where it throws, and waits for them where it
/// returns. What it returns is returned.
int run_in_world(const World& world, at::Device device,
                 const std::function<int(const std::shared_ptr<Communicator>&)>& body,
                 const Communicator::Options& options = {});

}  // namespace strobe::train
