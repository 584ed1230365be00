#define USE_C10D_GLOO
#include "train/distributed/communicator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <csignal>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <utility>

#include "strobe/types.h"
#ifdef STROBE_CUDA
#include "train/distributed/nccl_backend.h"
#endif

namespace strobe::train {
namespace {

using Store = c10::intrusive_ptr<c10d::Store>;

constexpr std::size_t kBroadcastBytes = std::size_t{250} << 20;  // broadcast at once, as DistributedDataParallel does

std::string text_of(const std::exception& error) {
  const auto* from_torch = dynamic_cast<const c10::Error*>(&error);
  return from_torch != nullptr ? from_torch->what_without_backtrace() : error.what();
}

Store connect(const World& world, const Communicator::Options& options) {
  c10d::TCPStoreOptions store;
  store.port = static_cast<uint16_t>(world.master_port);
  store.isServer = world.rank == 0 && !world.launcher_keeps_store;
  store.waitWorkers = false;
  store.timeout = options.join_timeout;
  if (store.isServer) store.masterListenFd = world.listening_fd;
  try {
    return c10::make_intrusive<c10d::TCPStore>(world.master_addr, store);
  } catch (const std::exception& error) {
    throw Error(fmt::format(
        "data parallel: rank {} of {}: the store at {}:{} (MASTER_ADDR, MASTER_PORT) cannot be {}: {}", world.rank,
        world.size, world.master_addr, world.master_port, store.isServer ? "opened" : "reached", text_of(error)));
  }
}

/// Each rank's first heartbeat says that it is there.
void join(c10d::Store& store, const World& world, const Communicator::Options& options) {
  store.set(fmt::format("beat/{}", world.rank), "0");
  std::vector<std::string> keys;
  for (int rank = 0; rank < world.size; ++rank) keys.push_back(fmt::format("beat/{}", rank));
  try {
    store.wait(keys, options.join_timeout);
  } catch (const std::exception& error) {
    std::string missing;
    try {
      for (int rank = 0; rank < world.size; ++rank) {
        if (!store.check({keys[static_cast<std::size_t>(rank)]})) missing += fmt::format(" {}", rank);
      }
    } catch (const std::exception&) {
      missing = " 0";  // it keeps the store
    }
    throw Error(fmt::format("data parallel: rank {}: expected {} processes, found none of rank{} within {} s",
                            world.rank, world.size, missing, options.join_timeout.count()));
  }
}

c10::intrusive_ptr<c10d::ProcessGroup> make_group(const Store& store, const World& world, at::Device device,
                                                  const Communicator::Options& options) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, world.rank, world.size);
  const auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
      c10::make_intrusive<c10d::PrefixStore>("gloo", store), world.rank, world.size,
      c10d::ProcessGroupGloo::Options::create_default(options.collective_timeout));
  group->setBackend(at::kCPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
#include "strobe/types.h"
#ifdef STROBE_CUDA
  if (device.is_cuda()) {
    group->setBackend(
        at::kCUDA, c10d::ProcessGroup::BackendType::NCCL,
        make_nccl_backend(c10::make_intrusive<c10d::PrefixStore>("nccl", store), world.rank, world.size, device));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
  }
#else
  if (!device.is_cpu()) throw Error("data parallel: this build communicates only between CPUs, found " + device.str());
#endif
  group->setGroupName("strobe");
  return group;
}

}  // namespace

struct Communicator::Group {
  World world;
  c10::intrusive_ptr<c10d::ProcessGroup> process_group;
  std::unique_ptr<Watch> watch;

  ~Group() {
    // The watch first: it may be ending the group's collectives.
    watch.reset();
    try {
      process_group->shutdown();
    } catch (const std::exception&) {  // after a loss there is nothing to end in order
    }
  }
};

Communicator::Communicator() = default;

Communicator::Communicator(const World& world, at::Device device, const Options& options) {
  if (world.size == 1) return;
  // Who writes to a process that has gone gets an error to report, not the signal that would end it in silence.
  std::signal(SIGPIPE, SIG_IGN);
  const Store root = connect(world, options);
  const std::string prefix = "strobe/" + world.attempt;
  const auto store = c10::make_intrusive<c10d::PrefixStore>(prefix, root);
  join(*store, world, options);
  auto group = std::make_unique<Group>();
  group->world = world;
  group->process_group = make_group(store, world, device, options);
  const auto own_connection = c10::make_intrusive<c10d::PrefixStore>(prefix, root->clone());
  group->watch = std::make_unique<Watch>(own_connection, world, options.watch,
                                         [process_group = group->process_group] { process_group->abort(); });
  group_ = std::move(group);
}

