#!/usr/bin/env bash
# One visit to a machine with a GPU: builds, tests, measures and profiles, in one command and within its time.
#
#   bash scripts/gpu_session.sh            on the machine with the GPU, from the repository's root
#   bash scripts/gpu_session.sh --cpu      the same steps without a GPU: a rehearsal
#
# Needs no network and installs nothing: torch (2.11 or later, with CUDA), triton, ninja, pybind11, setuptools, pytest,
# pytest-benchmark and hypothesis have to be there, and nvcc for the CUDA kernels. PYTHON=... picks the interpreter.
# What was done is left in $OUT (./build/gpu_session without it), at most ten files: session.log has everything.
# A step that fails does not stop the others; the exit status tells whether one did. docs/verified.md records results.
# All steps together take at most $BUDGET seconds (570 without it): the last ones are cut short or left out.
set -uo pipefail
cd "$(dirname "$0")/.."

device=cuda
if [ "${1:-}" = "--cpu" ]; then
    device=cpu
elif [ $# -gt 0 ]; then
    echo "usage: gpu_session.sh [--cpu], got: $*" >&2
    exit 2
fi

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

# step NAME LIMIT COMMAND...: runs it for at most LIMIT seconds and notes how it ended.
step() {
    local name="$1" limit="$2" started=$SECONDS status=0
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
if [ "$device" = cuda ]; then
    architecture="$("$python" -c 'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))')" || exit 1
    [ "$architecture" = "9.0" ] && architecture="9.0a"
    build+=(RRSIS_BUILD_CUDA=1 TORCH_CUDA_ARCH_LIST="$architecture")
fi
step "build in place" 300 "${build[@]}" PYTHONPATH=build_backend "$python" -m rrsis_build
step "info" 60 "$python" -m rrsis_kernels.info
cp -f rrsis_kernels/_build_status.json "$out/" 2>/dev/null

workers=()
if [ "$(nproc)" -ge 8 ] && "$python" -c 'import xdist' 2>/dev/null; then
    workers=(-n 6)
    export OMP_NUM_THREADS=2
fi
test_files=()
for name in accuracy semantics checks library compile; do
    test_files+=("tests/kernels/test_$name.py")
done

# The operators' own tests on the Triton kernels; without a GPU, in Triton's interpreter and two files of them.
if [ "$device" = cuda ]; then
    step "operators on Triton" 200 "$python" -m pytest -q "${workers[@]}" -k triton "${test_files[@]}" --junitxml="$out/triton_tests.xml"
    step "operators on CUDA C++" 120 "$python" -m pytest -q "${workers[@]}" -k cuda "${test_files[@]}"
    step "tests on the GPU" 60 "$python" -m pytest -q -m gpu tests/kernels tests/build tests/cuda_emulation/test_fragments.py --junitxml="$out/gpu_tests.xml"
    model=(--preset base --batch 16)
else
    step "operators on Triton" 200 env TRITON_INTERPRET=1 "$python" -m pytest -q -k triton "${test_files[1]}" "${test_files[2]}" --junitxml="$out/triton_tests.xml"
    model=(--preset tiny --batch 4 --repeats 2)
fi

small=("$python" -m benchmarks.gpu.small_run --device "$device")
if [ "$device" = cuda ] && command -v compute-sanitizer >/dev/null; then
    # PyTorch's caching allocator would hide an access beyond a tensor's end.
    step "memcheck" 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 9 "${small[@]}"
    step "racecheck" 90 compute-sanitizer --tool racecheck --error-exitcode 9 "${small[@]}"
else
    echo "no compute-sanitizer here: its run is made without it"
    step "small run" 60 "${small[@]}"
fi

step "benchmarks" 170 "$python" -m benchmarks.gpu --device "$device" --seconds 150 --out "$out/benchmarks"
step "model" 120 "$python" -m benchmarks.gpu.model --device "$device" "${model[@]}" --out "$out/model.json"
forced="$([ "$device" = cuda ] && echo triton || echo cpu)"
step "profile" 60 env RRSIS_KERNELS_BACKEND="$forced" "$python" scripts/profile_operators.py --device "$device" --out "$out/profile.txt"
# The processor matters as well: the tests of the C++ kernels run every instruction set that it has.
step "tests on the CPU" 300 "$python" -m pytest -q "${workers[@]}" -m "not gpu and not slow" tests/kernels --junitxml="$out/cpu_tests.xml"

echo
echo "== summary ($device)"
cat "$summary"
[ -f "$out/benchmarks.md" ] && cat "$out/benchmarks.md"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
