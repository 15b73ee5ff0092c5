#include "cache/expert_fetcher.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr auto kAcqRel = std::memory_order_acq_rel;
constexpr int64_t kMaxPieces = 1 << 20;  // of an expert

// Of experts that fail without ever having a slot.
const Arrival* LostArrival() {
  static const Arrival* const lost = [] {
    auto* arrival = new Arrival;
    arrival->failed = true;
    return arrival;
  }();
  return lost;
}

std::atomic<int32_t>& CountOf(Arrival* arrival, ExpertPart part) {
  return part == ExpertPart::kGateUp ? arrival->gate_up_left : arrival->down_left;
}

absl::Status LostExpert(ExpertId id, const absl::Status& status) {
  return absl::DataLossError(absl::StrCat("expert ", id.expert, " of layer ", id.layer,
                                          " cannot be read: ", status.message()));
}

}  // namespace

int64_t ExpertFetcher::Flight::Order() const {
  return (fetch->use != nullptr ? fetch->plan : int64_t{1} << 32) * kMaxPieces + piece.index;
}

ExpertFetcher::ExpertFetcher(const Options& options)
    : options_(options),
      tier_(*options.tier),
      bytes_arrived_(static_cast<size_t>(options.tier->num_layers()), 0),
      fetch_of_(static_cast<size_t>(options.tier->residency()->num_slots())) {
  TC_CHECK(tier_.device()->memory_kind() == MemoryKind::kHost);
}

absl::StatusOr<std::unique_ptr<ExpertFetcher>> ExpertFetcher::Create(const Options& options) {
  std::unique_ptr<ExpertFetcher> fetcher(new ExpertFetcher(options));
  ExpertFetcher* self = fetcher.get();
  absl::StatusOr<std::unique_ptr<ExpertReader>> reader = options.make_reader([self](bool landed) {
    if (landed) self->bell_.Raise();
    while (!self->in_region_.load() && self->Help()) {  // outside a region the reader permutes
    }
  });
  if (!reader.ok()) return reader.status();
  const MutexLock lock(&fetcher->mutex_);
  fetcher->reader_ = *std::move(reader);
  return fetcher;
}

ExpertFetcher::~ExpertFetcher() {
  if (reader_ == nullptr) return;
  // Every read lands first, and the reader's threads may still be in Help.
  const bool all_landed =
      reader_->Stop(std::chrono::duration<double>(options_.stop_deadline).count());
  {
    const MutexLock lock(&mutex_);
    Sort();
    for (auto& [ticket, flight] : flights_) flight.fetch->over = true;
    for (auto it = flights_.begin(); it != flights_.end();) {
      const auto [ticket, flight] = *it++;
      if (flight.state == Flight::State::kLanded) Drop(ticket);
    }
  }
  if (all_landed) return;
  std::fprintf(stderr, "thermocline: a read of the model file does not end; its memory is left\n");
  reader_.release();  // NOLINT(bugprone-unused-return-value): its thread may still write into it
}

ExpertFetcher::FetchPtr ExpertFetcher::NewFetch(ExpertId id, Use* use, int plan) const {
  auto fetch = std::make_shared<Fetch>();
  fetch->id = id;
  fetch->use = use;
  fetch->plan = plan;
  for (const ExpertPart part : {ExpertPart::kGateUp, ExpertPart::kDown}) {
    fetch->unpermuted[static_cast<size_t>(part)] = options_.source->NumPieces(id, part);
  }
  return fetch;
}

