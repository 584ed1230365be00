// What the commands' options have in common.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace strobe::cli {

/// The candidate nearest to `word` by edit distance, or "" where none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// Checks at parsing time that a value is one of `allowed`; the error names the option, the value and the nearest name.
CLI::Validator one_of(std::vector<std::string> allowed);

/// "strobe nmt train": a command's name with those of the commands above it.
std::string path_of(const CLI::App& command);

/// The command with the options that were given on the command line, quoted for a shell: what repeats a run.
std::string command_line(const CLI::App& command);

}  // namespace strobe::cli
