#include "torch/engine.h"

#include <chrono>

#include "torch/errors.h"

namespace dynaflow {

Engine::Engine(c10::intrusive_ptr<Runtime> runtime, const std::string& plan_text,
               std::vector<at::Tensor> constants, const c10::Dict<std::string, std::vector<int64_t>>& cores)
    : runtime_(std::move(runtime)), plan_(parse_plan(plan_text)), binder_(std::make_shared<Binder>(plan_)) {
  prepared_ = prepare(plan_, *binder_, std::move(constants), runtime_->groups(), runtime_->kernels(),
                      runtime_->context_op());
  StreamCores stated;
  for (const auto& stream : cores) {
    const std::vector<int64_t> own = stream.value();
    stated[stream.key()].assign(own.begin(), own.end());
  }
  executor_ = std::make_unique<Executor>(plan_, binder_, std::make_shared<TorchProvider>(prepared_),
                                         make_cpu_device(std::move(stated)));
}

Engine::Outputs Engine::run(std::vector<at::Tensor> arguments, const std::vector<int64_t>& symbols) {
  return execute(std::move(arguments), symbols, {}, 0);
}

Engine::Outputs Engine::run_with(std::vector<at::Tensor> arguments, const std::vector<int64_t>& symbols,
                                 bool serial, bool poison, const std::vector<int64_t>& delays_us,
                                 int64_t step) {
  RunOptions options;
  options.serial = serial;
  options.poison = poison;
  options.delays_us.assign(delays_us.begin(), delays_us.end());
  return execute(std::move(arguments), symbols, std::move(options), step);
}

Engine::Outputs Engine::execute(std::vector<at::Tensor> arguments, const std::vector<int64_t>& symbols,
                                RunOptions options, int64_t step) {
  // Threads and communicators do not cross a fork.
  if (getpid() != process_)
    throw ExecutionError("the process was forked after this model was compiled; compile it in the child");
  const Gate::Pass pass(runtime_->gate());
  std::optional<Turnstile::Turn> turn;
  if (!prepared_->groups.empty() || prepared_->enter_context) {
    turn.emplace(runtime_->turnstile());
    check_groups();
  }
  Executor::Lease lease = executor_->acquire();
  auto& frame = static_cast<TorchFrame&>(lease->kernels());
  const std::shared_ptr<TraceRecorder> recorder = make_recorder();
  options.observer = recorder.get();
  const bool measured = measured_.load(std::memory_order_relaxed);
  frame.set_run(std::move(arguments), recorder, measured, step);
  const int64_t start = measured ? thread_cpu_ns() : 0;
  try {
    executor_->run(*lease, symbols, options);
  } catch (const std::exception& error) {
    break_groups(frame, error_text(error));
    frame.take_outputs();
    count(frame, 0);
    throw;
  }
  if (measured) frame.add_step_time(thread_cpu_ns() - start);
  count(frame, 1);
  return {frame.take_outputs(), frame.take_sizes()};
}

std::tuple<std::vector<int64_t>, std::vector<int64_t>> Engine::time_against_bare_calls(
    const std::vector<at::Tensor>& arguments, const std::vector<int64_t>& symbols, int64_t rounds,
    int64_t repeats) {
  if (!prepared_->groups.empty())
    throw PlanError("a plan with collectives has no bare calls to compare with");
  BareCalls bare;
  {
    const Gate::Pass pass(runtime_->gate());
    Executor::Lease lease = executor_->acquire();
    auto& frame = static_cast<TorchFrame&>(lease->kernels());
    frame.set_run(arguments, nullptr, false, 0);
    frame.keep_calls(&bare);
    RunOptions serial;
    serial.serial = true;
    executor_->run(*lease, symbols, serial);
    frame.keep_calls(nullptr);
    frame.take_outputs();
  }
  const auto time = [repeats](auto once) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < repeats; ++i) once();
    return (std::chrono::steady_clock::now() - start) / std::chrono::nanoseconds(1) / repeats;
  };
  std::vector<int64_t> steps;
  std::vector<int64_t> loops;
  for (int64_t round = 0; round < rounds; ++round) {
    steps.push_back(time([&] { run(arguments, symbols); }));
    loops.push_back(time([&] { bare.run(); }));
  }
  return {steps, loops};
}

