// Files of the cn_clip package that are for use here too, found where scripts/setup.sh installs it.
#pragma once

#include <filesystem>

namespace strobe::clip {

/// vocab.txt of the cn_clip package in $VIRTUAL_ENV, else in the checkout's .venv. Throws strobe::Error naming both
/// places and --vocab where there is none.
std::filesystem::path default_vocabulary();

/// The package's file of templates for zero-shot classification, found in the same way; the error names --templates.
std::filesystem::path default_templates();

}  // namespace strobe::clip
