#include "clip/data/lmdb.h"

#include <fmt/format.h>

#include <system_error>
#include <utility>

#include "clip/data/error.h"

namespace strobe::clip {
namespace {

constexpr std::size_t kFirstMapSize = std::size_t{64} << 20;
constexpr std::size_t kMaxUncommitted = std::size_t{16} << 20;  // bytes; what is written again after growing

MDB_val value_of(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }
std::string_view bytes_of(const MDB_val& value) { return {static_cast<const char*>(value.mv_data), value.mv_size}; }

void check(int status, const std::filesystem::path& folder, const char* what) {
  if (status != MDB_SUCCESS) {
    throw DataError(fmt::format("{}: {}: {}", folder.string(), what, mdb_strerror(status)));
  }
}

/// A read transaction for one look-up: it takes no lock, and lets threads share the database.
class ReadTransaction {
 public:
  ReadTransaction(MDB_env* env, const std::filesystem::path& folder) {
    check(mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn_), folder, "reading");
  }
  ~ReadTransaction() { mdb_txn_abort(txn_); }
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;
  MDB_txn* get() const { return txn_; }

 private:
  MDB_txn* txn_ = nullptr;
};

/// Pages beyond the file's end would kill the process when they are touched.
void check_length(MDB_env* env, const std::filesystem::path& folder) {
  MDB_envinfo info;
  MDB_stat stat;
  check(mdb_env_info(env, &info), folder, "opening");
  check(mdb_env_stat(env, &stat), folder, "opening");
  const std::uintmax_t expected = (static_cast<std::uintmax_t>(info.me_last_pgno) + 1) * stat.ms_psize;
  std::error_code error;
  const std::uintmax_t found = std::filesystem::file_size(folder / "data.mdb", error);
  if (error || found < expected) {
    throw DataError(fmt::format("{}: data.mdb is cut short: expected {} bytes, found {}", folder.string(), expected,
                                error ? 0 : found));
  }
}

}  // namespace

LmdbReader::LmdbReader(const std::filesystem::path& folder) : folder_(folder) {
  if (!std::filesystem::is_regular_file(folder / "data.mdb")) {
    throw DataError(fmt::format("{}: expected an LMDB database (a folder with data.mdb)", folder.string()));
  }
  MDB_env* env = nullptr;
  check(mdb_env_create(&env), folder_, "opening");
  env_.reset(env);
  check(mdb_env_open(env, folder.c_str(), MDB_RDONLY | MDB_NOLOCK | MDB_NORDAHEAD | MDB_NOTLS, 0644), folder_,
        "opening");
  check_length(env, folder_);
  const ReadTransaction transaction(env, folder_);
  check(mdb_dbi_open(transaction.get(), nullptr, 0, &database_), folder_, "opening");
}

std::optional<std::string> LmdbReader::get(std::string_view key) const {
  if (key.empty() || key.size() > kMaxLmdbKeyBytes) return std::nullopt;
  const ReadTransaction transaction(env_.get(), folder_);
  MDB_val wanted = value_of(key), found;
  const int status = mdb_get(transaction.get(), database_, &wanted, &found);
  if (status == MDB_NOTFOUND) return std::nullopt;
  check(status, folder_, "reading");
  return std::string(bytes_of(found));
}

void LmdbReader::visit_keys(const std::function<void(std::string_view key)>& visit) const {
  const ReadTransaction transaction(env_.get(), folder_);
  MDB_cursor* cursor = nullptr;
  check(mdb_cursor_open(transaction.get(), database_, &cursor), folder_, "reading");
  const std::unique_ptr<MDB_cursor, void (*)(MDB_cursor*)> close(cursor, mdb_cursor_close);
  MDB_val key, value;
  int status;
  while ((status = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) visit(bytes_of(key));
  if (status != MDB_NOTFOUND) check(status, folder_, "reading");
}

LmdbWriter::LmdbWriter(const std::filesystem::path& folder) : folder_(folder), map_size_(kFirstMapSize) {
  std::filesystem::create_directories(folder);
  check(mdb_env_create(&env_), folder_, "creating");
  try {
    check(mdb_env_set_mapsize(env_, map_size_), folder_, "creating");
    // Nothing is there to be kept consistent before finish() has written it all.
    check(mdb_env_open(env_, folder.c_str(), MDB_NOSYNC, 0644), folder_, "creating");
    begin();
    check(mdb_dbi_open(txn_, nullptr, 0, &database_), folder_, "creating");
  } catch (...) {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
    mdb_env_close(env_);
    throw;
  }
}

LmdbWriter::~LmdbWriter() {
  if (txn_ != nullptr) mdb_txn_abort(txn_);
  mdb_env_close(env_);
}

void LmdbWriter::begin() { check(mdb_txn_begin(env_, nullptr, 0, &txn_), folder_, "writing"); }

int LmdbWriter::try_put(const std::string& key, const std::string& value, unsigned flags) {
  MDB_val k = value_of(key), v = value_of(value);
  return mdb_put(txn_, database_, &k, &v, flags);
}

bool LmdbWriter::contains(std::string_view key) {
  if (key.empty() || key.size() > kMaxLmdbKeyBytes) return false;
  MDB_val wanted = value_of(key), found;
  const int status = mdb_get(txn_, database_, &wanted, &found);
  if (status != MDB_NOTFOUND) check(status, folder_, "reading");
  return status == MDB_SUCCESS;
}

/// The map was too small: what was not committed is lost with its transaction and written again into a larger one.
void LmdbWriter::grow() {
  for (int status = MDB_MAP_FULL; status == MDB_MAP_FULL;) {
    if (txn_ != nullptr) mdb_txn_abort(std::exchange(txn_, nullptr));
    map_size_ *= 2;
    check(mdb_env_set_mapsize(env_, map_size_), folder_, "growing");
    begin();
    status = MDB_SUCCESS;
    for (const auto& [key, value] : uncommitted_) {
      if (status == MDB_SUCCESS) status = try_put(key, value, 0);
    }
    if (status != MDB_MAP_FULL) check(status, folder_, "writing");
  }
}

void LmdbWriter::commit() {
  while (true) {
    const int status = mdb_txn_commit(std::exchange(txn_, nullptr));
    if (status == MDB_SUCCESS) break;
    if (status != MDB_MAP_FULL) check(status, folder_, "writing");
    grow();
  }
  uncommitted_.clear();
  uncommitted_bytes_ = 0;
}

bool LmdbWriter::put(std::string_view key, std::string_view value) {
  if (key.empty() || key.size() > kMaxLmdbKeyBytes) {
    throw DataError(fmt::format("{}: expected a key of 1 to {} bytes, found {} (\"{}...\")", folder_.string(),
                                kMaxLmdbKeyBytes, key.size(), key.substr(0, 40)));
  }
  const bool is_new = !contains(key);
  uncommitted_.emplace_back(key, value);
  const auto& [own_key, own_value] = uncommitted_.back();
  uncommitted_bytes_ += key.size() + value.size();
  const int status = try_put(own_key, own_value, 0);
  if (status == MDB_MAP_FULL) {
    grow();
  } else {
    check(status, folder_, "writing");
  }
  if (uncommitted_bytes_ >= kMaxUncommitted) {
    commit();
    begin();
  }
  return is_new;
}

void LmdbWriter::finish() {
  commit();
  check(mdb_env_sync(env_, 1), folder_, "writing");
}

}  // namespace strobe::clip
