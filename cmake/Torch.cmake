# libtorch from the PyPI wheel as the target strobe::torch. Not the wheel's own TorchConfig.cmake: that one enables CUDA,
# overrides CMAKE_CUDA_ARCHITECTURES and adds flags to every target.

file(GLOB STROBE_TORCH_CANDIDATES ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
if(NOT STROBE_TORCH_CANDIDATES AND DEFINED Python_EXECUTABLE)  # pip install without a checkout's .venv: torch of that Python
  execute_process(COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util, os; print(os.path.dirname(importlib.util.find_spec('torch').origin))"
    OUTPUT_VARIABLE STROBE_TORCH_CANDIDATES OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
list(APPEND STROBE_TORCH_CANDIDATES "")  # found none
list(GET STROBE_TORCH_CANDIDATES 0 STROBE_TORCH_DEFAULT)
set(STROBE_TORCH_DIR "${STROBE_TORCH_DEFAULT}" CACHE PATH "The folder `torch` of an installed torch 2.11 wheel")
if(NOT EXISTS "${STROBE_TORCH_DIR}/include/torch/csrc/api/include")
  message(FATAL_ERROR "STROBE_TORCH_DIR: expected an installed torch 2.11 wheel, found none in \"${STROBE_TORCH_DIR}\". "
                      "`make setup` installs it into .venv.")
endif()
file(READ "${STROBE_TORCH_DIR}/version.py" STROBE_TORCH_VERSION)
if(NOT STROBE_TORCH_VERSION MATCHES "'2\\.11\\.")
  message(FATAL_ERROR "STROBE_TORCH_DIR: expected torch 2.11, found ${STROBE_TORCH_VERSION}")
endif()

add_library(strobe_torch INTERFACE)
add_library(strobe::torch ALIAS strobe_torch)
target_include_directories(strobe_torch SYSTEM INTERFACE
  ${STROBE_TORCH_DIR}/include ${STROBE_TORCH_DIR}/include/torch/csrc/api/include)
set(STROBE_TORCH_LIBRARIES torch_cpu c10)
if(STROBE_CUDA)
  list(APPEND STROBE_TORCH_LIBRARIES torch_cuda c10_cuda)
  target_link_libraries(strobe_torch INTERFACE CUDA::cudart)
endif()
list(TRANSFORM STROBE_TORCH_LIBRARIES PREPEND ${STROBE_TORCH_DIR}/lib/lib)
list(TRANSFORM STROBE_TORCH_LIBRARIES APPEND .so)
# torch_cuda registers its operators when it is loaded: it must stay linked although no symbol of it is named.
target_link_libraries(strobe_torch INTERFACE
  -Wl,--no-as-needed ${STROBE_TORCH_LIBRARIES} -Wl,--as-needed)
target_link_options(strobe_torch INTERFACE
  -Wl,--unresolved-symbols=ignore-in-shared-libs $<$<NOT:$<BOOL:${STROBE_WHEEL}>>:-Wl,-rpath,${STROBE_TORCH_DIR}/lib>)
