// Where the tokens of a batch of texts lie while a tower computes: as they came, padded, or packed without the padding.
//
// Padding ([PAD], id 0) stands only behind the last token of a text; a text without any token counts as one [PAD].
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"

namespace strobe::clip {

/// ids [B, L] -> [B] int64.
at::Tensor count_tokens(const at::Tensor& ids);

class TextLayout {
 public:
  /// ids [B, L] int64, right-padded; hidden states are [B, L, width] and padded keys are hidden. lengths [B] int64 on
  /// the CPU, each in [1, L]; undefined: counted from the ids, on their device. `skip_padded_queries`: attention
  /// computes nothing for padded rows either. Throws strobe::Error for other lengths.
  static TextLayout padded(const at::Tensor& ids, const at::Tensor& lengths, bool skip_padded_queries);

  /// Hidden states are [T, width], the real tokens of one text after another's. Nothing is read back from the device.
  static TextLayout packed(const at::Tensor& ids, const at::Tensor& lengths);

  /// In the order of the hidden states: [B, L] or [T].
  const at::Tensor& ids() const { return ids_; }
  int64_t longest() const { return longest_; }  // more than any position

  /// Rows of a table of positions [longest, width] for the tokens: [L, width] for every text, or [T, width].
  at::Tensor at_positions(const at::Tensor& table) const;

  /// Rows of the first tokens: [B, L, width] or [T, width] -> [B, width].
  at::Tensor first(const at::Tensor& hidden) const;

  /// What the attention of all tokens, or of the first ones only, to all tokens needs to know.
  void hide_padding(ops::AttentionOptions& options) const;
  void hide_padding_from_first(ops::AttentionOptions& options) const;

  bool is_packed() const { return cu_seqlens_.defined(); }

 private:
  TextLayout() = default;

  at::Tensor ids_;
  int64_t longest_ = 0;
  bool skip_padded_queries_ = false;
  at::Tensor lengths_;     // padded: [B] int32
  at::Tensor positions_;   // packed: [T] int64
  at::Tensor cu_seqlens_;  // packed: [B+1] int32
  at::Tensor cu_first_;    // packed: 0, 1, ..., B, int32
  at::Tensor starts_;      // packed: [B] int64
};

}  // namespace strobe::clip
