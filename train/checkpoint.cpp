#include "train/checkpoint.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <caffe2/serialize/inline_container.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/nn/module.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "train/pickle.h"

namespace strobe::train {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, const std::string& what) {
  throw CheckpointError("checkpoint " + file.string() + ": " + what);
}

/// A file that takes its final name only when all of it is on the disk.
class AtomicFile {
 public:
  explicit AtomicFile(const fs::path& file) : file_(file), temporary_(file.string() + ".tmp") {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(file_, std::string("cannot be written: ") + std::strerror(errno));
  }

  ~AtomicFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }

  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Remembers a failure for commit() instead of reporting it: the archive writer's destructor cannot bear one.
  void write(const char* data, std::size_t size) {
    while (size > 0 && error_ == 0) {
      const ssize_t written = ::write(fd_, data, size);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) {
        error_ = errno;
        return;
      }
      data += written;
      size -= static_cast<std::size_t>(written);
    }
  }

  void commit() {
    if (error_ == 0 && ::fsync(fd_) != 0) error_ = errno;
    if (error_ != 0) fail(file_, std::string("cannot be written: ") + std::strerror(error_));
    if (::rename(temporary_.c_str(), file_.c_str()) != 0) {
      fail(file_, std::string("cannot be renamed from ") + temporary_ + ": " + std::strerror(errno));
    }
    ::close(std::exchange(fd_, -1));
    sync_folder();
  }

 private:
  /// Without it the rename may be lost with the power. Some file systems cannot do it, and then the file is there
  /// anyway.
  void sync_folder() const {
    const std::string folder = file_.has_parent_path() ? file_.parent_path().string() : ".";
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    ::fsync(fd);
    ::close(fd);
  }

  fs::path file_;
  std::string temporary_;
  int fd_ = -1;
  int error_ = 0;
};

at::Tensor bytes_on_cpu(const c10::Storage& storage) {
  at::Tensor bytes = at::empty({0}, at::device(storage.device()).dtype(at::kByte));
  bytes.set_(storage, 0, {static_cast<int64_t>(storage.nbytes())}, {1});
  return bytes.cpu();
}

/// Throws CheckpointError without the name of the file.
Value read_archive(const fs::path& file) {
  caffe2::serialize::PyTorchStreamReader reader(file.string());
  if (!reader.hasRecord("data.pkl"))
    throw CheckpointError("expected a checkpoint, found a zip archive without data.pkl");
  if (reader.hasRecord("byteorder")) {
    const auto [order, size] = reader.getRecord("byteorder");
    if (std::string_view(static_cast<const char*>(order.get()), size) != "little")
      throw CheckpointError("is not little-endian");
  }
  const auto read_storage = [&](const std::string& name, std::size_t bytes) {
    const std::string record = "data/" + name;
    if (!reader.hasRecord(record)) throw CheckpointError("lacks the record " + record);
    if (reader.getRecordSize(record) < bytes) throw CheckpointError("the record " + record + " is too short");
    auto [data, size] = reader.getRecord(record);
    return c10::Storage(c10::Storage::use_byte_size_t(), size, std::move(data));
  };
  const auto [pickle, size] = reader.getRecord("data.pkl");
  return read_pickle({static_cast<const char*>(pickle.get()), size}, read_storage);
}

/// Of what ATen's archive reader says; the rest is guesses and a stack trace.
std::string first_sentence(const std::string& text) {
  return text.substr(0, std::min(text.find(". "), text.find('\n')));
}

std::string list_names(const char* what, const std::vector<std::string>& names) {
  return names.empty() ? "" : fmt::format("; {}: {}", what, fmt::join(names, ", "));
}

}  // namespace

void save_checkpoint(const fs::path& file, const Dict& content) {
  const Pickle pickle = write_pickle(content);
  try {
    if (file.has_parent_path()) fs::create_directories(file.parent_path());
    AtomicFile output(file);
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
    output.commit();
  } catch (const CheckpointError&) {
    throw;
  } catch (const c10::Error& error) {
    fail(file, "cannot be written: " + first_sentence(error.what_without_backtrace()));
  } catch (const std::exception& error) {
    fail(file, std::string("cannot be written: ") + error.what());
  }
}

Dict load_checkpoint(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) fail(file, "no such file");
  if (!fs::is_regular_file(file, ignored)) fail(file, "is not a file");
  try {
    Value root = read_archive(file);
    (void)root.as_dict();
    return std::get<Dict>(std::move(root.data));
  } catch (const CheckpointError& error) {
    fail(file, error.what());
  } catch (const c10::Error& error) {
    fail(file, "cannot be read (truncated, or not a checkpoint): " + first_sentence(error.what_without_backtrace()));
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
