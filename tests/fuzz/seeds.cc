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

void write_seeds(const std::filesystem::path& folder, const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string source(std::istreambuf_iterator<char>(file), {});
  const std::string stem = path.stem().string();
  const auto graph = std::make_shared<const Graph>(reinplace(apply_corrections(parse_graph(source))));
  write(folder / (stem + ".graph"), print(*graph));
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
