// The program: finds the command, runs it, and turns what it throws into one line on stderr and an exit status
// (0 done, 1 failed, 2 wrong usage, 128 + n ended by signal n).
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/options.h"
#include "train/environment.h"

namespace strobe::cli {
namespace {

/// The innermost command that was named.
const CLI::App* selected_command(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return app;
}

/// What stands where no option or command of that name exists, with the nearest name, or "" if all words were
/// understood.
std::string unknown_word(const CLI::App& app) {
  const CLI::App* command = selected_command(&app);
  const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
  if (rest.empty()) return "";
  const std::string word = rest.front().substr(0, rest.front().find('='));
  const bool is_option = word.starts_with("-");
  std::vector<std::string> candidates;
  if (is_option) {
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) candidates.push_back("--" + name);
    }
  } else {
    for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; })) {
      candidates.push_back(sub->get_name());
    }
  }
  const std::string near = nearest(word, candidates);
  return std::string(is_option ? "unknown option " : "unexpected word ") + word +
         (near.empty() ? "" : "; did you mean " + near + "?");
}

int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const std::string command = path_of(*selected_command(&app));
  const std::string unknown = unknown_word(app);
  std::fprintf(stderr, "%s: error: %s\nTry `%s --help`.\n", command.c_str(),
               unknown.empty() ? error.what() : unknown.c_str(), command.c_str());
  return 2;
}

int run(int argc, char** argv) {
  CLI::App app("Exact FlashAttention for training, and the trainers on it.", "strobe");
  app.set_version_flag("--version", train::version());
  app.require_subcommand(1);
  CLI::App* nmt = app.add_subcommand("nmt", "Transformer translation");
  nmt->require_subcommand(1);
  add_nmt_prepare(*nmt);
  add_nmt_train(*nmt);
  add_nmt_test(*nmt);
  add_nmt_translate(*nmt);
  add_nmt_score(*nmt);
  add_nmt_average(*nmt);
  CLI::App* clip = app.add_subcommand("clip", "Chinese-CLIP fine-tuning and evaluation");
  clip->require_subcommand(1);
  add_clip_build_lmdb(*clip);
  add_clip_convert(*clip);
  add_clip_demo_data(*clip);
  add_clip_evaluation(*clip);
  add_clip_extract_features(*clip);
  add_clip_make_topk(*clip);
  add_clip_picture_sheet(*clip);
  add_clip_similarity(*clip);
  add_clip_train(*clip);
  add_clip_transform_ir_annotation_to_tr(*clip);
  add_clip_zeroshot(*clip);
  CLI::App* bench = app.add_subcommand("bench", "Measure against what a user would otherwise pick");
  bench->require_subcommand(1);
  add_bench_attention(*bench);
  add_bench_nmt(*bench);
  add_bench_clip(*bench);
  add_bench_roofline(*bench);

  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::RuntimeError& status) {  // a command that ends with a status of its own
    return status.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error);
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "%s: error: %s\n", path_of(*selected_command(&app)).c_str(), error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: error: %s\n", path_of(*selected_command(&app)).c_str(), error.what());
  }
  return 1;
}

}  // namespace
}  // namespace strobe::cli

int main(int argc, char** argv) { return strobe::cli::run(argc, argv); }
