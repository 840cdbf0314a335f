// dynaflow_fuzz_seeds FOLDER CASE...: writes what each case's graph becomes, as texts to mutate.

#include <filesystem>
#include <fstream>
#include <iterator>

#include "dynaflow/plan.h"
#include "dynaflow/strategy.h"

namespace {

using namespace dynaflow;

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// The same text under a cut into given sizes, which no built-in strategy makes.
std::string with_sizes(std::string text) {
  const std::string even = "even(2, 2)";
  const size_t at = text.find(even);
  return at == std::string::npos ? text : text.replace(at, even.size(), "sizes(2, 2, [4, 4])");
}

/// The first two segments that can be launched together are, by one kernel where one can take their place.
SchedulePtr with_replacement(const GraphPtr& graph) {
  Scheduler s(partition(graph, {split_func({"*"})}), "replaced",
              [&](std::string_view name) { return graph->find_symbol(name)->hint; });
  s.split(2);
  std::vector<ReadyOp> ops = {s.get_ready_ops().at(0)};
  for (const ReadyOp& next : s.next_ops(ops))
    if (ops.size() == 1 && next.last_part() == ops[0].last_part() && next.first_part() == ops[0].first_part())
      ops.push_back(next);
  ExecuteOptions options;
  if (s.irreplaceable(ops).empty()) {
    options.replacement = Replacement{"fused", "mylib.fused.default", "mylib.fused.out", true, {}, 0.5};
    for (size_t input = 0; input < s.signature(ops).inputs.size(); ++input)
      options.replacement->args.push_back({ValueRef{static_cast<ValueId>(input)}});
  }
  s.execute(ops, options);
  s.run_sequentially();
  return s.finish();
}

void write_seeds(const std::filesystem::path& folder, const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string source(std::istreambuf_iterator<char>(file), {});
  const std::string stem = path.stem().string();
  const auto graph = std::make_shared<const Graph>(reinplace(apply_corrections(parse_graph(source))));
  write(folder / (stem + ".graph"), print(*graph));
  const SchedulePtr replaced = with_replacement(graph);
  write(folder / (stem + ".replaced.schedule"),
        print(*graph) + print(*replaced->partition) + print(*replaced));
  write(folder / (stem + ".replaced.plan"), print(*lower(*replaced)));
  for (const bool fractions : {false, true}) {
    StrategyOptions options = {{"min_tokens", text::Value::integral(0)}};
    if (fractions)
      options["fractions"] = text::Value::list({text::Value::floating(0.25), text::Value::floating(0.75)});
    const StrategyPtr strategy = make_nanoflow(options);
    const PartitionPtr cut = partition(graph, strategy->partition());
    const SchedulePtr schedule =
        make_schedule(cut, *strategy, [&](std::string_view name) { return graph->find_symbol(name)->hint; });
    const std::string name = stem + (fractions ? ".fractions" : ".even");
    const std::string schedule_text = print(*graph) + print(*cut) + print(*schedule);
    const std::string plan_text = print(*lower(*schedule));
    write(folder / (name + ".schedule"), schedule_text);
    write(folder / (name + ".plan"), plan_text);
    if (fractions) continue;
    write(folder / (stem + ".sizes.schedule"), with_sizes(schedule_text));
    write(folder / (stem + ".sizes.plan"), with_sizes(plan_text));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::filesystem::create_directories(argv[1]);
  for (int i = 2; i < argc; ++i) {
    try {
      write_seeds(argv[1], argv[i]);
    } catch (const Error&) {
      continue;  // a case of an error: its text is a seed as it stands
    }
  }
}
