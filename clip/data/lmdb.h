// LMDB databases (Howard Chu, Lightning Memory-Mapped Database) as folders with data.mdb, keys and values being bytes.
#pragma once

#include <lmdb.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::clip {

constexpr std::size_t kMaxLmdbKeyBytes = 511;  // LMDB's compiled-in limit

/// Reads without locks and without read-ahead; all methods may be called from any number of threads. The folder must
/// not be written meanwhile. Throws DataError naming the folder.
class LmdbReader {
 public:
  explicit LmdbReader(const std::filesystem::path& folder);

  std::optional<std::string> get(std::string_view key) const;
  /// All keys in the database's order.
  void visit_keys(const std::function<void(std::string_view key)>& visit) const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  struct Close {
    void operator()(MDB_env* env) const { mdb_env_close(env); }
  };
  std::filesystem::path folder_;
  std::unique_ptr<MDB_env, Close> env_;
  MDB_dbi database_ = 0;
};

/// Fills a new database in an empty folder. The map starts small and grows as needed, so that no address space or disk
/// is claimed in advance. Throws DataError naming the folder.
class LmdbWriter {
 public:
  explicit LmdbWriter(const std::filesystem::path& folder);
  ~LmdbWriter();
  LmdbWriter(const LmdbWriter&) = delete;
  LmdbWriter& operator=(const LmdbWriter&) = delete;

  /// False where the key was there before; its value is replaced.
  bool put(std::string_view key, std::string_view value);
  bool contains(std::string_view key);
  void finish();  // writes what is left to the disk; nothing may follow

 private:
  void begin();
  void commit();
  void grow();
  int try_put(const std::string& key, const std::string& value, unsigned flags);

  std::filesystem::path folder_;
  MDB_env* env_ = nullptr;
  MDB_txn* txn_ = nullptr;
  MDB_dbi database_ = 0;
  std::size_t map_size_ = 0;
  std::vector<std::pair<std::string, std::string>> uncommitted_;
  std::size_t uncommitted_bytes_ = 0;
};

}  // namespace strobe::clip
