#include <array>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/facts.h"
#include "cli/files.h"
#include "dynaflow/layout.h"

namespace dynaflow::cli {

namespace {

template <size_t N>
Facts counts(const std::array<const char*, N>& names, const std::array<int64_t, N>& numbers) {
  Facts facts = Facts::object();
  for (size_t i = 0; i < N; ++i) facts[names[i]] = numbers[i];
  return facts;
}

Facts symbol_facts(const Graph& graph) {
  Facts facts = Facts::array();
  for (const Symbol& symbol : graph.symbols)
    facts.push_back({{"name", symbol.name},
                     {"min", symbol.min},
                     {"max", symbol.max == INT64_MAX ? Facts() : Facts(symbol.max)},
                     {"hint", symbol.hint}});
  return facts;
}

Facts op_facts(const Graph& graph) {
  std::array<int64_t, 4> numbers{};
  for (const Op& op : graph.ops) ++numbers[static_cast<size_t>(op.kind)];
  return counts<4>({"compute", "view", "collective", "opaque"}, numbers);
}

int64_t values_from(const Graph& graph, Origin origin) {
  int64_t count = 0;
  for (const Value& value : graph.values) count += value.origin == origin ? 1 : 0;
  return count;
}

/// How often each group calls each collective.
Facts collective_facts(const Graph& graph) {
  std::map<std::pair<std::string, std::string>, int64_t> calls;
  for (const Op& op : graph.ops)
    if (op.kind == OpKind::kCollective) ++calls[{op.group, std::string(short_target(op.target))}];
  Facts facts = Facts::array();
  for (const auto& [call, count] : calls)
    facts.push_back({{"group", call.first}, {"collective", call.second}, {"calls", count}});
  return facts;
}

Facts graph_facts(const Graph& graph) {
  const SplitAnalysis split = analyze_split(graph);
  std::array<int64_t, 3> forms{};
  Facts refused = Facts::array();
  for (size_t id = 0; id < graph.ops.size(); ++id) {
    ++forms[static_cast<size_t>(split.forms[id])];
    if (split.forms[id] == SplitForm::kMerged)
      refused.push_back({{"op", graph.ops[id].name}, {"reason", split.reasons[id]}});
  }
  return {{"graph", graph.name},
          {"batch", graph.batch_symbol.empty() ? Facts() : Facts(graph.batch_symbol)},
          {"tokens", graph.tokens.str()},
          {"symbols", symbol_facts(graph)},
          {"ops", op_facts(graph)},
          {"parameters", values_from(graph, Origin::kParameter)},
          {"constants", values_from(graph, Origin::kConstant)},
          {"inputs", values_from(graph, Origin::kInput)},
          {"outputs", graph.outputs.size()},
          {"collectives", collective_facts(graph)},
          {"split", counts<3>({"whole", "split", "merged"}, forms)},
          {"not_split", refused}};
}

Facts stream_facts(const Plan& plan) {
  static constexpr std::array<const char*, 3> kKinds = {"host", "async", "thread"};
  Facts facts = Facts::array();
  for (const Stream& stream : plan.streams) {
    std::array<int64_t, 4> numbers{};
    for (const Instruction& instruction : stream.code) ++numbers[static_cast<size_t>(instruction.kind)];
    facts.push_back({{"name", stream.name},
                     {"kind", kKinds[static_cast<size_t>(stream.kind)]},
                     {"instructions", stream.code.size()}});
    facts.back().update(counts<4>({"launch", "record", "wait", "free"}, numbers));
  }
  return facts;
}

/// Launches that do not write where their result belongs, by target.
Facts copy_facts(const Plan& plan) {
  std::map<std::string, std::pair<int64_t, int64_t>> found;  // copies, fresh
  for (const Run& run : plan.runs)
    for (const OpLaunch& launch : run.launches) {
      const std::string& target = plan.op(launch.op).target;
      if (launch.delivery == Delivery::kCopy) ++found[target].first;
      if (launch.delivery == Delivery::kFresh) ++found[target].second;
    }
  Facts facts = Facts::array();
  for (const auto& [target, numbers] : found)
    facts.push_back({{"target", target}, {"copy", numbers.first}, {"fresh", numbers.second}});
  return facts;
}

/// Bytes at the hints; the reason when the plan does not hold for them.
Facts arena_facts(const PlanPtr& plan) {
  std::vector<int64_t> values;
  for (const Symbol& symbol : plan->graph->symbols) values.push_back(symbol.hint);
  try {
    Binding binding;
    Binder(plan).bind(values, binding);
    return {{"sizes", size_facts(*plan->graph, hints(*plan->graph))}, {"bytes", binding.arena_bytes}};
  } catch (const Error& error) {
    return {{"sizes", size_facts(*plan->graph, hints(*plan->graph))},
            {"bytes", Facts()},
            {"reason", error.what()}};
  }
}

Facts plan_facts(const PlanPtr& plan) {
  Facts guards = Facts::array();
  for (const Guard& guard : plan->guards) guards.push_back(text::print(to_text(guard)));
  size_t launches = 0;
  for (const Run& run : plan->runs) launches += run.launches.size();
  return {{"plan", plan->graph->name},
          {"strategy", plan->strategy},
          {"parts", plan->cut.parts},
          {"cut", text::print(cut_to_text(plan->cut))},
          {"guards", guards},
          {"streams", stream_facts(*plan)},
          {"runs", plan->runs.size()},
          {"launches", launches},
          {"slots", plan->slots.size()},
          {"buffers", plan->buffers.size()},
          {"events", plan->events},
          {"output_storages", plan->output_storage.size()},
          {"copies", copy_facts(*plan)},
          {"arena", arena_facts(plan)}};
}

struct Options {
  std::string file;
  bool json = false;
};

int inspect(const Options& options) {
  const File file = read_file(options.file);
  const Facts facts = holds_plan(file) ? plan_facts(read_plan(file)) : graph_facts(*read_graph(file));
  std::cout << (options.json ? as_json(facts) : as_text(facts));
  return kDone;
}

}  // namespace

void add_inspect(CLI::App& app, int& status) {
  CLI::App* command = app.add_subcommand("inspect", "Say what is in a graph or a plan");
  const auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "A graph's or a plan's text; - is standard input")->required();
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &status] { status = inspect(*options); });
}

}  // namespace dynaflow::cli
