#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "case_runner.h"

TEST_CASE("every case file tells a true story") {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(DYNAFLOW_CASES_DIR))
    if (entry.path().extension() == ".case") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  CHECK(!paths.empty());
  for (const std::string& path : paths) {
    CAPTURE(path);
    for (const std::string& difference : dynaflow::testing::run_case(path)) FAIL_CHECK(difference);
  }
}
