// Annotations and predictions of retrieval, as cn_clip's evaluation programs read and write them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "clip/evaluation/id.h"

namespace strobe::clip {

enum class Retrieval { kTextToImage, kImageToText };

/// The keys of a line of annotations or predictions.
struct RetrievalKeys {
  const char* query;    // "text_id" or "image_id"
  const char* answers;  // "image_ids" or "text_ids"
};
RetrievalKeys retrieval_keys(Retrieval retrieval);

struct Annotation {
  Id query;
  std::vector<Id> answers;
};

/// A line {"<query>": id, "<answers>": [...], ...} each, in order; of a query that stands twice the later answers at
/// the first place. Throws strobe::Error with file and line.
std::vector<Annotation> read_annotations(const std::filesystem::path& file, Retrieval retrieval);

/// The annotations {"text_id", "image_ids"} seen from the images, in the order in which these come first: what
/// evaluation of image-to-text retrieval asks for.
std::vector<Annotation> transposed(const std::vector<Annotation>& annotations);

}  // namespace strobe::clip
