#include "server/metrics.h"

#include <prometheus/exposer.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>

#include "absl/strings/str_cat.h"
#include "kernels/mutex.h"

namespace thermocline {
namespace {

using prometheus::ClientMetric;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

const Histogram::BucketBoundaries kSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                     0.1,   0.25,   0.5,   1.0,  2.5,   5.0,
                                                     10.0,  30.0,   60.0,  120.0};

MetricFamily Single(const char* name, const char* help, MetricType type, double value) {
  ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return MetricFamily{name, help, type, {metric}};
}

// Asks the engine at every scrape.
class EngineCollector : public prometheus::Collectable {
 public:
  void SetSource(std::function<EngineSnapshot()> source) {
    const MutexLock lock(&mutex_);
    source_ = std::move(source);
  }

  std::vector<MetricFamily> Collect() const override {
    EngineSnapshot snapshot;
    {
      // Held: the engine lives as long as the source is set.
      const MutexLock lock(&mutex_);
      if (!source_) return {};
      snapshot = source_();
    }
    const auto gauge = MetricType::Gauge, counter = MetricType::Counter;
    std::vector<MetricFamily> families = {
        Single("thermocline_requests_running", "Requests that hold KV memory.", gauge,
               snapshot.num_running),
        Single("thermocline_requests_waiting", "Requests in the queue.", gauge,
               snapshot.num_waiting),
        Single("thermocline_kv_blocks_used", "KV cache blocks in use.", gauge,
               snapshot.kv_blocks_used),
        Single("thermocline_kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1.", gauge,
               snapshot.kv_blocks_total > 0
                   ? static_cast<double>(snapshot.kv_blocks_used) / snapshot.kv_blocks_total
                   : 0.0),
        Single("thermocline_draining", "1 while no new requests are taken.", gauge,
               snapshot.draining ? 1.0 : 0.0),
        Single("thermocline_steps_total", "Engine steps.", counter,
               static_cast<double>(snapshot.num_steps)),
        Single("thermocline_step_seconds_total", "Time spent in engine steps.", counter,
               snapshot.step_seconds),
        Single("thermocline_prompt_tokens_total", "Prompt tokens computed.", counter,
               static_cast<double>(snapshot.prompt_tokens)),
        Single("thermocline_generated_tokens_total", "Tokens generated.", counter,
               static_cast<double>(snapshot.generated_tokens)),
        Single("thermocline_preemptions_total", "Sequences that gave back their KV memory.",
               counter, static_cast<double>(snapshot.num_preemptions)),
        Single("thermocline_expert_seconds_total", "Time spent in experts.", counter,
               snapshot.expert_seconds),
        Single("thermocline_expert_predicted_seconds_total",
               "The same as the cost model predicted it.", counter,
               snapshot.expert_seconds_predicted),
        Single("thermocline_expert_file_bytes_total",
               "Bytes read from the model's files for experts, whatever became of them.", counter,
               static_cast<double>(snapshot.expert_bytes_read)),
        Single("thermocline_expert_memory_bytes",
               "Memory that experts may take by the limits of now.", gauge,
               static_cast<double>(snapshot.expert_bytes_allowed)),
        Single("thermocline_expert_filling", "1 while experts are on their way into memory.", gauge,
               snapshot.filling ? 1.0 : 0.0)};
    MetricFamily stages{"thermocline_stage_seconds_total",
                        "Time spent in each part of the engine steps.",
                        counter,
                        {}};
    for (size_t i = 0; i < kNumStages; ++i) {
      ClientMetric metric;
      metric.label = {{"stage", kStageNames[i]}};
      metric.counter.value = snapshot.stage_seconds[i];
      stages.metric.push_back(metric);
    }
    families.push_back(std::move(stages));
    AddExperts(snapshot, &families);
    return families;
  }