void Engine::check_groups() const {
  for (const auto& group : prepared_->groups) {
    if (group->destroyed())
      throw ExecutionError(
          formatted("the process group '{}' was destroyed after this model was compiled; compile it again "
                    "for a new one",
                    group->name()));
    const std::string reason = group->broken();
    if (reason.empty()) continue;
    throw ExecutionError(
        formatted("group '{}' is broken since an earlier step failed, and its ranks no longer "
                  "agree on what comes next; restart them. The first error was: {}",
                  group->name(), reason));
  }
}

/// A failed collective, or one that was never issued, leaves the ranks at different points.
void Engine::break_groups(const TorchFrame& frame, const std::string& reason) {
  std::string first = frame.stopped_short() ? reason : "";
  for (const auto& group : prepared_->groups) {
    if (const std::string known = group->broken(); !known.empty()) first = known;
  }
  if (first.empty()) return;
  for (const auto& group : prepared_->groups) group->mark_broken(first);
}

int64_t Engine::planned_bytes(const std::vector<int64_t>& symbols) const {
  Binding binding;
  binder_->bind(symbols, binding);
  return binding.arena_bytes;
}

std::vector<int64_t> Engine::parts(const std::vector<int64_t>& symbols) const {
  const auto& known = plan_->graph->symbols;
  for (size_t i = 0; i < known.size() && i < symbols.size(); ++i) {
    if (known[i].name == plan_->graph->batch_symbol) return cut(plan_->cut, symbols[i]);
  }
  return {};
}

std::shared_ptr<TraceRecorder> Engine::make_recorder() {
  if (!tracing_.load(std::memory_order_relaxed)) return nullptr;
  std::vector<bool> asynchronous;
  for (const PreparedRun& run : prepared_->runs) asynchronous.push_back(run.asynchronous);
  auto recorder = std::make_shared<TraceRecorder>(prepared_->runs.size(), std::move(asynchronous));
  std::scoped_lock lock(mutex_);
  last_trace_ = recorder;
  return recorder;
}

void Engine::start_trace() {
  std::scoped_lock lock(mutex_);
  last_trace_ = nullptr;
  tracing_ = true;
}

std::string Engine::take_trace() {
  std::scoped_lock lock(mutex_);
  tracing_ = false;
  const auto trace = std::exchange(last_trace_, nullptr);
  return trace ? trace->text() : std::string();
}

void Engine::count(TorchFrame& frame, int64_t steps) {
  const LaunchCounters counters = frame.take_counters();
  std::scoped_lock lock(mutex_);
  totals_ += counters;
  steps_ += steps;
}

void Engine::measure(bool on) {
  const int64_t reading = on ? clock_reading_ns() : 0;
  std::scoped_lock lock(mutex_);
  if (on) clock_reading_ns_ = reading;
  measured_ = on;
}

c10::Dict<std::string, int64_t> Engine::counters() const {
  std::scoped_lock lock(mutex_);
  // Of the two readings around a kernel, one lies between the two moments that they return.
  const int64_t inside = totals_.timed * clock_reading_ns_;
  const int64_t kernel_ns = std::max<int64_t>(0, totals_.kernel_ns - inside);
  const int64_t host_ns = totals_.step_ns - totals_.caller_ns - totals_.caller_timed * clock_reading_ns_;
  c10::Dict<std::string, int64_t> result;
  result.insert("steps", steps_);
  result.insert("launches", totals_.launches);
  result.insert("fresh_results", totals_.fresh_results);
  result.insert("copied_bytes", totals_.copied_bytes);
  result.insert("arena_bytes", totals_.arena_bytes);
  result.insert("events", steps_ * plan_->events);
  result.insert("handoffs", steps_ * prepared_->handoffs);
  result.insert("kernel_ns", kernel_ns);
  result.insert("host_ns", std::max<int64_t>(0, host_ns));
  result.insert("clock_ns", 2 * inside);
  return result;
}

}  // namespace dynaflow
