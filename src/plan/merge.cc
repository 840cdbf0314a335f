#include <algorithm>
#include <limits>

#include "dynaflow/plan.h"

namespace dynaflow {

namespace {

using Kind = Instruction::Kind;

/// `waits; launch r; records and frees`: what may not be torn apart when streams are merged.
struct Block {
  RunId run = std::numeric_limits<RunId>::max();  // what follows a stream's last launch comes last
  StreamId stream = 0;
  size_t begin = 0;
  size_t end = 0;
};

void split_blocks(const Plan& plan, StreamId id, std::vector<Block>& blocks) {
  const std::vector<Instruction>& code = plan.streams[id].code;
  Block block{.stream = id};
  bool launched = false;
  for (size_t i = 0; i < code.size(); ++i) {
    const bool opens = code[i].kind == Kind::kLaunch || code[i].kind == Kind::kWait;
    if (launched && opens) {
      blocks.push_back(block);
      block = {.stream = id, .begin = i};
      launched = false;
    }
    if (code[i].kind == Kind::kLaunch) {
      block.run = code[i].id;
      launched = true;
    }
    block.end = i + 1;
  }
  if (block.end > block.begin) blocks.push_back(block);
}

}  // namespace

Program merge_streams(const Plan& plan, const std::function<bool(const Stream&)>& take) {
  std::vector<Block> blocks;
  for (StreamId id = 0; id < static_cast<StreamId>(plan.streams.size()); ++id)
    if (take(plan.streams[id])) split_blocks(plan, id, blocks);
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.run < b.run; });
  Program program;
  for (const Block& block : blocks) {
    const std::vector<Instruction>& code = plan.streams[block.stream].code;
    for (size_t i = block.begin; i < block.end; ++i)
      program.push_back({code[i].kind, block.stream, code[i].id});
  }
  return program;
}

}  // namespace dynaflow
