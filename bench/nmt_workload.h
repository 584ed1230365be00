// What `strobe bench nmt` trains on and translates, and the file that carries it to the peers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nmt/batching.h"
#include "nmt/config.h"
#include "nmt/transformer.h"

namespace strobe::bench {

/// Batches that are trained on, or translated, in turn.
struct NmtCase {
  int64_t batch = 0;                       // sentences of each, but perhaps the last
  double length = 0.0;                     // mean tokens of a target sentence
  std::vector<nmt::Batch> batches;         // on the device
  std::vector<nmt::Batch> recurring = {};  // the same as nmt::GraphedLoss takes them, where CUDA graphs are asked for

  int64_t target_tokens() const;
};

struct NmtWorkload {
  std::string data;        // "corpus", "synthetic", "mixed"
  nmt::ModelConfig model;  // with the vocabularies' sizes
  std::vector<NmtCase> train, decode;
};

struct NmtWorkloadOptions {
  nmt::ModelConfig model;        // the vocabularies' sizes are for synthetic sentences alone
  std::vector<int64_t> lengths;  // tokens of synthetic sentences, source and target; none: the corpus
  bool mixed = false;            // synthetic sentences are of 2 to so many tokens, and not sorted by length
  std::filesystem::path data;    // a folder that `nmt prepare` wrote; empty: the built-in corpus
  int64_t batch_size = 128;      // sentences
  int64_t batches = 20;          // of a case, at most
  bool graphs = false;           // ours trains with CUDA graphs
  uint64_t seed = 1;
  at::Device device = at::kCPU;
};

/// Of a corpus, training batches as `nmt train` makes them in its first epoch, and the test set cut as `nmt test` does.
/// Of synthetic sentences, two batches of each length, on a GPU eight. Throws strobe::Error for data that is missing.
NmtWorkload nmt_workload(const NmtWorkloadOptions& options);

/// For a model that was not trained: makes pad, bos and eos improbable beyond all others, so that every translation
/// runs to its greatest length and all contenders do the same work.
void never_finish(nmt::Transformer& model);

/// How the contenders run the workload.
struct NmtSettings {
  std::string precision = "fp32";  // or "bf16"
  double lr = 1e-5;                // small, so that the work stays the same over many updates
  int64_t beam = 3;
  bool finishes = false;  // the model was trained: translations end by themselves
};

/// The greatest length of the case's translations; 0: the search's own.
int64_t max_length(const NmtCase& decode, const NmtSettings& settings);

/// Writes what Python's torch.load(weights_only=True) reads: the settings, "config", "model" (the weights),
/// "positions", "norm_eps", "bos", "eos", "unk", and "train" and "decode", lists of {"max_length", "batches":
/// [{"source", ..}]}.
void write_workload(const std::filesystem::path& file, const NmtWorkload& workload, const nmt::Transformer& model,
                    const NmtSettings& settings);

}  // namespace strobe::bench
