#include "cli/config_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "cli/options.h"
#include "strobe/types.h"

namespace strobe::cli {
namespace {

constexpr const char* kGroup = "Configuration";

std::string read_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf()).good()) throw Error("--config: " + file + " cannot be read, or is empty");
  return text.str();
}

/// The option that a key names; its dashes may be underscores.
CLI::Option& option_of(CLI::App& command, std::string key, const std::string& origin) {
  CLI::Option* option = command.get_option_no_throw("--" + key);
  if (option == nullptr) {
    std::string dashed = key;
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    option = command.get_option_no_throw("--" + dashed);
  }
  if (option != nullptr && option->get_configurable()) return *option;
  std::vector<std::string> known;
  for (const CLI::Option* other : command.get_options()) {
    if (other->get_configurable()) known.insert(known.end(), other->get_lnames().begin(), other->get_lnames().end());
  }
  const std::string near = nearest(key, known);
  throw Error(origin + ": unknown key \"" + key + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
}

std::string text_of(const toml::node& node, const std::string& key, const std::string& origin) {
  if (const auto* text = node.as_string()) return text->get();
  if (!node.is_integer() && !node.is_floating_point() && !node.is_boolean()) {
    throw Error(origin + ": key \"" + key + "\": expected a string, a number, true or false, or a list of these");
  }
  std::ostringstream out;
  node.visit([&](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) out << value;
  });
  return out.str();
}

std::vector<std::string> texts_of(const toml::node& node, const std::string& key, const std::string& origin) {
  const toml::array* list = node.as_array();
  if (list == nullptr) return {text_of(node, key, origin)};
  std::vector<std::string> texts;
  for (const toml::node& item : *list) texts.push_back(text_of(item, key, origin));
  return texts;
}

/// A result of the command line as TOML: what reads as a number or truth value is one, all else a string.
std::string toml_of(const std::string& text) {
  if (text == "true" || text == "false") return text;
  try {
    const toml::table parsed = toml::parse("x = " + text);
    if (parsed.size() == 1 && parsed["x"].is_number()) return text;
  } catch (const toml::parse_error&) {
  }
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}

std::string toml_of(const std::vector<std::string>& texts) {
  if (texts.size() == 1) return toml_of(texts.front());
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + toml_of(text);
  return "[" + list + "]";
}

std::string value_of(const CLI::Option& option) {
  if (!option.results().empty()) return toml_of(option.results());
  if (!option.get_default_str().empty()) return toml_of(option.get_default_str());
  return option.get_expected_min() == 0 ? "false" : "";
}

}  // namespace

ConfigFile::ConfigFile(CLI::App& command, std::vector<Preset> presets)
    : command_(command), presets_(std::move(presets)) {
  command.add_option("--config", file_, "a TOML file of these options, without their dashes; flags win over it")
      ->type_name("FILE")
      ->configurable(false)
      ->group(kGroup);
  command.add_flag("--dump-config", dump_, "print the configuration as such a file and end")
      ->configurable(false)
      ->group(kGroup);
  if (presets_.empty()) return;
  std::vector<std::string> names;
  std::string help = "values for what neither flags nor --config give";
  for (const Preset& preset : presets_) {
    names.push_back(preset.name);
    help += "\n" + preset.name + ": " + preset.summary;
  }
  command.add_option("--preset", preset_, help)->check(one_of(names))->configurable(false)->group(kGroup);
}

void ConfigFile::apply() {
  if (!file_.empty()) apply(read_file(file_), "--config " + file_);
  for (const Preset& preset : presets_) {
    if (preset.name == preset_) apply(preset.toml, "--preset " + preset.name);
  }
}

void ConfigFile::apply(std::string_view toml, const std::string& origin) {
  toml::table table;
  try {
    table = toml::parse(toml);
  } catch (const toml::parse_error& error) {
    throw Error(origin + ", line " + std::to_string(error.source().begin.line) + ": " +
                std::string(error.description()));
  }
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    CLI::Option& option = option_of(command_, name, origin);
    if (option.count() > 0) continue;
    try {
      option.add_result(texts_of(node, name, origin));
      option.run_callback();
    } catch (const CLI::ParseError& error) {
      throw Error(origin + ": " + error.what());
    }
  }
}

std::string ConfigFile::dump() const {
  std::ostringstream out;
  std::string group;
  for (const CLI::Option* option : command_.get_options()) {
    const std::string value = value_of(*option);
    if (!option->get_configurable() || option->get_lnames().empty() || value.empty()) continue;
    if (option->get_group() != group) {
      group = option->get_group();
      out << "\n# " << group << '\n';
    }
    std::string help = option->get_description();
    std::replace(help.begin(), help.end(), '\n', ' ');
    out << option->get_lnames().front() << " = " << value << (help.empty() ? "" : "  # " + help) << '\n';
  }
  return out.str();
}

}  // namespace strobe::cli
