// Why a token is in a batch. As an array of i32 it lies in device memory.
#ifndef THERMOCLINE_KERNELS_TOKEN_ROLE_H_
#define THERMOCLINE_KERNELS_TOKEN_ROLE_H_

#include <cstdint>

namespace thermocline {

// A backend may serve the two roles with different kernels. A token keeps its role for life: a
// generated token that is recomputed after a preemption is still a generated one.
enum class TokenRole : int32_t { kPrompt, kGenerated };

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_TOKEN_ROLE_H_
