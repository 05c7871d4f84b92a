#!/usr/bin/env bash
# Builds llama.cpp's tools for this machine's processor, to be measured beside our engine.
#
#   bench/peers/install-llama.sh [FOLDER]      (default bench/peers/llama; JOBS=2 sets the compiler jobs)
#
# The source is the one inside the source archive of the Python package llama-cpp-python, which any mirror of
# the Python index carries. Needs python3 with venv, and a C++ compiler; takes about ten minutes of two cores
# and 500 MB. Afterwards FOLDER/bin holds llama-bench, llama-batched-bench, llama-perplexity, llama-quantize and llama-server, and
# FOLDER/version says what they were built from.
set -euo pipefail

package=llama-cpp-python
version=${LLAMA_CPP_PYTHON_VERSION:-0.3.36}
tools=(llama-bench llama-batched-bench llama-perplexity llama-quantize llama-server)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/llama}

fail() { echo "install-llama: $*" >&2; exit 1; }

have_all_tools() {
    local tool
    for tool in "${tools[@]}"; do [[ -x "$folder/bin/$tool" ]] || return 1; done
}

if have_all_tools; then
    echo "already built in $folder/bin ($(cat "$folder/version"))"
    exit 0
fi
command -v python3 >/dev/null || fail "python3 is missing; install it with its venv module and run this again"
command -v c++ >/dev/null || fail "no C++ compiler; install g++ or clang and run this again"

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# The build tools live in a virtual environment, so that nothing of the machine's Python changes.
python3 -m venv "$folder/venv"
export PATH="$folder/venv/bin:$PATH"
pip install --quiet cmake ninja scikit-build-core

archive=$(find "$folder" -maxdepth 1 -name "llama_cpp_python-$version.tar.gz")
if [[ -z "$archive" ]]; then
    pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest "$folder" "$package==$version"
    archive=$folder/llama_cpp_python-$version.tar.gz
fi
mkdir -p "$folder/src"
tar --extract --gzip --file "$archive" --directory "$folder/src" --strip-components 1
source=$folder/src/vendor/llama.cpp
[[ -f "$source/CMakeLists.txt" ]] || fail "$archive holds no vendor/llama.cpp; try another LLAMA_CPP_PYTHON_VERSION"

# GCC's _tile_loadconfig tells the compiler of 8 bytes of the description only, so that it drops the stores of the rest and the
# first tile instruction is illegal. On processors with AMX the tools would die; this lets them run at their best.
tiles=$source/ggml/src/ggml-cpu/amx/mmq.cpp
barrier='__asm__ volatile("" : : "r"(\&tc) : "memory");'
grep -q 'volatile("" : : "r"(&tc)' "$tiles" || sed -i "s|^\( *\)_tile_loadconfig(&tc);|\1$barrier\n&|" "$tiles"

cmake -S "$source" -B "$folder/build" -G Ninja \
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
    >"$folder/configure.log" 2>&1 || fail "cmake failed; the last lines of $folder/configure.log say why"
cmake --build "$folder/build" --target "${tools[@]}" --parallel "${JOBS:-2}" \
    >"$folder/build.log" 2>&1 || fail "the build failed; the last lines of $folder/build.log say why"

ln -sfn build/bin "$folder/bin"
echo "$package $version" >"$folder/version"
have_all_tools || fail "the build ended without all of: ${tools[*]}; see $folder/build.log"
echo "built ${tools[*]} in $folder/bin"
