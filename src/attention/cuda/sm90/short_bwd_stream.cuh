// The backward of short sequences on sm_90. One block a multiprocessor goes from head to head: one of its warps copies
// K, V, Q, dO and O as slots of shared memory come free, two or three make the terms of the rows that have come, and
// eight, which have the registers of those, compute, each at its own pace: most own 32 keys, whose dK and dV stay with
// them for the whole head, and hand dS on to those that make dQ. Who waits for whom is in mbarriers; there is no
// barrier of the block.
#pragma once

#include "src/attention/cuda/common/launch.h"
#include "src/attention/cuda/sm90/short_bwd_feed.cuh"
#include "src/attention/cuda/sm90/short_bwd_keys.cuh"
#include "src/attention/cuda/sm90/short_kernels.h"

namespace strobe::cuda::sm90 {

template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    short_bwd_stream_kernel(const __grid_constant__ BwdCall c, const __grid_constant__ StreamPlan plan,
                            const __grid_constant__ StreamMaps maps) {
  const int warp = static_cast<int>(warp_max(threadIdx.x / 32));
  const Block b{c, plan, maps, shared_address(dynamic_shared_memory()), static_cast<int>(threadIdx.x % 32)};
  const Barriers barriers = b.barriers();
  const int term_warps = plan.has_tail() ? 2 : 3;
  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < 2; ++i) {
      mbarrier_init(barriers.kv_full(i), 1);
      mbarrier_init(barriers.kv_empty(i), plan.key_readers());
    }
    mbarrier_init(barriers.tail_full(), plan.row_tiles);
    mbarrier_init(barriers.tail_empty(), 1);
    for (int i = 0; i < plan.q_slots; ++i) {
      mbarrier_init(barriers.q_full(i), 1);
      mbarrier_init(barriers.q_empty(i), plan.owners);
      mbarrier_init(barriers.terms_full(i), term_warps);
    }
    for (int i = 0; i < plan.ds_slots; ++i) {
      mbarrier_init(barriers.ds_full(i), plan.owners);
      mbarrier_init(barriers.ds_empty(i), 1);
    }
    publish_mbarriers();
  }
  for (int at = static_cast<int>(threadIdx.x) * 16; at < plan.ds_slots * plan.ds_bytes; at += kThreads * 16) {
    store_shared_128(b.base + plan.ds + at, make_uint4(0, 0, 0, 0));
  }
  __syncthreads();
  if (warp >= kWarps) {
    give_registers<40>();
    if (warp == kWarps) {
      Copier<kColumns>::run(b);
    } else if (warp - kWarps <= term_warps) {
      TermMaker<T, kColumns>::run(b, warp - kWarps - 1, term_warps);
    } else {
      write_tails<T, kColumns>(b);
    }
  } else {
    take_registers<232>();
    if (plan.shares_grad_q()) {
      own_keys<T, kColumns, 2, GradQ::kShares>(b, warp * 2 * kTile);
      return;
    }
    const int first_tile = 2 * StreamPlan::owner(warp);
    if (warp == StreamPlan::kGradQWarp || (warp == StreamPlan::kHelper && plan.help == kHelpsWithout)) {
      make_grad_queries<T, kColumns>(b, warp == StreamPlan::kHelper);
    } else if (first_tile + 2 <= plan.key_tiles) {
      own_keys<T, kColumns, 2, GradQ::kNone>(b, first_tile * kTile);
    } else if (first_tile + 1 == plan.key_tiles) {
      own_keys<T, kColumns, 1, GradQ::kHelps>(b, first_tile * kTile);
    }
  }
}

template <class T, int kColumns>
void short_bwd_stream(const BwdCall& c, const CudaDevice& device, void* stream) {
  StreamPlan plan = stream_plan(device.shared_memory, c.seqlen_q, c.seqlen_k, kColumns);
  const int64_t units = c.batch * c.num_heads_q;
  plan.units = static_cast<uint32_t>(units);
  const auto maps_of = [&](const Strided& t, int rows, int box) {
    const auto map = [&](int columns) { return tensor_map(t, c.batch, rows, c.num_heads_q, c.head_dim, box, columns); };
    return RowMaps{map(Rows::kWide), kColumns > Rows::kWide ? map(Rows::kNarrow) : TensorMap{}};
  };
  const int box = plan.kv_rows > kMostBoxRows ? plan.kv_rows / 2 : plan.kv_rows;
  constexpr int kSlotRows = slot_rows(kColumns);
  const StreamMaps maps{maps_of(c.q, c.seqlen_q, kSlotRows),   maps_of(c.k, c.seqlen_k, box),
                        maps_of(c.v, c.seqlen_k, box),         maps_of(c.grad_out, c.seqlen_q, kSlotRows),
                        maps_of(c.out, c.seqlen_q, kSlotRows), maps_of(c.grad_q, c.seqlen_q, kTile),
                        maps_of(c.grad_k, c.seqlen_k, kTile),  maps_of(c.grad_v, c.seqlen_k, kTile)};
  launch("attention_backward", short_bwd_stream_kernel<T, kColumns>, std::min<int64_t>(units, device.multiprocessors),
         kThreads, plan.bytes, stream, c, plan, maps);
}

}  // namespace strobe::cuda::sm90
