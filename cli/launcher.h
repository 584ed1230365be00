// `--nproc N`: the same command in N processes on this machine.
#pragma once

#include <CLI/CLI.hpp>

#include <optional>

namespace strobe::cli {

/// For every command that trains.
struct ProcessOptions {
  int processes = 1;

  void add_to(CLI::App& command);

  /// Where --nproc asks for several processes and this is not one of them: starts them, forwards SIGINT and SIGTERM,
  /// waits, and returns the exit status: 0, that of a run that a signal has stopped, or that of the first process that
  /// failed, which stderr then names, with the others stopped. Null: this process is to do the work itself. Throws
  /// strobe::Error where another launcher has started this process.
  std::optional<int> launch() const;
};

}  // namespace strobe::cli