void ExpertFetcher::Begin(int layer, absl::Span<const int32_t> experts,
                          absl::Span<ExpertWork> works) {
  Residency& books = *tier_.residency();
  uses_.resize(experts.size());
  books.SetNeeded(layer, experts);
  all_here_ = true;
  {
    const MutexLock lock(&mutex_);
    last_start_ = -1;
    for (size_t i = 0; i < experts.size(); ++i) {
      Use* use = &uses_[i];
      *use = {.id = {layer, experts[i]}, .work = &works[i], .released = false, .error = {}};
      works[i].arrival.store(nullptr, std::memory_order_relaxed);
      works[i].done.store(false, std::memory_order_relaxed);
      const std::optional<SlotId> slot = books.Find(use->id);
      const auto failed = failed_.find({layer, experts[i]});
      const bool fails = failed != failed_.end() && Clock::now() < failed->second.until;
      if (slot.has_value() && books.StateOf(*slot) == SlotState::kReady) {
        Publish(use, *slot);
        continue;
      }
      all_here_ = false;
      if (slot.has_value() && books.StateOf(*slot) != SlotState::kFailed) {
        const FetchPtr& fetch = fetch_of_[static_cast<size_t>(*slot)];
        if (fetch->over) {  // failed, but the books do not know yet
          use->error = failed->second.status;
        } else {  // a prefetch that came true
          fetch->use = use;
          fetch->plan = static_cast<int>(i);
          Want(fetch);
        }
        Publish(use, *slot);
      } else if (slot.has_value() || fails) {  // it fails at once, without a slot
        use->error = failed->second.status;
        works[i].arrival.store(LostArrival(), std::memory_order_release);
      } else {
        missing_.push_back(NewFetch(use->id, use, static_cast<int>(i)));
        Want(missing_.back());
      }
    }
  }
  if (!all_here_) Tend();
}

void ExpertFetcher::Want(const FetchPtr& fetch) {
  busy_ = true;
  if (fetch->slot == kNoSlot) {
    const int num_pieces = fetch->unpermuted[0] + fetch->unpermuted[1];
    for (int32_t piece = 0; piece < num_pieces; ++piece) wanted_.push_back({fetch, piece});
  }
  for (const Wish& wish : prefetch_) {
    if (wish.fetch == fetch) wanted_.push_back(wish);
  }
  std::erase_if(prefetch_, [&](const Wish& wish) { return wish.fetch == fetch; });
  for (auto& [ticket, flight] : flights_) {
    if (flight.fetch == fetch) flight.for_step = true;
  }
}

void ExpertFetcher::Publish(Use* use, SlotId slot) {
  tier_.residency()->Pin(slot);
  ExpertWeights weights = tier_.Weights(slot);
  weights.gate_bias = use->work->weights.gate_bias;
  weights.up_bias = use->work->weights.up_bias;
  weights.down_bias = use->work->weights.down_bias;
  use->work->weights = weights;
  use->work->arrival.store(tier_.arrival(slot), std::memory_order_release);
}

void ExpertFetcher::Arm(const FetchPtr& fetch, SlotId slot) {
  TC_CHECK(fetch_of_[static_cast<size_t>(slot)] == nullptr);
  tier_.Arm(slot, fetch->unpermuted[0], fetch->unpermuted[1]);
  fetch->slot = slot;
  fetch_of_[static_cast<size_t>(slot)] = fetch;
  filling_.push_back(slot);
  busy_ = true;
  if (fetch->use != nullptr) Publish(fetch->use, slot);
  bell_.Raise();
}

std::vector<ExpertFetcher::Failure> ExpertFetcher::End() {
  std::vector<Failure> failures;
  {
    const MutexLock lock(&mutex_);
    for (Use& use : uses_) ReleaseUse(&use);
    for (size_t i = 0; i < uses_.size(); ++i) {
      if (!uses_[i].error.ok()) failures.push_back({i, uses_[i].error});
    }
    for (const FetchPtr& fetch : missing_) TC_CHECK(fetch->over);
    missing_.clear();
    wanted_.clear();  // of experts that have failed
    for (const SlotId slot : filling_) {
      const FetchPtr& fetch = fetch_of_[static_cast<size_t>(slot)];
      if (fetch != nullptr) fetch->use = nullptr;
    }
  }
  uses_.clear();
  in_region_.store(false);
  if (busy_) reader_->Nudge();
  return failures;
}

