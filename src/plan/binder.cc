#include <algorithm>
#include <numeric>

#include "plan/buffers.h"

namespace dynaflow {

namespace {

std::vector<std::string> plan_symbols(const Plan& plan) {
  std::vector<std::string> names;
  for (const Symbol& symbol : plan.graph->symbols) names.push_back(symbol.name);
  if (plan.cut.parts > 1)
    for (int part = 0; part < plan.cut.parts; ++part) names.push_back(part_symbol(part));
  return names;
}

/// Where `bytes` end that begin at the first aligned place from `offset` on; sets offset to that place.
int64_t place(int64_t& offset, int64_t bytes) {
  int64_t end = 0;
  bool bad = bytes < 0 || __builtin_add_overflow(offset, kAlignment - 1, &offset);
  offset = offset / kAlignment * kAlignment;
  bad = bad || __builtin_add_overflow(offset, bytes, &end);
  if (bad) throw PlanError(formatted("a buffer of {} bytes cannot be placed at byte {}", bytes, offset));
  return end;
}

}  // namespace

std::vector<BufferId> bottom_up(const std::vector<Buffer>& buffers) {
  std::vector<size_t> end(buffers.size() + 1);  // by buffer: where those on top of it end in `on_top`
  for (const Buffer& buffer : buffers)
    for (BufferId under : buffer.above) ++end[static_cast<size_t>(under) + 1];
  std::partial_sum(end.begin(), end.end(), end.begin());
  std::vector<BufferId> on_top(end.back());
  std::vector<size_t> missing(buffers.size());
  std::vector<BufferId> order;
  order.reserve(buffers.size());
  for (size_t id = 0; id < buffers.size(); ++id) {
    missing[id] = buffers[id].above.size();
    if (missing[id] == 0) order.push_back(static_cast<BufferId>(id));
    for (BufferId under : buffers[id].above)
      on_top[end[static_cast<size_t>(under)]++] = static_cast<BufferId>(id);
  }
  for (size_t next = 0; next < order.size(); ++next) {
    const auto under = static_cast<size_t>(order[next]);
    for (size_t at = under == 0 ? 0 : end[under - 1]; at < end[under]; ++at)
      if (--missing[static_cast<size_t>(on_top[at])] == 0) order.push_back(on_top[at]);
  }
  if (order.size() != buffers.size()) throw PlanError("buffers lie above each other in a cycle");
  return order;
}

Binder::Binder(PlanPtr plan) : plan_(std::move(plan)), program_(plan_symbols(*plan_)) {
  for (const Buffer& buffer : plan_->buffers) buffer_bytes_.push_back(program_.add(buffer.bytes));
  placement_order_ = bottom_up(plan_->buffers);
  const std::vector<Symbol>& symbols = plan_->graph->symbols;
  for (size_t i = 0; i < symbols.size(); ++i)
    if (symbols[i].name == plan_->graph->batch_symbol) batch_index_ = static_cast<int>(i);
}

bool Binder::bind(const std::vector<int64_t>& graph_symbols, Binding& binding) const {
  const size_t own = plan_->graph->symbols.size();
  if (graph_symbols.size() != own)
    throw PlanError(formatted("the graph has {} symbols, {} values were given", own, graph_symbols.size()));
  if (binding.valid && std::equal(graph_symbols.begin(), graph_symbols.end(), binding.symbols.begin()))
    return false;
  binding.valid = false;
  binding.symbols.assign(graph_symbols.begin(), graph_symbols.end());
  if (plan_->cut.parts > 1) {
    const std::vector<int64_t> rows = cut(plan_->cut, graph_symbols[static_cast<size_t>(batch_index_)]);
    binding.symbols.insert(binding.symbols.end(), rows.begin(), rows.end());
  }
  program_.evaluate(binding.symbols.data(), binding.registers);
  binding.buffer_offsets.assign(plan_->buffers.size(), 0);
  binding.arena_bytes = 0;
  for (BufferId id : placement_order_) {
    const auto at = static_cast<size_t>(id);
    int64_t offset = 0;
    for (BufferId under : plan_->buffers[at].above) {
      // No overflow: place() has computed this sum.
      const int64_t bytes = binding.registers[static_cast<size_t>(buffer_bytes_[static_cast<size_t>(under)])];
      offset = std::max(offset, binding.buffer_offsets[static_cast<size_t>(under)] + bytes);
    }
    const int64_t end = place(offset, binding.registers[static_cast<size_t>(buffer_bytes_[at])]);
    binding.buffer_offsets[at] = offset;
    binding.arena_bytes = std::max(binding.arena_bytes, end);
  }
  binding.valid = true;
  return true;
}

bool Binder::accepts(const std::vector<int64_t>& graph_symbols) const {
  const std::vector<Symbol>& symbols = plan_->graph->symbols;
  if (graph_symbols.size() != symbols.size()) return false;
  const auto value_of = [&](std::string_view name) -> int64_t {
    for (size_t i = 0; i < symbols.size(); ++i)
      if (symbols[i].name == name) return graph_symbols[i];
    throw PlanError(formatted("a guard uses the unknown symbol '{}'", name));
  };
  for (const SizeEquality& guard : plan_->graph->guards)
    if (guard.left.evaluate(value_of) != guard.right.evaluate(value_of)) return false;
  return std::all_of(plan_->guards.begin(), plan_->guards.end(),
                     [&](const Guard& guard) { return holds(guard, value_of); });
}

}  // namespace dynaflow
