// ExpertOps: the experts of one mixture-of-experts layer, computed where they lie, some while they
// are still arriving.
#ifndef THERMOCLINE_KERNELS_EXPERT_OPS_H_
#define THERMOCLINE_KERNELS_EXPERT_OPS_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/tensor_view.h"
#include "kernels/token_role.h"

namespace thermocline {

// What lies between an expert's first two matrices and its third.
enum class Activation : uint8_t {
  kSilu,       // silu(gate) * up
  kSwigluOai,  // g = min(gate, 7), u = clamp(up, -7, 7): g * sigmoid(1.702 g) * (u + 1); gpt-oss
};

inline constexpr float kSwigluOaiLimit = 7.0f;
inline constexpr float kSwigluOaiAlpha = 1.702f;

// The matrices of one expert. Without data: the shapes and types that all experts of a layer have.
struct ExpertWeights {
  TensorView gate;  // [intermediate, hidden]
  TensorView up;    // [intermediate, hidden]
  TensorView down;  // [hidden, intermediate]
  // f32 or empty.
  TensorView gate_bias;  // [intermediate]
  TensorView up_bias;    // [intermediate]
  TensorView down_bias;  // [hidden]
};

// How much of an expert is still on its way into its slot. A count reaches 0 once.
struct Arrival {
  std::atomic<int32_t> gate_up_left{0};  // pieces; 0 (acquire): gate, up and their biases are there
  std::atomic<int32_t> down_left{0};     // pieces; 0 (acquire): down and its bias are there
  std::atomic<bool> failed{false};       // final once both are 0: the expert's rows become zeros
};

// One expert's share of a step. Does not move while a step uses it.
struct ExpertWork {
  ExpertWeights weights;                         // valid once `arrival` is set
  std::atomic<const Arrival*> arrival{nullptr};  // null: the expert has no slot yet
  EventId copied = 0;                            // a device's queue waits for this first
  absl::Span<const int32_t> rows;                // of x
  absl::Span<const int32_t> out_rows;            // of out, where the results of `rows` go
  EventId computed = 0;           // set by Start on a device: ends its use of the slot
  std::atomic<bool> done{false};  // on a CPU: nobody reads the weights any more
};

// What the experts of a layer have in common.
struct ExpertBatch {
  ExpertWeights shape;  // without data
  Activation activation = Activation::kSilu;
  TensorView x;    // [N, hidden] f32
  TensorView out;  // [M, hidden] f32; rows that no expert writes are left alone
  absl::Span<const TokenRole> roles = {};  // [N], in host memory
};

// What threads do when no expert can be computed: cache/expert_fetcher.h.
class ExpertFeed {
 public:
  virtual ~ExpertFeed() = default;
  // The calling thread of Finish, between tasks, until all threads have left: gives slots of done
  // experts to waiting ones and starts reads.
  virtual void Tend() = 0;
  // Any thread: brings one piece that has arrived into its slot. False: there is none.
  virtual bool Help() = 0;
  // Read before looking for work.
  virtual uint32_t Epoch() = 0;
  // An expert is done, or a thread has left: the epoch moves.
  virtual void Raise() = 0;
  // Returns when the epoch is no longer `seen`, or, if the caller tends, when it should look after
  // late reads. Does not spin: the reader needs the core.
  virtual void Sleep(uint32_t seen, bool tends) = 0;
};

class ExpertOps {
 public:
  virtual ~ExpertOps() = default;
  // out[work.out_rows[i]] = down * activation(gate * x[work.rows[i]], up * x[work.rows[i]]), biases
  // added where there are any, for every expert; zeros for one that has failed. A device enqueues,
  // a CPU only notes. `batch` and `experts` stay until Finish returns; one layer at a time.
  virtual void Start(const ExpertBatch& batch, absl::Span<ExpertWork> experts) = 0;
  // A CPU computes here; what a device was given is enqueued. `feed` may be null if every expert
  // has arrived.
  virtual absl::Status Finish(ExpertFeed* feed) = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_EXPERT_OPS_H_
