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

spdlog::sink_ptr file_sink(const std::filesystem::path& file, bool truncate) {
  auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string(), truncate);
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<UpperCaseLevel>('*').set_pattern("%Y-%m-%d %H:%M:%S,%e:%*: %v");
  sink->set_formatter(std::move(formatter));
  return sink;
}

}  // namespace

Logger::Logger(const std::filesystem::path& file, Mode mode, bool console) {
  std::vector<spdlog::sink_ptr> sinks;
  try {
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
    sinks.push_back(file_sink(file, mode == Mode::kTruncate));
  } catch (const std::exception& error) {
    throw Error("log file " + file.string() + ": cannot be written: " + error.what());
  }
  if (console) {
    auto sink = std::make_shared<spdlog::sinks::stdout_sink_mt>();
    sink->set_pattern("%v");
    sinks.push_back(std::move(sink));
  }
  logger_ = std::make_shared<spdlog::logger>("train", sinks.begin(), sinks.end());
  logger_->flush_on(spdlog::level::info);
}

Logger::Logger() : logger_(std::make_shared<spdlog::logger>("train")) {}

Logger::~Logger() = default;

void Logger::info(std::string_view message) { write(spdlog::level::info, message); }
void Logger::warning(std::string_view message) { write(spdlog::level::warn, message); }
void Logger::error(std::string_view message) { write(spdlog::level::err, message); }

void Logger::write(int level, std::string_view message) {
  if (hook_) hook_();
  logger_->log(static_cast<spdlog::level::level_enum>(level), message);
}

}  // namespace strobe::train
