#include "executor/frame.h"

#include <chrono>
#include <thread>

namespace dynaflow {

using Kind = Instruction::Kind;

struct RunFrame::Cursor {
  const Program& steps;
  size_t at = 0;
};

RunFrame::RunFrame(const Plan& plan, const Programs& programs, KernelProvider& kernels, Device& device)
    : plan_(plan), programs_(programs), kernels_(kernels.make_frame()), completions_(plan.runs.size()) {
  std::vector<StreamSpec> specs;
  for (const Stream& stream : plan.streams)
    specs.push_back({stream.name, stream.kind == StreamKind::kAsync, stream.kind == StreamKind::kThread});
  streams_ = device.make_streams(specs);
  for (int32_t i = 0; i < plan.events; ++i) events_.push_back(device.make_event());
}

RunFrame::~RunFrame() = default;

void RunFrame::run(const Binder& binder, const std::vector<int64_t>& graph_symbols,
                   const RunOptions& options) {
  options_ = &options;
  failed_.store(false, std::memory_order_relaxed);
  try {
    begin(binder.bind(graph_symbols, binding_));
    if (options.serial) {
      run_serial();
    } else {
      run_overlapped();
    }
    forget_run();
  } catch (...) {
    kernels_->end();
    throw;
  }
  kernels_->end();
  if (failed_.load(std::memory_order_relaxed)) raise();
}

void RunFrame::begin(bool changed) {
  try {
    kernels_->begin(binding_, changed);
  } catch (...) {
    binding_.valid = false;  // the kernels may hold a mixture of old and new sizes
    throw;
  }
  if (options_->poison) kernels_->poison();
  if (!options_->serial && threads_.size() < programs_.threads.size()) {
    threads_.reserve(programs_.threads.size());
    for (size_t i = threads_.size(); i < programs_.threads.size(); ++i) {
      threads_.push_back(std::make_unique<StreamThread>([this, i] {
        Cursor cursor{programs_.threads[i].steps};
        walk_guarded(cursor, streams_[programs_.threads[i].stream].get());
      }));
    }
  }
}

void RunFrame::run_overlapped() {
  for (const auto& thread : threads_) thread->start();
  Cursor cursor{programs_.caller};
  walk_guarded(cursor, nullptr);
  for (const auto& thread : threads_) thread->finish();
  drain();
}

void RunFrame::run_serial() {
  for (const Step& step : programs_.serial) {
    try {
      if (step.kind == Kind::kFree) {
        kernels_->free(step.id);
      } else if (const std::shared_ptr<Completion> work = start_kernels(step.id)) {
        work->wait();
      }
    } catch (...) {
      return fail(step);
    }
  }
}

void RunFrame::walk_guarded(Cursor& cursor, DeviceStream* own) noexcept {
  try {
    if (own != nullptr) {
      own->enter_thread();
      // One pointer each, so that std::function needs no heap.
      struct Both {
        RunFrame* frame;
        Cursor* cursor;
      } both{this, &cursor};
      kernels_->with_caller_state([&both] { both.frame->walk(*both.cursor); });
    } else {
      walk(cursor);
    }
  } catch (...) {
    fail(cursor.at < cursor.steps.size() ? cursor.steps[cursor.at] : Step{.kind = Kind::kWait});
  }
  record_rest(cursor);
}

void RunFrame::walk(Cursor& cursor) {
  for (; cursor.at < cursor.steps.size(); ++cursor.at) {
    // A thread that failed records its events all the same. Whoever waited for one sees the flag here, before
    // it launches or frees anything on the strength of work that was never done.
    if (failed_.load(std::memory_order_relaxed)) return;
    const Step& step = cursor.steps[cursor.at];
    switch (step.kind) {
      case Kind::kLaunch:
        launch(step);
        break;
      case Kind::kRecord:
        streams_[step.stream]->record(*events_[step.id]);
        break;
      case Kind::kWait:
        streams_[step.stream]->wait(*events_[step.id]);
        break;
      case Kind::kFree:
        kernels_->free(step.id);
        break;
    }
  }
}

void RunFrame::launch(const Step& step) {
  std::shared_ptr<Completion> work = start_kernels(step.id);
  if (work && plan_.streams[step.stream].kind == StreamKind::kAsync) completions_[step.id] = work;
  streams_[step.stream]->launched(std::move(work));
}

std::shared_ptr<Completion> RunFrame::start_kernels(RunId run) {
  const RunOptions& options = *options_;
  const auto index = static_cast<size_t>(run);
  if (index < options.delays_us.size() && options.delays_us[index] > 0)
    std::this_thread::sleep_for(std::chrono::microseconds(options.delays_us[index]));
  if (options.observer == nullptr) return kernels_->launch(run);
  options.observer->on_launch(run);
  std::shared_ptr<Completion> work = kernels_->launch(run);
  options.observer->on_return(run);
  return work;
}

void RunFrame::record_rest(const Cursor& cursor) noexcept {
  for (size_t i = cursor.at; i < cursor.steps.size(); ++i) {
    const Step& step = cursor.steps[i];
    if (step.kind == Kind::kRecord) streams_[step.stream]->record(*events_[step.id]);
  }
}

void RunFrame::drain() noexcept {
  for (StreamId id = 0; id < static_cast<StreamId>(streams_.size()); ++id) {
    try {
      streams_[id]->synchronize();
    } catch (...) {
      fail({.kind = Kind::kWait, .stream = id, .id = kNoId});
    }
  }
  if (failed_.load(std::memory_order_relaxed)) blame_async_work();
}

void RunFrame::forget_run() noexcept {
  for (RunId run : programs_.async_runs) completions_[run].reset();
  for (const auto& event : events_) event->reset();
}

}  // namespace dynaflow
