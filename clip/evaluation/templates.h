// The texts around a class's name that zero-shot classification averages over (Radford et al. 2021, section 3.1.4).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::clip {

/// The set that the original takes for a data set: "flower_templates" for oxford-flower-102, ..., "openai_templates"
/// for every other.
std::string template_set(std::string_view dataset);

/// Reads one set, `name = [lambda c: f"...{c}...", ...]`, of cn_clip's cvinw_zeroshot_templates.py or a file written
/// like it. Nothing is executed. Each template has "{c}" where the class's name goes. Throws strobe::Error naming file
/// and set where there is no such set or it holds anything else.
std::vector<std::string> read_templates(const std::filesystem::path& file, std::string_view set);

std::string fill_template(std::string_view text, std::string_view class_name);

}  // namespace strobe::clip
