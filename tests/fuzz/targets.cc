#include "tests/fuzz/targets.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/gguf.h"
#include "engine/formats/json.h"
#include "engine/formats/safetensors.h"
#include "engine/model/convert/importance_matrix.h"
#include "engine/model/model.h"
#include "engine/text/chat/output_parser.h"
#include "engine/text/chat/tool_format.h"
#include "engine/text/template/chat_template.h"
#include "engine/text/text_stream.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/weights/expert_files.h"
#include "engine/weights/weight_store.h"
#include "kernels/check.h"
#include "kernels/host_device.h"

namespace thermocline {
namespace {

// Input beyond this is of no more use to a fuzzer.
constexpr size_t kMaxInputBytes = 1 << 20;

// A folder of this process's own, in memory where the system has such a place.
const std::string& Folder() {
  static const std::string* const folder = [] {
    const bool shm = access("/dev/shm", W_OK) == 0;
    auto* path =
        new std::string(absl::StrCat(shm ? "/dev/shm" : "/tmp", "/thermocline-fuzz-XXXXXX"));
    TC_CHECK(mkdtemp(path->data()) != nullptr);
    std::atexit([] {
      std::error_code error;
      std::filesystem::remove_all(Folder(), error);
    });
    return path;
  }();
  return *folder;
}

void Write(const std::string& name, absl::string_view bytes) {
  std::ofstream out(absl::StrCat(Folder(), "/", name), std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Everything up to the first step.
void Load(const Checkpoint& checkpoint) {
  const auto model = MakeModel(checkpoint);
  if (!model.ok()) return;
  HostDevice device;
  const auto weights = WeightStore::Create(&checkpoint, TensorsOf(model->get()), &device);
  WorkerPool pool(1);
  if (!weights.ok() || !(*weights)->LoadDense(&pool, nullptr).ok()) return;
  const auto experts =
      ExpertFiles::Create(&checkpoint, (*weights)->table(), (*model)->dims().num_hidden_layers);
  if (!experts.ok()) return;
  const std::vector<ExpertLayout>& layouts = (*experts)->layouts();
  for (size_t l = 0; l < layouts.size(); ++l) {
    if (layouts[l].bytes == 0) continue;
    std::vector<char> slot(static_cast<size_t>(layouts[l].bytes));
    (void)(*experts)->ReadWhole({static_cast<int>(l), 0}, slot.data());
    break;
  }
}

void UseTokenizer(const absl::StatusOr<std::unique_ptr<Tokenizer>>& tokenizer) {
  if (!tokenizer.ok()) return;
  for (const char* text :
       {"Hello  world\n\t1234 na\u00EFve \u4E2D\u6587 \U0001F600", "<s>[INST] a</s>", ""}) {
    for (const bool special : {false, true}) {
      const auto ids = (*tokenizer)->Encode(text, special);
      TC_CHECK(ids.ok()) << ids.status();
      const std::string decoded = (*tokenizer)->Decode(*ids, special);
      TC_CHECK(ToValidUtf8(decoded) == decoded) << "decoding gave ill-formed UTF-8";
    }
  }
}

const char kMixtral[] = R"({"model_type": "mixtral", "hidden_size": 8, "num_hidden_layers": 1,
  "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 8, "vocab_size": 4,
  "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "num_local_experts": 2,
  "num_experts_per_tok": 1, "quantization_config": {"weight_block_size": [2, 4]}})";

const char kTools[] = R"([{"type": "function", "function": {"name": "f", "description": "d",
  "parameters": {"type": "object", "properties": {"x": {"type": "string"}, "n": {"type": ["integer", "null"]}},
  "required": ["x"]}}}, {"type": "function", "function": {"name": "g", "parameters": {"properties": []}}}])";

}  // namespace

absl::Span<const FuzzTarget> FuzzTargets() {
  static constexpr FuzzTarget kTargets[] = {
      {"gguf", &FuzzGguf},
      {"safetensors", &FuzzSafetensors},
      {"config", &FuzzConfig},
      {"tokenizer_json", &FuzzTokenizerJson},
      {"template_source", &FuzzTemplateSource},
      {"template_input", &FuzzTemplateInput},
      {"output_parser", &FuzzOutputParser},
  };
  return kTargets;
}

void FuzzGguf(absl::string_view input) {
  if (input.size() > kMaxInputBytes) return;
  Write("model.gguf", input);
  const std::string path = Folder() + "/model.gguf";
  (void)ImportanceMatrix::Read(path);
  const auto checkpoint = OpenGguf(path);
  if (!checkpoint.ok()) return;
  UseTokenizer(TokenizerOf(**checkpoint));
  Load(**checkpoint);
}

void FuzzSafetensors(absl::string_view input) {
  if (input.size() > kMaxInputBytes) return;
  Write("config.json", kMixtral);
  Write("model.safetensors", input);
  const auto checkpoint = OpenSafetensorsFolder(Folder());
  if (!checkpoint.ok()) return;
  for (const auto& [name, tensor] : (*checkpoint)->tensors()) {
    if (tensor.bytes > static_cast<int64_t>(kMaxInputBytes)) continue;
    std::vector<char> bytes(static_cast<size_t>(tensor.bytes));
    (void)(*checkpoint)->Read(tensor, 0, tensor.bytes, bytes.data());
  }
  Load(**checkpoint);
}

