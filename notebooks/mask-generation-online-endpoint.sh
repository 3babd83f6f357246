#!/usr/bin/env bash
# Masks from an online endpoint, on this machine and then on Azure ML.
# These are the steps of mask-generation-online-endpoint.ipynb as commands.
#
#   notebooks/mask-generation-online-endpoint.sh
#   RUN_ON_AZURE=true RESOURCE_GROUP=mine WORKSPACE=mine notebooks/mask-generation-online-endpoint.sh
set -euo pipefail
RUN_ON_AZURE=${RUN_ON_AZURE:-false}
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
scratch=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then
    kill "$server" && wait "$server" || true
  fi
  rm -rf "$scratch"
}
trap finish EXIT

# 1. Package the model, unless build/model exists. For real work, add: --checkpoint facebook/sam-vit-large
test -e build/model/MLmodel || sam-endpoint package --output build/model --no-log

# 2. Start the server on a free port.
port=$(python -c 'import socket; probe = socket.socket(); probe.bind(("127.0.0.1", 0)); print(probe.getsockname()[1])')
sam-endpoint serve --model build/model --port "$port" >"$scratch/log" 2>&1 &
server=$!
until curl -s --fail -o "$scratch/ready" "http://127.0.0.1:$port/ready"; do
  kill -0 "$server" || { cat "$scratch/log"; exit 1; }
  sleep 0.5
done

# 3. Send a request: one image with one box. The image is base64 text here; it can also be a URL.
cat >"$scratch/request.json" <<JSON
{"input_data": {"columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"], "index": [0],
                "data": [["$(base64 -w0 samples/coffee.jpg)", "", "[[170, 14, 414, 312]]", "", false]]},
 "params": {}}
JSON
curl -s --fail-with-body "http://127.0.0.1:$port/score" -H 'Content-Type: application/json' \
  --data-binary "@$scratch/request.json" -o "$scratch/answer.json"

# 4. Print the mask's score, and save the mask as a picture.
show() {
  mkdir -p out
  python - "$1" "$2" <<'PYTHON'
import base64, json, sys
answer = json.load(open(sys.argv[1]))
(row,) = json.loads(answer) if isinstance(answer, str) else answer  # az returns the response as a JSON string
mask = row["predictions"][0]["mask_per_prediction"][0]
open(sys.argv[2], "wb").write(base64.b64decode(mask["encoded_binary_mask"]))
print(f"{sys.argv[2]}: {mask['area']} pixels, predicted IoU {mask['iou_score']:.2f}")
PYTHON
}
show "$scratch/answer.json" out/cup.png

# 5. Do the same on Azure ML. This needs `az` with its extension `ml`, logged in. The deployed endpoint costs money until the last
# command deletes it.
if [ "$RUN_ON_AZURE" != true ]; then
  echo "to do the same on Azure ML, set RUN_ON_AZURE=true"
  exit
fi
workspace=(--resource-group "$RESOURCE_GROUP" --workspace-name "$WORKSPACE")
name="segment-anything-$(date +%s)"
az ml online-endpoint create --name "$name" -f deploy/azureml/online-endpoint.yaml "${workspace[@]}"
az ml online-deployment create --endpoint-name "$name" -f deploy/azureml/online-deployment.yaml --all-traffic "${workspace[@]}"
az ml online-endpoint invoke --name "$name" --request-file "$scratch/request.json" "${workspace[@]}" >"$scratch/from-azure.json"
show "$scratch/from-azure.json" out/cup-from-azure.png
az ml online-endpoint delete --name "$name" --yes "${workspace[@]}"
