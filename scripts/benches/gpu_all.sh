#!/usr/bin/env bash
# Everything that a few minutes of a GPU are good for, what tells most first. What a part found is in $OUT as soon as it
# has ended, and a part that fails or takes too long leaves the next ones alone.
#
#   OUT=folder scripts/benches/gpu_all.sh first         within 585 s: does it work, how fast is a step
#   OUT=folder scripts/benches/gpu_all.sh second        within 350 s: decode; streamed in 8 GB against resident; an update of a LoRA in 12 GB
#   OUT=folder scripts/benches/gpu_all.sh several       within 580 s, with several GPUs: a step by 2, 4 and 8 of them
#   OUT=folder scripts/benches/gpu_all.sh first step    that part alone
#
# For a bare machine: Python, torch, triton, numpy, safetensors, Pillow, tokenizers, typer, rich; no network. A trial on
# any machine, with ten times the time: ENGINE=torch:cpu TOY=--toy. $OUT/parts.txt has each part's exit code (124: it took too long).
cd "$(dirname "$0")/../.." || exit 1
: "${OUT:=results/gpu-all}" "${PY:=python3}" "${ENGINE:=torch:cuda}" "${TOY:=}" "${SIZES:=720x1280 544x960}"
case ${1:-} in
  first) most=585 ;;
  second) most=350 ;;
  several) most=580 ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
call=$1 slower=1
if [[ -n $TOY ]]; then slower=10; fi
most=$((most * slower))
shift
chosen=" $* "
OUT=$(mkdir -p "$OUT" && cd "$OUT" && pwd) || exit 1
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
export PY ENGINE OUT made PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 XDG_CACHE_HOME=$made/cache
export TRITON_CACHE_DIR=$made/triton TORCHINDUCTOR_CACHE_DIR=$made/inductor TORCH_LOGS=recompiles
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
exec > >(tee -a "$OUT/log.txt") 2>&1

failed=0
part() {  # name, seconds at most, command
  local name=$1 limit=$(($2 * slower)) begin=$SECONDS code
  shift 2
  if [[ $chosen != "  " && $chosen != *" $name "* ]]; then return; fi
  if [[ $limit -gt $((most - SECONDS)) ]]; then limit=$((most - SECONDS)); fi
  if [[ $limit -lt 5 ]]; then
    printf '%s: left out, no time\n' "$name" | tee -a "$OUT/parts.txt"
    failed=1
    return
  fi
  printf '\n== %s: %s s at most, %s s are gone\n' "$name" "$limit" "$SECONDS"
  timeout -k 5 "$limit" "$@"
  code=$?
  if [[ $code -ne 0 ]]; then failed=1; fi
  cp -f results/bench-gpu-*.json docs/measurements/gpu-*.md "$OUT/" 2> /dev/null
  printf '%s: rc %s, %s s\n' "$name" "$code" $((SECONDS - begin)) | tee -a "$OUT/parts.txt"
}
framewake() { "$PY" -m framewake "$@"; }
export -f framewake
demo() {  # the demonstration's clip on an engine, as it goes to a folder or a file
  framewake animate demo/red-circle "the red circle moves right" --seed 1 --engine "$1" -o "$2" "${@:3}"
}
export -f demo

first() {
  part machine 20 "$PY" - <<'P'
import os, shutil, sysconfig
import torch
print("torch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())
print("compiler", shutil.which("gcc"), "Python.h", os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), torch.cuda.mem_get_info())
P
  part doctor 30 bash -c 'framewake doctor --engine "$ENGINE"'
  part golden 60 bash -c 'set -o pipefail; framewake doctor --golden tests/golden --engine "$ENGINE" > "$OUT/golden.txt"
    code=$?; grep -c ^ok "$OUT/golden.txt"; grep FAILED "$OUT/golden.txt" | head -30; tail -n 1 "$OUT/golden.txt"; exit $code'
  part attention 60 "$PY" scripts/benches/gpu_attention.py "${how[@]}"
  part demo 60 bash -c 'demo "$ENGINE" "$OUT/demo.gif"'
  part frames 60 bash -c 'demo "$ENGINE" "$made/a/" --precision float32'
  part frames-cpu 60 bash -c 'demo torch:cpu "$made/b/" --precision float32'
  part compare 20 "$PY" - <<'P'
import os
from pathlib import Path
import numpy as np
from PIL import Image
folders = [Path(os.environ["made"], name) for name in "ab"]
a, b = (np.stack([np.asarray(Image.open(p)).astype(int) for p in sorted(f.glob("*.png"))]) for f in folders)
gap = abs(a - b)
print("frames", a.shape, "largest difference", gap.max(), "of 255, mean", gap.mean(), "differing", (gap > 0).mean())
P
  part step 330 "$PY" scripts/benches/gpu_step.py "${how[@]}" ${sizes[@]+"${sizes[@]}"}
}

second() {
  part decode 110 "$PY" scripts/benches/gpu_memory.py "${how[@]}" --parts decode
  cp -f results/bench-gpu-memory.json "$OUT/bench-gpu-decode.json" 2> /dev/null
  part memory 180 "$PY" scripts/benches/gpu_memory.py "${how[@]}" --rounds 1 --parts streamed resident
  part train 120 "$PY" scripts/benches/gpu_train.py "${how[@]}" --parts bounded
}

several() {
  local there
  there=$("$PY" -c 'import torch; print(torch.cuda.device_count())')
  if [[ -n $TOY ]]; then there=2; fi
  for count in 2 4 8; do
    if [[ $count -gt $there ]]; then continue; fi
    part "by-$count" 190 "$PY" -m torch.distributed.run --standalone --nproc-per-node "$count" \
      scripts/benches/gpu_devices.py "${how[@]}" ${TOY:+--no-compile}
  done
}

how=(--engine "$ENGINE")
if [[ -n $TOY ]]; then how+=(--toy) sizes=(); else read -r -a sizes <<< "--seconds 240 --sizes $SIZES"; fi
"$call"
nvidia-smi --query-gpu=name,clocks.sm,power.draw,temperature.gpu,memory.used --format=csv 2> /dev/null
printf '\n== %s: %s s in all\n' "$call" "$SECONDS"
exit "$failed"