void ExpertFetcher::Prefetch(absl::Span<const ExpertId> ids, Claimant who) {
  Residency& books = *tier_.residency();
  {
    const MutexLock lock(&mutex_);
    for (const ExpertId id : ids) {
      const auto failed = failed_.find({id.layer, id.expert});
      if (failed != failed_.end() && Clock::now() < failed->second.until) continue;
      if (books.Find(id).has_value()) continue;
      const std::optional<SlotId> slot = missing_.empty() ? books.Claim(id, who) : std::nullopt;
      if (!slot.has_value()) continue;  // another layer may have room
      const FetchPtr fetch = NewFetch(id, nullptr, 0);
      Arm(fetch, *slot);
      const int num_pieces = fetch->unpermuted[0] + fetch->unpermuted[1];
      for (int32_t piece = 0; piece < num_pieces; ++piece) prefetch_.push_back({fetch, piece});
    }
  }
  Tend();
}

absl::Status ExpertFetcher::first_failure() {
  const MutexLock lock(&mutex_);
  return first_failure_;
}

void ExpertFetcher::CancelPrefetches() {
  const MutexLock lock(&mutex_);
  const std::vector<SlotId> slots = filling_;
  for (const SlotId slot : slots) {
    const FetchPtr fetch = fetch_of_[static_cast<size_t>(slot)];
    if (fetch != nullptr && fetch->use == nullptr && !fetch->over) CancelPrefetch(fetch.get());
  }
}

void ExpertFetcher::Tend() {
  if (!busy_) return;
  const MutexLock lock(&mutex_);
  Sort();
  FailLateReads();
  const std::vector<SlotId> slots = filling_;
  for (const SlotId slot : slots) UpdateBooks(slot);
  for (Use& use : uses_) {
    if (use.work->done.load(std::memory_order_acquire)) ReleaseUse(&use);
  }
  ClaimSlots();
  StartReads();
  busy_ = !flights_.empty() || !wanted_.empty() || !prefetch_.empty() || !missing_.empty() ||
          !filling_.empty();
}

void ExpertFetcher::ClaimSlots() {
  for (; !missing_.empty(); missing_.pop_front()) {
    const FetchPtr& fetch = missing_.front();
    if (fetch->over) continue;
    Residency* books = tier_.residency();
    std::optional<SlotId> slot = books->Claim(fetch->id, Claimant::kStep);
    while (!slot.has_value() && CancelOnePrefetch()) {
      slot = books->Claim(fetch->id, Claimant::kStep);
    }
    if (!slot.has_value()) return;
    Arm(fetch, *slot);
  }
}

bool ExpertFetcher::Help() {
  ReadTicket ticket = 0;
  FetchPtr fetch;
  ReadPiece piece;
  std::array<const char*, 2> bytes;
  char* slot = nullptr;
  {
    const MutexLock lock(&mutex_);
    Sort();
    Flight* best = nullptr;  // a piece whose expert has no slot yet is no work for anybody
    for (auto& [t, flight] : flights_) {
      if (flight.state != Flight::State::kLanded || flight.fetch->slot == kNoSlot) continue;
      if (best != nullptr && best->Order() <= flight.Order()) continue;
      best = &flight;
      ticket = t;
    }
    if (best == nullptr) return false;
    fetch = best->fetch;
    piece = best->piece;
    bytes = best->bytes;
    slot = tier_.Address(fetch->slot);
    best->state = Flight::State::kPermuting;
    ++fetch->permuting;
    --fetch->unpermuted[static_cast<size_t>(piece.part)];
  }
  const absl::Status arrived = options_.source->Arrive(piece, bytes, slot);
  {
    const MutexLock lock(&mutex_);
    --fetch->permuting;
    Flight& flight = flights_.at(ticket);
    if (!arrived.ok() && !fetch->over && flight.tries < options_.max_tries) {
      ++flight.tries;
      ++fetch->unpermuted[static_cast<size_t>(piece.part)];
      flight.state = Flight::State::kReading;
      flight.deadline = Clock::now() + options_.read_deadline;
      reader_->Again(ticket);
    } else {
      if (!arrived.ok()) Fail(fetch.get(), arrived);  // before the count reaches 0
      TC_CHECK(CountOf(tier_.arrival(fetch->slot), piece.part).fetch_sub(1, kAcqRel) > 0);
      Drop(ticket);
    }
  }
  bell_.Raise();
  return true;
}

