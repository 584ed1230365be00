// What a serialised SentencePiece model says of itself, read from its bytes alone.
#pragma once

#include <string_view>

namespace strobe::nmt {

struct SentencePieceFile {
  /// Holds the options it was trained with and its normaliser, which stand behind the pieces. A file cut between two
  /// pieces is a well-formed message to protobuf, which would fill in defaults, another model type among them.
  bool complete = false;
  bool words = false;  // of type "word": its pieces are what stood between spaces
};

/// Reads the top level of a protobuf message ModelProto (sentencepiece_model.proto).
SentencePieceFile inspect_sentencepiece(std::string_view bytes);

}  // namespace strobe::nmt
