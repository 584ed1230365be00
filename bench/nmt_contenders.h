// The contenders of `strobe bench nmt`: ours in this process, the peers' in theirs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/nmt_workload.h"
#include "bench/peer.h"
#include "nmt/search.h"
#include "train/precision.h"

namespace strobe::bench {

/// Forward, backward and update of each batch.
Contender training_contender(const NmtCase& content, const nmt::Transformer& initial, const nmt::ModelConfig& config,
                             const NmtSettings& settings);

/// The translation of each batch by a model of these weights; `tokens` gets how many there were, the ends of sentences
/// included.
Contender decoding_contender(const NmtCase& content, const nmt::Transformer& initial, const nmt::ModelConfig& config,
                             const NmtSettings& settings, std::shared_ptr<int64_t> tokens);

/// A peer that starts when it is first needed; where it fails to, every use throws why.
class LazyPeer {
 public:
  explicit LazyPeer(std::vector<std::string> command) : command_(std::move(command)) {}
  Peer& get();
  nlohmann::json versions() const { return peer_ ? peer_->versions() : nlohmann::json::object(); }

 private:
  std::vector<std::string> command_;
  std::unique_ptr<Peer> peer_;
  std::string failure_;
};

/// nn.Transformer with case `index` of the workload. Throws strobe::Error when it runs where its loss of the initial
/// weights is not ours.
Contender training_peer(LazyPeer& peer, std::size_t index, const NmtCase& content, const nmt::Transformer& initial,
                        const NmtSettings& settings);

/// What a decoding peer said of its translations.
struct PeerTranslations {
  int64_t tokens = 0;
  double agreement = 0.0;  // the share of translations that are ours to the last token
};

/// CTranslate2 with case `index`. Throws strobe::Error when it runs where less than nine in ten of its translations are
/// ours, or where the scores of those that are differ by more than 1e-3.
Contender decoding_peer(LazyPeer& peer, std::size_t index, const NmtCase& content, const nmt::Transformer& initial,
                        const NmtSettings& settings, std::shared_ptr<PeerTranslations> result);

}  // namespace strobe::bench
