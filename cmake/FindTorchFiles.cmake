# Sets torch_root, torch_version (without "+cpu"), torch_includes and torch_cxx11_abi, from the
# torch that Python imports or from the unpacked wheel at DYNAFLOW_TORCH_ROOT.

if(DYNAFLOW_TORCH_ROOT)
  set(torch_root ${DYNAFLOW_TORCH_ROOT})
  file(STRINGS ${torch_root}/version.py line REGEX "^__version__" LIMIT_COUNT 1)
  string(REGEX REPLACE ".*'([^']+)'.*" "\\1" torch_version "${line}")
  set(torch_cxx11_abi 1)
else()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "\
import os, torch; \
print(os.path.dirname(torch.__file__)); \
print(torch.__version__); \
print(int(torch.compiled_with_cxx11_abi()))"
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE failed ERROR_VARIABLE torch_error)
  if(failed)
    message(FATAL_ERROR "\n"
      "DynaFlow compiles against the PyTorch of your environment, and this build cannot import it\n"
      "(${Python_EXECUTABLE}).\n"
      "pip builds in an isolated environment, where torch is hidden. With torch installed, run:\n"
      "\n"
      "  pip install scikit-build-core nanobind cmake ninja\n"
      "  pip install --no-build-isolation .\n"
      "\n"
      "Python said:\n${torch_error}")
  endif()
  string(REPLACE "\n" ";" answer "${answer}")
  # Lines before the last three would be a site's own chatter.
  list(GET answer -3 torch_root)
  list(GET answer -2 torch_version)
  list(GET answer -1 torch_cxx11_abi)
endif()

string(REGEX REPLACE "\\+.*" "" torch_version "${torch_version}")
if(torch_version VERSION_LESS 2.11)
  message(FATAL_ERROR "DynaFlow needs PyTorch 2.11 or newer; found ${torch_version}")
endif()
set(torch_includes ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)

# Another torch in the same environment must configure again.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${torch_root}/version.py)
