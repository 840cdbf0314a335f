#pragma once
#include <ATen/core/ivalue.h>
#include <c10/core/Allocator.h>

#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace dynaflow {

/// What c10's allocators gave and took back, in order, on the thread that started the log and on threads that
/// carry its at::ThreadLocalState. Takes the place of a running profiler of memory.
class MemoryLog : public torch::CustomClassHolder {
 public:
  /// (address, bytes, label): bytes are negative for what was given back; address 0: they were copied.
  using Entry = std::tuple<int64_t, int64_t, std::string>;

  ~MemoryLog() override;
  /// Throws when this log, or another one on the same thread, is running.
  void start();
  /// On the thread that started it.
  void stop();
  /// Since the last start().
  std::vector<Entry> entries() const;

  /// Notes bytes that the calling thread copied, for the log that runs there.
  static void copied(int64_t bytes);

  /// Names what the calling thread does meanwhile, for logs that run. `label` must outlive this.
  class Label {
   public:
    explicit Label(const std::string& label);
    ~Label();
    Label(const Label&) = delete;
    Label& operator=(const Label&) = delete;

   private:
    const std::string* before_;
  };

 private:
  class Reporter;
  std::shared_ptr<Reporter> reporter_;
};

}  // namespace dynaflow
