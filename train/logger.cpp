#include "train/logger.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "strobe/types.h"

namespace strobe::train {
namespace {

/// The level as Python's logging spells it: INFO, WARNING, ERROR.
class UpperCaseLevel : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& output) override {
    for (const char c : spdlog::level::to_string_view(message.level)) {
      output.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<UpperCaseLevel>(); }
};

spdlog::sink_ptr with_pattern(spdlog::sink_ptr sink, const std::string& pattern) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<UpperCaseLevel>('*').set_pattern(pattern);
  sink->set_formatter(std::move(formatter));
  return sink;
}

spdlog::sink_ptr console_sink(bool to_stderr) {
  if (to_stderr) return std::make_shared<spdlog::sinks::stderr_sink_mt>();
  return std::make_shared<spdlog::sinks::stdout_sink_mt>();
}

}  // namespace

Logger::Logger(const std::filesystem::path& file, Mode mode, bool console) : Logger(file, mode, console, Style{}) {}

Logger::Logger(const std::filesystem::path& file, Mode mode, bool console, const Style& style) {
  std::vector<spdlog::sink_ptr> sinks;
  try {
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
    if (!file.empty()) {
      const bool truncate = mode == Mode::kTruncate;
      sinks.push_back(
          with_pattern(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string(), truncate), style.file));
    }
  } catch (const std::exception& error) {
    throw Error("log file " + file.string() + ": cannot be written: " + error.what());
  }
  if (console) sinks.push_back(with_pattern(console_sink(style.to_stderr), style.console));
  logger_ = std::make_shared<spdlog::logger>("train", sinks.begin(), sinks.end());
  if (style.debug) logger_->set_level(spdlog::level::debug);
  logger_->flush_on(spdlog::level::debug);
}

Logger::Logger() : logger_(std::make_shared<spdlog::logger>("train")) {}

Logger::~Logger() = default;

void Logger::debug(std::string_view message) { write(spdlog::level::debug, message); }
void Logger::info(std::string_view message) { write(spdlog::level::info, message); }
void Logger::warning(std::string_view message) { write(spdlog::level::warn, message); }
void Logger::error(std::string_view message) { write(spdlog::level::err, message); }

void Logger::write(int level, std::string_view message) {
  if (hook_) hook_();
  logger_->log(static_cast<spdlog::level::level_enum>(level), message);
}

}  // namespace strobe::train
