// The Control service over the wire: states, the model, the load, the expert map, by value.
#include "server/version.h"
#include "tests/server/service_fixture.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class ControlTest : public ServiceFixture {
 protected:
  v1::ServerInfo ServerInfo() {
    grpc::ClientContext context;
    v1::ServerInfo info;
    EXPECT_TRUE(control_stub_->GetServerInfo(&context, {}, &info).ok());
    return info;
  }
  v1::ModelInfo ModelInfo() {
    grpc::ClientContext context;
    v1::ModelInfo info;
    EXPECT_TRUE(control_stub_->GetModelInfo(&context, {}, &info).ok());
    return info;
  }
  v1::LoadInfo LoadInfo() {
    grpc::ClientContext context;
    v1::LoadInfo info;
    EXPECT_TRUE(control_stub_->GetLoad(&context, {}, &info).ok());
    return info;
  }
  v1::ExpertMap ExpertMap() {
    grpc::ClientContext context;
    v1::ExpertMap map;
    EXPECT_TRUE(control_stub_->GetExpertMap(&context, {}, &map).ok());
    return map;
  }
};

TEST_F(ControlTest, TheServerSaysWhatItIsDoing) {
  const v1::ServerInfo loading = ServerInfo();
  EXPECT_EQ(loading.state(), "loading");
  EXPECT_EQ(loading.version(), kVersion);
  EXPECT_EQ(loading.backend(), "");
  EXPECT_GT(loading.uptime_seconds(), 0.0);
  Serve();
  const v1::ServerInfo serving = ServerInfo();
  EXPECT_EQ(serving.state(), "serving");
  EXPECT_EQ(serving.backend(), engine_->DescribeBackend());
  EXPECT_GT(serving.uptime_seconds(), loading.uptime_seconds());
  engine_->Drain();
  EXPECT_EQ(ServerInfo().state(), "draining");
}

TEST_F(ControlTest, WithoutAModelThereIsNothingToTell) {
  const auto unavailable = grpc::StatusCode::UNAVAILABLE;
  grpc::ClientContext one, two, three;
  v1::ModelInfo model;
  v1::LoadInfo load;
  v1::ExpertMap map;
  EXPECT_EQ(control_stub_->GetModelInfo(&one, {}, &model).error_code(), unavailable);
  EXPECT_EQ(control_stub_->GetLoad(&two, {}, &load).error_code(), unavailable);
  EXPECT_EQ(control_stub_->GetExpertMap(&three, {}, &map).error_code(), unavailable);
}

TEST_F(ControlTest, DrainAsksTheServer) {
  grpc::ClientContext context;
  v1::DrainResponse drained;
  EXPECT_TRUE(control_stub_->Drain(&context, {}, &drained).ok());
  EXPECT_EQ(num_drains_, 1);
}

TEST_F(ControlTest, TheModelByValue) {
  EngineOptions options;
  options.max_context = 100;
  options.kv_tokens = 160;
  options.scheduler.max_num_seqs = 3;
  Start(std::move(options));
  Serve();
  const v1::ModelInfo info = ModelInfo();
  EXPECT_EQ(info.path(), alphabet::Path());
  EXPECT_EQ(info.architecture(), engine_->dims().architecture);
  EXPECT_EQ(info.vocab_size(), 64);
  EXPECT_EQ(info.hidden_size(), 64);
  EXPECT_EQ(info.num_hidden_layers(), 2);
  EXPECT_EQ(info.num_experts(), 4);
  EXPECT_EQ(info.num_experts_per_tok(), 2);
  EXPECT_EQ(info.max_context(), 100);
  EXPECT_EQ(info.kv_cache_bytes(), 160 * 256);  // two layers of a key and a value of 16 floats
  EXPECT_EQ(info.weight_bytes(),
            engine_->weights().dense_bytes() + engine_->expert_files().total_bytes());
  EXPECT_GT(info.weight_bytes(), engine_->weights().dense_bytes());
  EXPECT_TRUE(info.has_tokenizer());
  EXPECT_TRUE(info.has_chat_template());
}

TEST_F(ControlTest, TokenizerAndTemplateMayBeMissing) {
  EngineOptions options;
  options.model_path = GoldenPath("llama3-rope");
  Start(std::move(options));
  Serve();
  EXPECT_FALSE(ModelInfo().has_tokenizer());
  EXPECT_FALSE(ModelInfo().has_chat_template());
  TemporaryFile model("untemplated.gguf");
  alphabet::WriteVariant("tokenizer.chat_template", "tokenizer.chat_templatX", model.path());
  EngineOptions untemplated;
  untemplated.model_path = model.path();
  Start(std::move(untemplated));
  Serve();
  EXPECT_TRUE(ModelInfo().has_tokenizer());
  EXPECT_FALSE(ModelInfo().has_chat_template());
}

