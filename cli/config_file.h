// A command's options from a TOML file or a preset, and back into one: what the command line gives wins over the file,
// the file over the preset, the preset over the defaults.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace strobe::cli {

/// A named set of options in the form of a configuration file.
struct Preset {
  std::string name;
  std::string summary;  // for --help
  std::string_view toml;
};

class ConfigFile {
 public:
  /// Adds --config FILE, --dump-config and, where there are presets, --preset NAME to a command whose other options
  /// have been added.
  ConfigFile(CLI::App& command, std::vector<Preset> presets);

  /// To be called when the command line has been parsed: gives the options that it left out what the file and the
  /// preset say. Throws strobe::Error for a file that cannot be read, is not TOML (with the line), or holds a key that
  /// is no option (with the nearest name) or a value that the option refuses.
  void apply();

  bool wants_dump() const { return dump_; }

  /// Every option with its present value as TOML, by group, with its help as comment: a file for --config.
  std::string dump() const;

 private:
  void apply(std::string_view toml, const std::string& origin);

  CLI::App& command_;
  std::vector<Preset> presets_;
  std::string file_, preset_;
  bool dump_ = false;
};

}  // namespace strobe::cli