Communicator::~Communicator() = default;

int Communicator::rank() const { return group_ ? group_->world.rank : 0; }
int Communicator::size() const { return group_ ? group_->world.size : 1; }

void Communicator::sum(at::Tensor& tensor) {
  if (!group_) return;
  std::vector<at::Tensor> tensors = {tensor};
  guarded([&] { group_->process_group->allreduce(tensors)->wait(); });
}

void Communicator::broadcast(at::Tensor& tensor) {
  if (!group_) return;
  std::vector<at::Tensor> tensors = {tensor};
  guarded([&] { group_->process_group->broadcast(tensors)->wait(); });
}

Communicator::Gathering Communicator::begin_all_gather(const at::Tensor& tensor) {
  Gathering gathering;
  if (!group_) {
    gathering.gathered_ = tensor.unsqueeze(0);
    return gathering;
  }
  at::Tensor part = tensor.contiguous().view(-1), all = at::empty({size() * part.numel()}, part.options());
  c10::intrusive_ptr<c10d::Work> work;
  guarded([&] { work = group_->process_group->_allgather_base(all, part); });
  // `part` is kept until the transfer has ended.
  gathering.arrive_ = [this, work, part] { guarded([&] { work->wait(); }); };
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes.insert(sizes.begin(), size());
  gathering.gathered_ = all.view(sizes);
  return gathering;
}

at::Tensor Communicator::Gathering::wait() {
  if (arrive_) arrive_();
  return gathered_;
}

at::Tensor Communicator::scatter_sum(const at::Tensor& tensor) {
  if (!group_) return tensor;
  at::Tensor parts = tensor.contiguous();
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes.front() /= size();
  at::Tensor own = at::empty(sizes, parts.options());
  guarded([&] { group_->process_group->_reduce_scatter_base(own, parts)->wait(); });
  return own;
}

int64_t Communicator::max(int64_t value) {
  if (!group_) return value;
  std::vector<at::Tensor> tensors = {at::full({1}, value, at::kLong)};
  c10d::AllreduceOptions options;
  options.reduceOp = c10d::ReduceOp::MAX;
  guarded([&] { group_->process_group->allreduce(tensors, options)->wait(); });
  return tensors.front().item<int64_t>();
}

void Communicator::broadcast_state(const torch::nn::Module& module) {
  if (!group_) return;
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& tensor : module.parameters()) tensors.push_back(tensor.detach());
  for (const at::Tensor& tensor : module.buffers()) tensors.push_back(tensor.detach());
  guarded([&] { c10d::broadcast_coalesced(group_->process_group, tensors, kBroadcastBytes); });
}

void Communicator::check() const {
  if (!group_) return;
  if (const auto verdict = group_->watch->verdict()) throw Error("data parallel: " + *verdict);
}

void Communicator::guarded(const std::function<void()>& collective) {
  if (!group_) return collective();
  check();
  try {
    collective();
  } catch (const std::exception& error) {
    if (const auto verdict = group_->watch->diagnose()) {
      throw Error(fmt::format("data parallel: {} ({})", *verdict, text_of(error)));
    }
    throw;
  }
}

void Communicator::report(const std::string& reason) {
  if (group_) group_->watch->report(reason);
}

const c10::intrusive_ptr<c10d::ProcessGroup>& Communicator::process_group() const { return group_->process_group; }

int run_in_world(const World& world, at::Device device,
                 const std::function<int(const std::shared_ptr<Communicator>&)>& body,
                 const Communicator::Options& options) {
  const auto communicator = std::make_shared<Communicator>(world, device, options);
  try {
    const int status = body(communicator);
    communicator->max(status);  // all leave together: rank 0 may have work left, and the others' errors come with it
    return status;
  } catch (const std::exception& error) {
    communicator->report(text_of(error));
    throw;
  }
}

}  // namespace strobe::train
