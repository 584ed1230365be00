// Python's pickle, as far as checkpoints need it: plain values and tensors, protocol 2 written, 2 to 5 read.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "train/value.h"

namespace strobe::train {

/// A pickle and what it refers to: the storage called "i" is storages[i].
struct Pickle {
  std::string data;
  std::vector<c10::Storage> storages;
};

/// Tensors that share a storage go on sharing it (as long as they have one dtype); they are written as the CPU's and
/// without requires_grad. Throws CheckpointError for text that is not UTF-8 and tensors that are not dense.
Pickle write_pickle(const Value& root);

/// Called once for each storage by the name that the pickle gives it; returns at least `bytes` bytes on the CPU or
/// throws.
using StorageReader = std::function<c10::Storage(const std::string& name, std::size_t bytes)>;

/// What becomes of objects that are neither values nor tensors. Nothing is executed either way.
enum class Objects {
  kRefused,  // by the name of their class
  kOpaque,   // those of the classes that people put beside weights (argparse.Namespace, numpy's scalars, dtypes, paths,
             // ...) become Opaque, TorchScript's modules a Dict of their attributes; others are refused by name
};

/// Reads plain values, OrderedDict, torch.Size, tensors and parameters (as tensors). Throws CheckpointError.
Value read_pickle(std::string_view data, const StorageReader& read_storage, Objects objects = Objects::kRefused);

}  // namespace strobe::train