 private:
  static void AddExperts(const EngineSnapshot& snapshot, std::vector<MetricFamily>* families) {
    struct Field {
      const char* name;
      const char* help;
      int64_t ExpertStats::*value;
    };
    constexpr Field kFields[] = {
        {"thermocline_expert_hits_total", "Uses of an expert that was in memory.",
         &ExpertStats::hits},
        {"thermocline_expert_misses_total", "Uses of an expert that had to be read.",
         &ExpertStats::misses},
        {"thermocline_expert_evictions_total", "Experts given up for others.",
         &ExpertStats::evictions},
        {"thermocline_expert_read_bytes_total", "Bytes of experts that came in whole.",
         &ExpertStats::bytes_read}};
    for (const Field& field : kFields) {
      MetricFamily family{field.name, field.help, MetricType::Counter, {}};
      for (size_t layer = 0; layer < snapshot.experts.size(); ++layer) {
        ClientMetric metric;
        metric.label = {{"layer", absl::StrCat(layer)}, {"tier", "host"}};
        metric.counter.value = static_cast<double>(snapshot.experts[layer].*field.value);
        family.metric.push_back(metric);
      }
      families->push_back(std::move(family));
    }
  }

  mutable Mutex mutex_;
  std::function<EngineSnapshot()> source_ ABSL_GUARDED_BY(mutex_);
};

const char* ReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

Histogram* MakeHistogram(prometheus::Registry* registry, const char* name, const char* help) {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry).Add(
      {}, kSecondsBuckets);
}

}  // namespace

struct Metrics::Impl {
  // prometheus-cpp's exposer keeps weak references, hence the shared_ptr.
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::shared_ptr<EngineCollector> engine = std::make_shared<EngineCollector>();
  Histogram* first_token = MakeHistogram(registry.get(), "thermocline_time_to_first_token_seconds",
                                         "From submission to the first token.");
  Histogram* inter_token = MakeHistogram(registry.get(), "thermocline_inter_token_seconds",
                                         "Between neighbouring tokens of a request.");
  Histogram* queue = MakeHistogram(registry.get(), "thermocline_queue_seconds",
                                   "From submission to the first scheduled step.");
  Histogram* end_to_end = MakeHistogram(registry.get(), "thermocline_request_seconds",
                                        "From submission to the end of a request.");
  prometheus::Family<prometheus::Counter>* finished =
      &prometheus::BuildCounter()
           .Name("thermocline_requests_finished_total")
           .Help("Accepted requests by how they ended.")
           .Register(*registry);
  prometheus::Family<prometheus::Counter>* rejected =
      &prometheus::BuildCounter()
           .Name("thermocline_requests_rejected_total")
           .Help("Requests refused, by reason.")
           .Register(*registry);
  std::unique_ptr<prometheus::Exposer> exposer;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {
  for (FinishReason reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
                              FinishReason::kDeadline, FinishReason::kError}) {
    impl_->finished->Add({{"reason", ReasonName(reason)}});
  }
  for (const char* reason : {"queue_full", "invalid", "unavailable"})
    impl_->rejected->Add({{"reason", reason}});
}

Metrics::~Metrics() = default;

absl::Status Metrics::Listen(const std::string& address) {
  try {  // the exposer reports a taken port by an exception
    impl_->exposer = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ", e.what()));
  }
  impl_->exposer->RegisterCollectable(impl_->registry);
  impl_->exposer->RegisterCollectable(impl_->engine);
  return absl::OkStatus();
}

void Metrics::SetSource(std::function<EngineSnapshot()> source) {
  impl_->engine->SetSource(std::move(source));
}

void Metrics::OnFirstToken(double seconds) { impl_->first_token->Observe(seconds); }

void Metrics::OnInterToken(double seconds) { impl_->inter_token->Observe(seconds); }

void Metrics::OnDone(const Result& result) {
  if (result.queue_seconds >= 0.0) impl_->queue->Observe(result.queue_seconds);
  impl_->end_to_end->Observe(result.total_seconds);
  impl_->finished->Add({{"reason", ReasonName(result.reason)}}).Increment();
}

void Metrics::OnReject(absl::string_view reason) {
  impl_->rejected->Add({{"reason", std::string(reason)}}).Increment();
}

std::string Metrics::Text() const {
  std::vector<MetricFamily> families = impl_->registry->Collect();
  for (MetricFamily& family : impl_->engine->Collect()) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace thermocline