void ExpertFetcher::Sleep(uint32_t seen, bool tends) {
  std::chrono::nanoseconds time = std::chrono::hours(1);
  if (tends && next_deadline_ != Clock::time_point::max()) {
    time = std::max<std::chrono::nanoseconds>(std::chrono::nanoseconds(0),
                                              next_deadline_ - Clock::now());
  }
  bell_.Sleep(seen, time);
}

void ExpertFetcher::Sort() {
  while (const std::optional<Landed> landed = reader_->TakeLanded()) {
    Flight& flight = flights_.at(landed->ticket);
    const FetchPtr fetch = flight.fetch;
    if (flight.abandoned) --num_abandoned_;
    if (fetch->over) {
      Drop(landed->ticket);
    } else if (landed->status.ok()) {
      flight.state = Flight::State::kLanded;
      flight.bytes = landed->bytes;
    } else if (flight.tries < options_.max_tries) {
      ++flight.tries;
      flight.deadline = Clock::now() + options_.read_deadline;
      reader_->Again(landed->ticket);
    } else {
      Fail(fetch.get(), landed->status);
      Drop(landed->ticket);
    }
  }
}

void ExpertFetcher::Fail(Fetch* fetch, const absl::Status& status) {
  if (std::exchange(fetch->over, true)) return;
  const absl::Status error = LostExpert(fetch->id, status);
  failed_[{fetch->id.layer, fetch->id.expert}] = {Clock::now() + options_.retry_failed_after,
                                                  error};
  if (first_failure_.ok()) first_failure_ = error;
  DropPieces(fetch);
  if (fetch->use != nullptr) fetch->use->error = error;
  if (fetch->slot == kNoSlot) {
    fetch->use->work->arrival.store(LostArrival(), std::memory_order_release);
  } else {
    Arrival* arrival = tier_.arrival(fetch->slot);
    arrival->failed.store(true, std::memory_order_release);
    // Pieces that somebody is permuting are counted down by them.
    arrival->gate_up_left.fetch_sub(fetch->unpermuted[0], kAcqRel);
    arrival->down_left.fetch_sub(fetch->unpermuted[1], kAcqRel);
  }
  bell_.Raise();
}

void ExpertFetcher::FailLateReads() {
  std::vector<FetchPtr> late;
  next_deadline_ = Clock::time_point::max();
  const Clock::time_point now = Clock::now();
  for (auto& [ticket, flight] : flights_) {
    if (flight.state != Flight::State::kReading || flight.abandoned) continue;
    if (now < flight.deadline) {
      next_deadline_ = std::min(next_deadline_, flight.deadline);
      continue;
    }
    flight.abandoned = true;
    ++num_abandoned_;
    late.push_back(flight.fetch);
  }
  // Nothing can begin any more, so no deadline would ever run.
  if (num_abandoned_ > 0 && !reader_->CanStart() &&
      num_abandoned_ == static_cast<int>(flights_.size())) {
    for (const std::deque<Wish>* queue : {&wanted_, &prefetch_}) {
      for (const Wish& wish : *queue) late.push_back(wish.fetch);
    }
  }
  const absl::Status status = absl::DataLossError(absl::StrCat(
      "the disk has not answered for ",
      std::chrono::duration_cast<std::chrono::milliseconds>(options_.read_deadline).count() /
          1000.0,
      " s"));
  for (const FetchPtr& fetch : late) Fail(fetch.get(), status);
}

void ExpertFetcher::Drop(ReadTicket ticket) {
  reader_->GiveBack(ticket);
  flights_.erase(ticket);
}

void ExpertFetcher::DropPieces(const Fetch* fetch) {
  for (auto it = flights_.begin(); it != flights_.end();) {
    const ReadTicket ticket = it->first;
    const Flight& flight = it->second;
    ++it;
    if (flight.fetch.get() != fetch) continue;
    if (flight.state == Flight::State::kReading) reader_->Cancel(ticket);
    if (flight.state == Flight::State::kLanded) Drop(ticket);
  }
}

