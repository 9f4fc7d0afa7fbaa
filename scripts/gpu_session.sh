#!/usr/bin/env bash
# One visit to a machine with a GPU: builds, tests, measures and profiles, in one command and within its time.
#
#   bash scripts/gpu_session.sh                   on the machine with the GPU, from the repository's root
#   bash scripts/gpu_session.sh --cpu             the same steps without a GPU: a rehearsal
#   bash scripts/gpu_session.sh tests benchmarks  some steps alone, by the first word of their lines in the summary;
#                                                 tiles, which looks for better block shapes, runs only when it is named
#
# Needs no network and installs nothing: torch (2.11 or later, with CUDA), triton, ninja, pybind11, setuptools, pytest,
# pytest-benchmark and hypothesis have to be there, and nvcc for the CUDA kernels. PYTHON=... picks the interpreter.
# Where rrsis_kernels/_C_cuda.so and its companions came along and load, nothing is built.
# What was done is left in $OUT (./build/gpu_session without it), at most eight files: session.log has everything.
# A step that fails does not stop the others; the exit status tells whether one did. docs/verified.md records results.
# All steps together take at most $BUDGET seconds (570 without it): the last ones are cut short or left out.
set -uo pipefail
cd "$(dirname "$0")/.."

device=cuda
if [ "${1:-}" = "--cpu" ]; then
    device=cpu
    shift
fi
readonly KNOWN=" build info tests memcheck racecheck small benchmarks model profile training cpu-tests tiles "
for name in "$@"; do
    if [[ "$KNOWN" != *" $name "* ]]; then
        echo "usage: gpu_session.sh [--cpu] [STEP...], steps are:$KNOWN; got: $name" >&2
        exit 2
    fi
done
wanted=" $* "
[ $# -eq 0 ] && wanted="${KNOWN/ tiles/}"

python="${PYTHON:-python3}"
out="${OUT:-$PWD/build/gpu_session}"
budget="${BUDGET:-570}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
export PYTHONUNBUFFERED=1
exec > >(tee "$out/session.log") 2>&1
failed=()
summary="$out/summary.txt"
: >"$summary"

# step NAME LIMIT COMMAND...: runs it for at most LIMIT seconds, if its name's first word is wanted, and notes how it ended.
step() {
    local name="$1" limit="$2" started=$SECONDS status=0
    [[ "$wanted" == *" ${1%% *} "* ]] || return 0
    shift 2
    echo
    echo "== $name"
    [ $((budget - SECONDS)) -lt "$limit" ] && limit=$((budget - SECONDS))
    if [ "$limit" -lt 5 ]; then
        printf '%5d s  %-28s %s\n' 0 "$name" "left out: no time" >>"$summary"
        return
    fi
    timeout --kill-after=10 "$limit" "$@" || status=$?
    case $status in
        0) result="passed" ;;
        124 | 137) result="ran past $limit s" ;;
        *) result="FAILED ($status)" ;;
    esac
    [ "$status" -eq 0 ] || failed+=("$name")
    printf '%5d s  %-28s %s\n' "$((SECONDS - started))" "$name" "$result" >>"$summary"
}

describe_machine() {
    date -u '+%Y-%m-%dT%H:%M:%SZ'
    git log -1 --format='commit %H' 2>/dev/null || echo "commit unknown (no .git here)"
    grep -m1 'model name' /proc/cpuinfo
    grep -m1 '^flags' /proc/cpuinfo | grep -o -w -E 'avx512f|avx512_bf16' || echo "no AVX-512"
    nproc
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
}

describe_machine

# Only this machine's own architecture: a lease is short.
build=(env RRSIS_REQUIRE_EXT=1)
needed=_C
if [ "$device" = cuda ]; then
    needed=_C_cuda
    architecture="$("$python" -c 'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))')" || exit 1
    [ "$architecture" = "9.0" ] && architecture="9.0a"
    build+=(RRSIS_BUILD_CUDA=1 TORCH_CUDA_ARCH_LIST="$architecture")
fi
loads="from rrsis_kernels import library; raise SystemExit(not library.extension_status()['$needed'].loaded)"
if [ "$device" = cuda ] && "$python" -c "$loads"; then
    echo "the library came along and loads: nothing is built"
else
    step "build in place" 300 "${build[@]}" PYTHONPATH=build_backend "$python" -m rrsis_build
fi
step "info" 60 "$python" -m rrsis_kernels.info

workers=()
if [ "$(nproc)" -ge 8 ] && "$python" -c 'import xdist' 2>/dev/null; then
    workers=(-n "$(($(nproc) - 2))" -p no:benchmark)
    export OMP_NUM_THREADS=1
fi
pytest=("$python" -m pytest -q "${workers[@]}" --durations=10)
operators=()
for name in accuracy semantics checks library compile; do
    operators+=("tests/kernels/test_$name.py")
done

# The operators' own tests on the kernels for GPUs; without one, in Triton's interpreter and two files of them.
if [ "$device" = cuda ]; then
    step "tests of the operators" 240 "${pytest[@]}" -k "triton or cuda" "${operators[@]}"
    step "tests on the GPU" 60 "$python" -m pytest -q -m gpu tests/kernels tests/build tests/cuda_emulation/test_fragments.py
    model=(--preset base --batch 16)
else
    step "tests of the operators" 200 env TRITON_INTERPRET=1 "$python" -m pytest -q -k triton "${operators[@]:1:2}"
    model=(--preset tiny --batch 4 --repeats 2)
fi

small=("$python" -m benchmarks.gpu.small_run --device "$device")
if [ "$device" = cuda ] && command -v compute-sanitizer >/dev/null; then
    # PyTorch's caching allocator would hide an access beyond a tensor's end.
    step "memcheck" 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9 "${small[@]}"
    step "racecheck" 90 compute-sanitizer --tool racecheck --error-exitcode 9 "${small[@]}"
else
    echo "no compute-sanitizer here: its run is made without it"
fi
step "small run" 60 "${small[@]}"

step "benchmarks" 170 "$python" -m benchmarks.gpu --device "$device" --seconds "${BENCHMARK_SECONDS:-150}" ${BENCHMARK_FLAGS:-} --out "$out/benchmarks"
step "model" 120 "$python" -m benchmarks.gpu.model --device "$device" "${model[@]}" --out "$out/model.json"
[ "$device" = cuda ] && step "profile" 60 "$python" -m benchmarks.gpu.kernels --out "$out/kernels.json"
trained="$(mktemp -d)"
step "training" 120 "$python" -m rrsis.train --max_steps 60 --output_dir "$trained/run"
# The processor matters as well: the tests of the C++ kernels run every instruction set that it has.
step "cpu-tests" 300 "${pytest[@]}" -m "not gpu and not slow" -k "not triton and not cuda" tests/kernels
step "tiles" 150 "$python" -m benchmarks.gpu.tiles --seconds "${TILES_SECONDS:-130}" --out "$out/tiles.json"

rm -rf "$trained"

echo
echo "== summary ($device)"
cat "$summary"
[ -f "$out/benchmarks.md" ] && cat "$out/benchmarks.md"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
