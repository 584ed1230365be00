#include "train/checkpoint.h"

#include <ATen/ops/empty.h>
#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>

#include "train/atomic_file.h"
#include "train/mapped_file.h"
#include "train/pickle.h"
#include "train/zip_archive.h"

namespace strobe::train {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, const std::string& what) {
  throw CheckpointError("checkpoint " + file.string() + ": " + what);
}

at::Tensor bytes_on_cpu(const c10::Storage& storage) {
  at::Tensor bytes = at::empty({0}, at::device(storage.device()).dtype(at::kByte));
  bytes.set_(storage, 0, {static_cast<int64_t>(storage.nbytes())}, {1});
  return bytes.cpu();
}

/// How torch.save's files began before version 1.6: its magic number as a pickle of protocol 2.
constexpr std::string_view kLegacyStart("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19", 14);

/// Throws CheckpointError without the name of the file.
Value read_archive(const fs::path& file, Objects objects) {
  const auto mapped = MappedFile::open(file);
  if (mapped->bytes().starts_with(kLegacyStart)) {
    throw CheckpointError(
        "is of the form that PyTorch wrote before version 1.6, not a checkpoint in a zip archive: load "
        "and save it once with a newer PyTorch");
  }
  const ZipArchive archive(mapped->bytes());
  if (!archive.contains("data.pkl"))
    throw CheckpointError("expected a checkpoint, found a zip archive without data.pkl");
  if (archive.contains("byteorder") && archive.record("byteorder") != "little") {
    throw CheckpointError("is not little-endian");
  }
  const auto read_storage = [&](const std::string& name, std::size_t bytes) {
    const std::string_view data = archive.record("data/" + name);
    if (data.size() < bytes) throw CheckpointError("the record data/" + name + " is too short");
    return mapped->storage(data);
  };
  return read_pickle(archive.record("data.pkl"), read_storage, objects);
}

std::string list_names(const char* what, const std::vector<std::string>& names) {
  return names.empty() ? "" : fmt::format("; {}: {}", what, fmt::join(names, ", "));
}

}  // namespace

void save_checkpoint(const fs::path& file, const Dict& content) {
  const Pickle pickle = write_pickle(content);
  write_atomically(file, [&](AtomicFile& output) {
    caffe2::serialize::PyTorchStreamWriter archive([&](const void* data, std::size_t size) {
      output.write(static_cast<const char*>(data), size);
      return size;
    });
    archive.writeRecord("data.pkl", pickle.data.data(), pickle.data.size());
    archive.writeRecord("byteorder", "little", 6);
    for (std::size_t i = 0; i < pickle.storages.size(); ++i) {
      const at::Tensor bytes = bytes_on_cpu(pickle.storages[i]);
      archive.writeRecord(fmt::format("data/{}", i), bytes.const_data_ptr(), bytes.nbytes());
    }
    archive.writeEndOfFile();
  });
}

Dict load_checkpoint(const fs::path& file, Objects objects) {
  try {
    Value root = read_archive(file, objects);
    (void)root.as_dict();
    return std::get<Dict>(std::move(root.data));
  } catch (const CheckpointError& error) {
    fail(file, error.what());
  } catch (const std::exception& error) {
    fail(file, std::string("cannot be read: ") + error.what());
  }
}

Dict module_state(const torch::nn::Module& module) {
  Dict state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

void load_module_state(torch::nn::Module& module, const Dict& state) {
  const Dict own = module_state(module);
  std::vector<std::string> missing, unexpected, misshaped;
  for (const auto& [key, value] : own) {
    const auto& name = std::get<std::string>(key);
    const Value* saved = state.find(key);
    if (saved == nullptr) {
      missing.push_back(name);
    } else if (saved->as_tensor().sizes() != value.as_tensor().sizes()) {
      misshaped.push_back(fmt::format("{} (expected [{}], found [{}])", name,
                                      fmt::join(value.as_tensor().sizes(), ", "),
                                      fmt::join(saved->as_tensor().sizes(), ", ")));
    }
  }
  for (const auto& [key, value] : state) {
    if (own.contains(key)) continue;
    const auto* text = std::get_if<std::string>(&key);
    unexpected.push_back(text != nullptr ? *text : std::to_string(std::get<int64_t>(key)));
  }
  if (!missing.empty() || !unexpected.empty() || !misshaped.empty()) {
    throw CheckpointError("weights that do not fit the model" + list_names("missing", missing) +
                          list_names("unexpected", unexpected) + list_names("of another shape", misshaped));
  }
  const at::NoGradGuard no_grad;
  for (const auto& [key, value] : own) value.as_tensor().copy_(state.at(key).as_tensor());
}

}  // namespace strobe::train
