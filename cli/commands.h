// The commands of the program. Each function adds one subcommand with its options, its help and what it does to
// `parent`; the command's own file holds it. Options are checked while parsing, files only when the command runs, so
// that a wrong option is reported before a missing file. A command that must end with a status of its own (a training
// run stopped by a signal: 128 + n) throws CLI::RuntimeError(status); other failures are exceptions, which main.cpp
// prints.
#pragma once

#include <CLI/CLI.hpp>

namespace strobe::cli {

void add_nmt_prepare(CLI::App& parent);
void add_nmt_train(CLI::App& parent);
void add_nmt_test(CLI::App& parent);
void add_nmt_translate(CLI::App& parent);
void add_nmt_score(CLI::App& parent);
void add_nmt_average(CLI::App& parent);
void add_clip_build_lmdb(CLI::App& parent);
void add_clip_convert(CLI::App& parent);
void add_clip_demo_data(CLI::App& parent);
void add_clip_evaluation(CLI::App& parent);  // evaluation, evaluation-tr
void add_clip_extract_features(CLI::App& parent);
void add_clip_make_topk(CLI::App& parent);  // make-topk, make-topk-tr
void add_clip_picture_sheet(CLI::App& parent);
void add_clip_similarity(CLI::App& parent);
void add_clip_train(CLI::App& parent);
void add_clip_transform_ir_annotation_to_tr(CLI::App& parent);
void add_clip_zeroshot(CLI::App& parent);
void add_bench_attention(CLI::App& parent);
void add_bench_nmt(CLI::App& parent);
void add_bench_clip(CLI::App& parent);
void add_bench_roofline(CLI::App& parent);

}  // namespace strobe::cli