void FuzzConfig(absl::string_view input) {
  if (input.size() > kMaxInputBytes) return;
  Write("config.json", input);
  // One small tensor: enough for the folder to open.
  static const std::string* const weights = [] {
    const std::string header = R"({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})";
    const uint64_t length = header.size();
    auto* file = new std::string(reinterpret_cast<const char*>(&length), sizeof(length));
    *file += header + std::string(4, '\0');
    return file;
  }();
  Write("model.safetensors", *weights);
  const auto checkpoint = OpenSafetensorsFolder(Folder());
  if (!checkpoint.ok()) return;
  ConfigReader reader(**checkpoint);
  const auto model = MakeModel(&reader, {.mla_form = MlaForm::kPlain, .max_context = 0});
  if (!model.ok()) return;
  (void)GgufArchitecture(reader);
  // Models of many layers have tables like those of few.
  if ((*model)->dims().num_hidden_layers > 64) return;
  TensorTable table;
  (*model)->DeclareTensors(&table);
}

void FuzzTokenizerJson(absl::string_view input) {
  if (input.size() > kMaxInputBytes) return;
  Write("tokenizer.json", input);
  Write("tokenizer_config.json",
        R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "x"})");
  UseTokenizer(TokenizerFromFolder(Folder()));
}

void FuzzTemplateSource(absl::string_view input) {
  if (input.size() > kMaxInputBytes) return;
  const auto chat = ChatTemplate::Create(input);
  if (!chat.ok()) return;
  static const auto* const conversation = new nlohmann::ordered_json{
      {"messages",
       {{{"role", "system"}, {"content", "s"}},
        {{"role", "user"}, {"content", "u"}},
        {{"role", "assistant"},
         {"content", ""},
         {"reasoning_content", "r"},
         {"tool_calls",
          {{{"id", "1"},
            {"type", "function"},
            {"function", {{"name", "f"}, {"arguments", {{"x", "y"}, {"n", 1}}}}}}}}},
        {{"role", "tool"}, {"content", "t"}, {"tool_call_id", "1"}}}},
      {"tools", *ParseOrderedJson(kTools)},
      {"add_generation_prompt", true},
      {"enable_thinking", false}};
  (void)(*chat)->Render(*conversation, SpecialTokenTexts(nullptr),
                        {.steps = 100'000,
                         .output_bytes = 1 << 20,
                         .memory_bytes = int64_t{16} << 20,
                         .call_depth = 64,
                         .seconds = 2.0});
}

void FuzzTemplateInput(absl::string_view input) {
  if (input.size() > kMaxInputBytes) return;
  static const auto* const templates = [] {
    auto* list = new std::vector<std::unique_ptr<ChatTemplate>>();
    for (const char* source :
         {"{% for m in messages %}{{ loop.index0 }}{{ m.role | upper }}: {{ m['content'] | trim }}"
          "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}"
          "{% endfor %}{% endif %}{% endfor %}{{ tools | tojson(indent=2) }}",
          "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% if m.content is string %}"
          "{% set ns.n = ns.n + m.content.split(' ') | length %}{{ m.content[1:-1].replace('a', "
          "'b') }}"
          "{% elif m.content is mapping %}{% for k, v in m.content | dictsort %}{{ k ~ v }}"
          "{% endfor %}{% else %}{{ m.content | join(',') }}{% endif %}{% endfor %}{{ ns.n }}",
          "{% macro show(x) %}{% if x is iterable and x is not string %}{% for y in x %}{{ show(y) "
          "}}"
          "{% endfor %}{% else %}{{ x | string | default('-', true) }}{% endif %}{% endmacro %}"
          "{{ show(messages) }}{{ messages | selectattr('role', 'equalto', 'user') | list | length "
          "}}"
          "{{ messages | map(attribute='content') | list }}{{ add_generation_prompt + 1 }}"}) {
      list->push_back(*ChatTemplate::Create(source));
    }
    return list;
  }();
  const auto json = ParseOrderedJson(std::string(input));
  if (!json.ok()) return;
  for (const auto& chat : *templates) {
    (void)chat->Render(*json, SpecialTokenTexts(nullptr),
                       {.steps = 100'000,
                        .output_bytes = 1 << 20,
                        .memory_bytes = int64_t{16} << 20,
                        .call_depth = 64,
                        .seconds = 2.0});
  }
}

void FuzzOutputParser(absl::string_view input) {
  if (input.size() > kMaxInputBytes || input.empty()) return;
  const std::string text = ToValidUtf8(input.substr(1));
  static const auto* const tools = new nlohmann::ordered_json(*ParseOrderedJson(kTools));
  OutputFormat format;
  format.reasoning_begin = "<think>";
  format.reasoning_end = "</think>";
  std::vector<std::string> names = {"plain", "harmony"};
  for (const ToolFormat& tool_format : ToolFormats()) names.emplace_back(tool_format.name);
  format.name = names[static_cast<unsigned char>(input[0]) % names.size()];
  const auto run = [&](size_t piece) {
    const auto parser = MakeOutputParser(format, *tools, "");
    ChatDelta all;
    const auto add = [&](const ChatDelta& delta) {
      absl::StrAppend(&all.content, delta.content);
      absl::StrAppend(&all.reasoning, delta.reasoning);
      for (const ToolCall& call : delta.tool_calls) {
        const auto arguments = ParseOrderedJson(call.arguments);
        TC_CHECK(arguments.ok() && arguments->is_object() && !call.name.empty());
        all.tool_calls.push_back(call);
      }
    };
    for (size_t i = 0; i < text.size(); i += piece)
      add(parser->Append(absl::string_view(text).substr(i, piece)));
    add(parser->Finish());
    return all;
  };
  const ChatDelta whole = run(text.size() + 1), cut = run(3);
  TC_CHECK(whole.content == cut.content && whole.reasoning == cut.reasoning &&
           std::equal(whole.tool_calls.begin(), whole.tool_calls.end(), cut.tool_calls.begin(),
                      cut.tool_calls.end(),
                      [](const ToolCall& a, const ToolCall& b) {
                        return a.name == b.name && a.arguments == b.arguments;
                      }))
      << "the cut shows: " << text;
}

}  // namespace thermocline