// Blocks of 16 tokens, two running requests of one token each, one waiting.
TEST_F(ControlTest, TheLoadByValue) {
  EngineOptions options;
  options.kv_tokens = 160;
  options.scheduler.max_num_seqs = 2;
  Start(std::move(options));
  ASSERT_TRUE(SetEngine().ok());
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < 3; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), Request("0", 20)));
  }
  WaitUntilQueued(3);
  EXPECT_EQ(LoadInfo().requests_waiting(), 3);
  for (int i = 0; i < 16; ++i) engine_->Step();
  const v1::LoadInfo load = LoadInfo();
  EXPECT_EQ(load.requests_running(), 2);
  EXPECT_EQ(load.requests_waiting(), 1);
  EXPECT_EQ(load.kv_blocks_used(), 4);  // 2 + 15 tokens each
  EXPECT_EQ(load.kv_blocks_total(), 10);
  EXPECT_EQ(load.steps(), 16);
  EXPECT_EQ(load.prompt_tokens(), 4);
  EXPECT_EQ(load.generated_tokens(), 32);
  EXPECT_EQ(load.preemptions(), 0);
  RunEngine();
  for (const auto& reader : readers) EXPECT_TRUE(ReadAll(reader.get()).status.ok());
  ExpectNothingIsLeft();
  EXPECT_EQ(LoadInfo().prompt_tokens(), 6);
  EXPECT_EQ(LoadInfo().generated_tokens(), 60);
}

TEST_F(ControlTest, PreemptionsAreTold) {
  EngineOptions options;
  options.block_size = 2;
  options.kv_tokens = 8;
  Start(std::move(options));
  ASSERT_TRUE(SetEngine().ok());
  grpc::ClientContext one, two;
  const auto first = stub_->Generate(&one, Request("12", 5));
  WaitUntilQueued(1);
  const auto second = stub_->Generate(&two, Request("67", 5));
  WaitUntilQueued(2);
  RunEngine();
  EXPECT_TRUE(ReadAll(first.get()).status.ok());
  EXPECT_TRUE(ReadAll(second.get()).status.ok());
  EXPECT_EQ(LoadInfo().preemptions(), 1);
}

// BOS is token 0: experts 0 and 1 in both layers. Token a is 7: experts 3 and 0 in layer 0, 0 and 1
// in layer 1. Two slots a layer, at first with experts 0 and 1.
TEST_F(ControlTest, TheExpertMapByValue) {
  EngineOptions options;
  options.host_experts = 2;
  Start(std::move(options));
  Serve();
  const int64_t bytes = engine_->expert_files().layouts()[0].bytes;
  v1::ScoreRequest request;
  request.set_text("a");
  v1::ScoreResponse scored;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Score(&context, request, &scored).ok());
  ExpectNothingIsLeft();
  const v1::ExpertMap map = ExpertMap();
  ASSERT_EQ(map.layers_size(), 2);
  const v1::ExpertMap::Layer &first = map.layers(0), &second = map.layers(1);
  EXPECT_EQ(first.layer(), 0);
  EXPECT_EQ(second.layer(), 1);
  EXPECT_EQ(std::vector<int64_t>(first.tokens().begin(), first.tokens().end()),
            (std::vector<int64_t>{2, 1, 0, 1}));
  EXPECT_EQ(std::vector<int64_t>(second.tokens().begin(), second.tokens().end()),
            (std::vector<int64_t>{2, 2, 0, 0}));
  EXPECT_EQ(std::vector<bool>(second.resident().begin(), second.resident().end()),
            (std::vector<bool>{true, true, false, false}));
  // Layer 0 reads expert 3 in place of 0 or 1, which were used a moment ago both.
  EXPECT_TRUE(first.resident(3));
  EXPECT_EQ(first.resident(0) + first.resident(1), 1);
  EXPECT_FALSE(first.resident(2));
  EXPECT_EQ(first.hits(), 2);
  EXPECT_EQ(first.misses(), 1);
  EXPECT_EQ(first.evictions(), 1);
  EXPECT_EQ(first.bytes_read(), 3 * bytes);
  EXPECT_EQ(second.hits(), 2);
  EXPECT_EQ(second.misses(), 0);
  EXPECT_EQ(second.evictions(), 0);
  EXPECT_EQ(second.bytes_read(), 2 * bytes);
}

}  // namespace
}  // namespace thermocline
