// Tokenizer speed: tokenizer_bench MODEL FILE, where FILE holds JSON lines {"text"}. Prints one
// JSON line a text: bytes, tokens, median seconds of three runs, MB/s on one core.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/text/tokenizer/tokenizer.h"

namespace thermocline {
namespace {

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path) {
  if (std::filesystem::exists(path + "/tokenizer.json")) return TokenizerFromFolder(path);
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  return TokenizerOf(**checkpoint);
}

int Main(const char* model, const char* file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(model);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
    return 1;
  }
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const std::string text = nlohmann::json::parse(line).at("text").get<std::string>();
    std::vector<double> seconds;
    size_t num_tokens = 0;
    for (int run = 0; run < 3; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      num_tokens = (*tokenizer)->Encode(text, true)->size();
      seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::sort(seconds.begin(), seconds.end());
    std::printf("{\"bytes\": %zu, \"tokens\": %zu, \"seconds\": %.4f, \"mb_per_s\": %.2f}\n",
                text.size(), num_tokens, seconds[1],
                static_cast<double>(text.size()) / 1e6 / seconds[1]);
  }
  return 0;
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenizer_bench MODEL FILE\n");
    return 1;
  }
  return thermocline::Main(argv[1], argv[2]);
}
