#include "src/attention/cuda/dropout_mask.cu"
