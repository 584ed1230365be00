// What building a split's folder takes, whatever the source.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "clip/data/build_lmdb.h"
#include "clip/data/lmdb.h"
#include "train/progress.h"

namespace strobe::clip::internal {

constexpr int kMaxWarnings = 10;  // of a kind

/// Passes on the first warnings of each kind.
class Warnings {
 public:
  explicit Warnings(OnWarning on_warning) : on_warning_(std::move(on_warning)) {}

  void add(const char* kind, const std::filesystem::path& file, int64_t line, const std::string& what) {
    if (++counts_[kind] <= kMaxWarnings && on_warning_) {
      on_warning_(fmt::format("{}, line {}: {}", file.string(), line, what));
    }
  }

 private:
  OnWarning on_warning_;
  std::map<std::string, int> counts_;
};

/// "train images: 12000, 3456/s, 0:42 left".
class Progress {
 public:
  explicit Progress(std::string what) : what_(std::move(what)) {}

  void show(int64_t count, int64_t bytes, int64_t total_bytes) {
    if (!line_.due()) return;
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    if (seconds <= 0 || bytes <= 0) return;
    const double left =
        seconds * static_cast<double>(std::max<int64_t>(total_bytes - bytes, 0)) / static_cast<double>(bytes);
    line_.show(fmt::format("{}: {}, {:.0f}/s, {} left", what_, count, static_cast<double>(count) / seconds,
                           train::format_duration(left)));
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  Clock::time_point start_ = Clock::now();
  train::ProgressLine line_;
};

/// A split's folder while its databases are made beside the old ones.
class SplitFolder {
 public:
  explicit SplitFolder(const std::filesystem::path& folder) : folder_(folder) {
    std::filesystem::create_directories(folder);
    images_ = std::make_unique<LmdbWriter>(stage("imgs"));
    pairs_ = std::make_unique<LmdbWriter>(stage("pairs"));
  }
  ~SplitFolder() {
    images_.reset();
    pairs_.reset();
    std::error_code ignored;
    for (const std::string& name : names_) std::filesystem::remove_all(staged(name), ignored);
  }
  SplitFolder(const SplitFolder&) = delete;
  SplitFolder& operator=(const SplitFolder&) = delete;

  LmdbWriter& images() { return *images_; }
  LmdbWriter& pairs() { return *pairs_; }

  /// Where a part of the folder is written until it is whole.
  std::filesystem::path stage(const std::string& name) {
    std::filesystem::remove_all(staged(name));  // of an interrupted build
    names_.push_back(name);
    return staged(name);
  }

  void finish(const BuildReport& report) {
    images_->put("num_images", std::to_string(report.images));
    pairs_->put("num_samples", std::to_string(report.pairs));
    for (auto* writer : {&images_, &pairs_}) {
      (*writer)->finish();
      writer->reset();
    }
    for (const std::string& name : names_) {
      const std::filesystem::path old = folder_ / (name + ".old");
      std::filesystem::remove_all(old);
      if (std::filesystem::exists(folder_ / name)) std::filesystem::rename(folder_ / name, old);
      std::filesystem::rename(staged(name), folder_ / name);
      std::filesystem::remove_all(old);
    }
    names_.clear();
  }

 private:
  std::filesystem::path staged(const std::string& name) const { return folder_ / (name + ".building"); }

  std::filesystem::path folder_;
  std::vector<std::string> names_;
  std::unique_ptr<LmdbWriter> images_, pairs_;
};

}  // namespace strobe::clip::internal
