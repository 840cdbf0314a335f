#include "dynaflow/verify.h"

#include <chrono>
#include <iostream>
#include <memory>
#include <set>

#include "cli/commands.h"
#include "cli/facts.h"
#include "cli/files.h"

namespace dynaflow::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  bool time = false;
  bool json = false;
};

Facts counterexample(const std::optional<Violation>& violation) {
  if (!violation) return {};
  return {{"kind", kind_name(violation->kind)},
          {"first", violation->first.what},
          {"second", violation->second.what},
          {"message", violation->message}};
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

Facts prove(const File& file, const Plan& plan, bool time) {
  const auto start = std::chrono::steady_clock::now();
  const std::optional<Violation> violation = verify(plan);
  const double spent = milliseconds_since(start);
  size_t launches = 0;
  for (const Run& run : plan.runs) launches += run.launches.size();
  Facts facts = {{"file", file.name},        {"safe", !violation},        {"strategy", plan.strategy},
                 {"runs", plan.runs.size()}, {"launches", launches},      {"streams", plan.streams.size()},
                 {"events", plan.events},    {"slots", plan.slots.size()}};
  if (time) facts["ms"] = spent;
  facts["counterexample"] = counterexample(violation);
  return facts;
}

Facts prove_ranks(const std::vector<PlanPtr>& plans) {
  const std::optional<Violation> violation = verify_ranks(plans);
  std::set<std::string> groups;
  const std::vector<CollectiveCall> calls = collective_order(*plans[0]);
  for (const CollectiveCall& call : calls) groups.insert(call.group);
  return {{"ranks", plans.size()},
          {"safe", !violation},
          {"collectives", calls.size()},
          {"groups", groups.size()},
          {"counterexample", counterexample(violation)}};
}

/// `what: safe (details)` or `what: not safe: kind: message`.
std::string verdict(const std::string& what, const Facts& facts, const std::string& details) {
  const Facts& found = facts["counterexample"];
  if (found.is_null()) return formatted("{}: safe ({})\n", what, details);
  return formatted("{}: not safe: {}: {}\n", what, found["kind"].get<std::string>(),
                   found["message"].get<std::string>());
}

std::string plan_verdict(const Facts& facts) {
  std::string details;
  for (const char* key : {"runs", "launches", "streams", "events", "slots"})
    details += formatted("{}{} {}", details.empty() ? "" : ", ", facts[key].get<int64_t>(), key);
  if (facts.contains("ms")) details += formatted(", {:.3f} ms", facts["ms"].get<double>());
  return verdict(facts["file"].get<std::string>(), facts, details);
}

int verify_all(const Options& options) {
  std::vector<PlanPtr> plans;
  Facts found = Facts::array();
  bool safe = true;
  for (const std::string& path : options.files) {
    const File file = read_file(path);
    plans.push_back(read_plan(file));
    found.push_back(prove(file, *plans.back(), options.time));
    safe = safe && found.back()["safe"].get<bool>();
  }
  const Facts ranks = plans.size() > 1 ? prove_ranks(plans) : Facts();
  safe = safe && (ranks.is_null() || ranks["safe"].get<bool>());
  if (options.json) {
    std::cout << as_json({{"safe", safe}, {"plans", found}, {"ranks", ranks}});
    return safe ? kDone : kNotSafe;
  }
  for (const Facts& facts : found) std::cout << plan_verdict(facts);
  if (!ranks.is_null())
    std::cout << verdict(formatted("{} ranks", plans.size()), ranks,
                         formatted("{} collectives in {} groups", ranks["collectives"].get<int64_t>(),
                                   ranks["groups"].get<int64_t>()));
  return safe ? kDone : kNotSafe;
}

}  // namespace

void add_verify(CLI::App& app, int& status) {
  CLI::App* command = app.add_subcommand("verify", "Prove plans right whatever the timing");
  const auto options = std::make_shared<Options>();
  command->add_option("PLAN", options->files, "A plan's text, one per rank; - is standard input")->required();
  command->add_flag("--time", options->time, "Say how long each proof took");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &status] { status = verify_all(*options); });
}

}  // namespace dynaflow::cli
