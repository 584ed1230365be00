// The text log: each message to a file with time and level, and bare to the console.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace spdlog {
class logger;
}

namespace strobe::train {

class Logger {
 public:
  enum class Mode { kTruncate, kAppend };

  /// How lines look, in spdlog's patterns, where `%*` is the level as Python's logging spells it.
  struct Style {
    std::string file = "%Y-%m-%d %H:%M:%S,%e:%*: %v";  // 2026-11-22 10:00:00,123:INFO: message
    std::string console = "%v";
    bool to_stderr = false;  // the console's lines; else standard output
    bool debug = false;      // whether debug messages are written
  };

  /// Creates the file's folder; an empty name is no file. Throws strobe::Error naming the file where it cannot be
  /// written.
  explicit Logger(const std::filesystem::path& file, Mode mode = Mode::kTruncate, bool console = true);
  Logger(const std::filesystem::path& file, Mode mode, bool console, const Style& style);
  Logger();  // writes nowhere
  ~Logger();

  void debug(std::string_view message);
  void info(std::string_view message);
  void warning(std::string_view message);
  void error(std::string_view message);

  /// Called before each message reaches the console: a progress line clears itself there. Empty: nothing is called.
  void before_message(std::function<void()> hook) { hook_ = std::move(hook); }

 private:
  void write(int level, std::string_view message);
  std::shared_ptr<spdlog::logger> logger_;
  std::function<void()> hook_;
};

}  // namespace strobe::train
