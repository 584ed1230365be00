// Recall of predictions against annotations, as cn_clip's evaluation.py and evaluation_tr.py compute and write it.
#pragma once

#include <filesystem>
#include <string>

#include "clip/evaluation/annotations.h"
#include "strobe/types.h"

namespace strobe::clip {

/// What is wrong with predictions, in the original's words.
class EvaluationError : public Error {
 public:
  using Error::Error;
};

constexpr int kPredictions = 10;  // of each query

/// The share of the queries with an answer among the first 1, 5 and 10 predictions, in [0, 1].
struct RecallAtK {
  double r1 = 0.0, r5 = 0.0, r10 = 0.0;

  double mean() const { return (r1 + r5 + r10) / 3.0; }
};

/// Every annotated query must have kPredictions distinct predictions; predictions of other queries are passed over. A
/// query without answers is a miss. Throws EvaluationError, and strobe::Error for annotations that cannot be read.
RecallAtK evaluate_retrieval(const std::filesystem::path& annotations, const std::filesystem::path& predictions,
                             Retrieval retrieval);

/// The original's result files, byte for byte: recalls in percent, or why there are none.
std::string result_json(const RecallAtK& recall);
std::string failure_json(const std::string& message);

}  // namespace strobe::clip
