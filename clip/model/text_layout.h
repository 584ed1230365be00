// Where the tokens of a batch of texts lie while a tower computes: as they came, padded, or packed without the padding.
//
// Padding ([PAD], id 0) stands only behind the last token of a text; a text without any token counts as one [PAD].
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"

namespace strobe::clip {

class TextLayout {
 public:
  /// ids [B, L] int64, right-padded; hidden states are [B, L, width]. Padded keys are hidden by their number, which is
  /// counted on the device. `skip_padded_queries`: attention computes nothing for padded rows either.
  static TextLayout padded(const at::Tensor& ids, bool skip_padded_queries);

  /// lengths [B] int64 on the CPU, each in [1, L]: hidden states are [T, width], the real tokens of one text after
  /// another's. Nothing is read back from the device. Throws strobe::Error for other lengths.
  static TextLayout packed(const at::Tensor& ids, const at::Tensor& lengths);

  /// The ids and the positions in the order of the hidden states: [B, L] and [1, L], or [T] and [T].
  const at::Tensor& ids() const { return ids_; }
  const at::Tensor& positions() const { return positions_; }
  int64_t longest() const { return longest_; }  // more than any position

  /// Rows of the first tokens: [B, L, width] or [T, width] -> [B, width].
  at::Tensor first(const at::Tensor& hidden) const;

  /// Which keys each query sees, of all tokens or of the first ones only.
  void hide_padding(ops::AttentionOptions& options) const;
  void hide_padding_from_first(ops::AttentionOptions& options) const;

  /// The queries of the first tokens [B, H, D] as attention takes them beside keys of this layout, and back.
  at::Tensor first_queries(const at::Tensor& queries) const;

  bool is_packed() const { return cu_seqlens_.defined(); }

 private:
  TextLayout() = default;

  at::Tensor ids_, positions_;
  int64_t longest_ = 0;
  bool skip_padded_queries_ = false;
  at::Tensor lengths_;     // padded: [B] int32
  at::Tensor cu_seqlens_;  // packed: [B+1] int32
  at::Tensor cu_first_;    // packed: 0, 1, ..., B, int32
  at::Tensor starts_;      // packed: [B] int64
};

}  // namespace strobe::clip
