// The copy engine of sm_90: what it copies to shared memory lands at once, the other way when its thread waits. PTX
// ISA 9.0, "Tensors" and "Swizzling Modes".
#include "src/attention/cuda/sm90/tensor_map.h"

#include <array>
#include <cstring>
#include <vector>

#include "src/attention/cuda/common/tile.cuh"
#include "src/attention/cuda/sm90/boxes.cuh"

namespace strobe::cuda {
namespace {

struct Description {
  unsigned char* data;
  int64_t row_bytes, head_bytes, batch_bytes, batch;
  int rows, heads, columns, box_rows, box_columns;
};
static_assert(sizeof(Description) <= sizeof(TensorMap));

/// What a thread stores, until it waits for it.
struct Store {
  const TensorMap* map;
  uint32_t from;
  int column, row, head, batch;
};
std::vector<Store>& stores_of_thread() {
  static auto* const stores = new std::array<std::vector<Store>, emulator::kMostThreads>;
  return (*stores)[emulator::thread_index.x];
}

Description description_of(const TensorMap& map) {
  Description tensor;
  std::memcpy(&tensor, &map, sizeof(tensor));
  return tensor;
}

/// Calls body(chunk in shared memory, chunk in the tensor or null) for each chunk of a box.
template <int kColumns, class Body>
void for_each_chunk_of(uint32_t box, const Description& tensor, int column, int row, int head, int batch,
                       const Body& body) {
  using Layout = TileLayout<kColumns>;
  if (box % (8 * Layout::kRowBytes) != 0) throw emulator::EmulationError("a box of a tensor: misaligned");
  for (int i = 0; i < tensor.box_rows; ++i) {
    for (int chunk = 0; chunk < Layout::kChunks; ++chunk) {
      const int first = column + chunk * kChunkElements;
      const bool inside =
          row + i < tensor.rows && first < tensor.columns && head < tensor.heads && batch < tensor.batch;
      body(emulator::shared_at(box + Layout::offset(i, chunk), kChunkBytes),
           inside ? tensor.data + batch * tensor.batch_bytes + head * tensor.head_bytes + (row + i) * tensor.row_bytes +
                        first * 2
                  : nullptr);
    }
  }
}
template <class Body>
void for_each_chunk(uint32_t box, const Description& tensor, int column, int row, int head, int batch,
                    const Body& body) {
  if (tensor.box_columns == 64) {
    for_each_chunk_of<64>(box, tensor, column, row, head, batch, body);
  } else {
    for_each_chunk_of<16>(box, tensor, column, row, head, batch, body);
  }
}

}  // namespace

TensorMap tensor_map(const Strided& tensor, int64_t batch, int rows, int heads, int columns, int box_rows,
                     int box_columns) {
  const Description description{static_cast<unsigned char*>(tensor.data),
                                2 * tensor.row_stride,
                                2 * tensor.head_stride,
                                2 * tensor.batch_stride,
                                batch,
                                rows,
                                heads,
                                columns,
                                box_rows,
                                box_columns};
  TensorMap map{};
  std::memcpy(&map, &description, sizeof(description));
  return map;
}

void copy_box(uint32_t to, const TensorMap& map, uint32_t barrier, int column, int row, int head, int batch) {
  const Description tensor = description_of(map);
  for_each_chunk(to, tensor, column, row, head, batch, [](unsigned char* shared, const unsigned char* global) {
    if (global == nullptr) {
      std::memset(shared, 0, kChunkBytes);
    } else {
      std::memcpy(shared, global, kChunkBytes);
    }
  });
  mbarrier_count(barrier, tensor.box_rows * tensor.box_columns * 2);
}

void store_box(const TensorMap& map, uint32_t from, int column, int row, int head, int batch) {
  stores_of_thread().push_back({&map, from, column, row, head, batch});
}

void wait_for_stored_boxes() {
  for (const Store& s : stores_of_thread()) {
    for_each_chunk(s.from, description_of(*s.map), s.column, s.row, s.head, s.batch,
                   [](const unsigned char* shared, unsigned char* global) {
                     if (global != nullptr) std::memcpy(global, shared, kChunkBytes);
                   });
  }
  stores_of_thread().clear();
}

}  // namespace strobe::cuda
