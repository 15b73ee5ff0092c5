// The reference checkpoints of tests/data/golden.
#ifndef THERMOCLINE_TESTS_SUPPORT_GOLDEN_FOLDERS_H_
#define THERMOCLINE_TESTS_SUPPORT_GOLDEN_FOLDERS_H_

namespace thermocline {

// At least one of every architecture in the registry, made by tests/data/tools/shrink_golden.py.
// Most weights are BF16; llama3-rope and kimi_k2 hold F32, hunyuan_v1_moe lies in two shards.
inline constexpr const char* kGoldenFolders[] = {
    "bailing_moe",    "bailing_moe_v2", "deepseek_v2",  "deepseek_v2-group",
    "deepseek_v3",    "dots1",          "ernie4_5_moe", "glm4_moe",
    "gpt_oss",        "gpt_oss-mxfp4",  "granitemoe",   "granitemoeshared",
    "hunyuan_v1_moe", "kimi_k2",        "lfm2_moe",     "llama",
    "llama3-rope",    "longcat_flash",  "minimax_m2",   "mixtral-swa",
    "olmoe-clip",     "phimoe",         "qwen2_moe",    "qwen3",
    "qwen3_moe",      "qwen3_moe-bf16", "qwen3_next"};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_GOLDEN_FOLDERS_H_
