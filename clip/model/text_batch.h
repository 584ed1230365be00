// A batch of texts as a tower computes it: padded as it came, or packed without the padding.
//
// Padding ([PAD], id 0) stands only behind the last token of a text; a text without any token counts as one [PAD].
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/sequences.h"

namespace strobe::clip {

/// Hidden states are [B, L, width] or packed [T, width].
struct TextBatch {
  at::Tensor ids;         // [B, L] or [T], int64
  nn::Sequences queries;  // of attention from all tokens
  nn::Sequences first;    // the same from the first tokens only
  nn::Sequences keys;     // of either
  at::Tensor starts;      // packed: [B] int64, rows of the first tokens

  bool packed() const { return keys.packed(); }

  /// More than any position.
  int64_t longest() const { return packed() ? keys.longest : ids.size(1); }

  /// Rows of a table of positions [longest, width]: [L, width], the same for every text, or [T, width].
  at::Tensor at_positions(const at::Tensor& table) const;

  /// Hidden states of the first tokens, [B, width].
  at::Tensor first_of(const at::Tensor& hidden) const;
};

/// The tokens of each text: ids [B, L] -> [B] int64.
at::Tensor count_tokens(const at::Tensor& ids);

/// ids [B, L] int64, right-padded. lengths [B] int64 on the CPU, each in [1, L]; undefined: counted from the ids on
/// their device. `skip_padded_queries`: attention computes nothing for padded rows. Throws strobe::Error for other
/// lengths.
TextBatch padded_texts(const at::Tensor& ids, const at::Tensor& lengths, bool skip_padded_queries);

/// The real tokens of one text after another's; nothing is read back from the device. Arguments as above.
TextBatch packed_texts(const at::Tensor& ids, const at::Tensor& lengths);

}  // namespace strobe::clip