void ExpertFetcher::UpdateBooks(SlotId slot) {
  Residency* books = tier_.residency();
  const FetchPtr fetch = fetch_of_[static_cast<size_t>(slot)];
  const SlotState state = books->StateOf(slot);
  if (fetch->over) {
    if (state == SlotState::kFilling || state == SlotState::kHalf) {
      books->Arrived(slot, SlotState::kFailed);
    }
    if (fetch->permuting > 0 || books->InUse(slot)) return;
    books->Arrived(slot, SlotState::kFree);
    Leave(slot);
    tier_.ReleaseMemory();
    return;
  }
  Arrival* arrival = tier_.arrival(slot);
  const bool half = arrival->gate_up_left.load(std::memory_order_acquire) == 0;
  const bool ready = half && arrival->down_left.load(std::memory_order_acquire) == 0;
  if (ready) {
    bytes_arrived_[static_cast<size_t>(fetch->id.layer)] += tier_.layout(fetch->id.layer).bytes;
    books->Arrived(slot, SlotState::kReady);
    Leave(slot);
  } else if (half && state != SlotState::kHalf) {
    books->Arrived(slot, SlotState::kHalf);
  }
}

void ExpertFetcher::Leave(SlotId slot) {
  fetch_of_[static_cast<size_t>(slot)] = nullptr;
  filling_.erase(std::find(filling_.begin(), filling_.end(), slot));
}

void ExpertFetcher::ReleaseUse(Use* use) {
  if (std::exchange(use->released, true)) return;
  const bool lost = use->work->arrival.load()->failed.load();
  TC_CHECK(lost == !use->error.ok()) << "a lost expert that nobody reports";
  const std::optional<SlotId> slot = tier_.residency()->Find(use->id);
  tier_.residency()->Release(use->id);
  if (slot.has_value() && fetch_of_[static_cast<size_t>(*slot)] != nullptr) UpdateBooks(*slot);
}

void ExpertFetcher::CancelPrefetch(Fetch* fetch) {
  fetch->over = true;
  tier_.residency()->Cancel(fetch->slot);
  DropPieces(fetch);
  UpdateBooks(fetch->slot);
}

bool ExpertFetcher::CancelOnePrefetch() {
  for (const SlotId slot : filling_) {  // what is about to be free comes first
    if (tier_.residency()->StateOf(slot) == SlotState::kDraining) return false;
  }
  for (const SlotId slot : filling_) {
    const FetchPtr fetch = fetch_of_[static_cast<size_t>(slot)];
    if (fetch->use != nullptr || fetch->over) continue;
    CancelPrefetch(fetch.get());
    return true;
  }
  return false;
}

void ExpertFetcher::Begin(std::deque<Wish>* queue, bool for_step) {
  const Wish wish = queue->front();
  queue->pop_front();
  Flight flight;
  flight.fetch = wish.fetch;
  flight.piece = options_.source->PieceOf(wish.fetch->id, wish.piece);
  flight.deadline = Clock::now() + options_.read_deadline;
  flight.for_step = for_step;
  next_deadline_ = std::min(next_deadline_, flight.deadline);
  const ReadPiece piece = flight.piece;
  flights_.emplace(++last_ticket_, std::move(flight));
  reader_->Start(piece, last_ticket_);
}

void ExpertFetcher::StartReads() {
  for (std::deque<Wish>* queue : {&wanted_, &prefetch_}) {
    std::erase_if(*queue, [](const Wish& wish) { return wish.fetch->over; });
  }
  while (!wanted_.empty() && reader_->CanStart()) {
    const int64_t order = wanted_.front().fetch->plan * kMaxPieces + wanted_.front().piece;
    TC_CHECK(order > last_start_) << "reads start in the plan's order";
    last_start_ = order;
    Begin(&wanted_, /*for_step=*/true);
  }
  int step_reads = 0, prefetch_reads = 0, held = 0;
  for (const auto& [ticket, flight] : flights_) {
    const bool open = flight.state == Flight::State::kReading && !flight.abandoned;
    (flight.for_step ? step_reads : prefetch_reads) += open;
    held += !flight.for_step;
  }
  const int half = std::max(1, (held + reader_->num_free()) / 2);
  while (!prefetch_.empty() && wanted_.empty() && reader_->CanStart() && held < half) {
    if (step_reads > 0 && prefetch_reads > 0) break;
    Begin(&prefetch_, /*for_step=*/false);
    ++prefetch_reads;
    ++held;
  }
}

}  // namespace thermocline
