#!/usr/bin/env bash
# Masks for a table of images, on this machine and then on Azure ML.
# These are the steps of mask-generation-batch-endpoint.ipynb as commands.
#
#   notebooks/mask-generation-batch-endpoint.sh
#   RUN_ON_AZURE=true RESOURCE_GROUP=mine WORKSPACE=mine notebooks/mask-generation-batch-endpoint.sh
set -euo pipefail
RUN_ON_AZURE=${RUN_ON_AZURE:-false}
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# 1. Package the model, unless build/model exists. For real work, add: --checkpoint facebook/sam-vit-large
test -e build/model/MLmodel || sam-endpoint package --output build/model --no-log

# 2. Write a table of images and prompts.
cat >"$scratch/prompts.csv" <<'CSV'
image,what,input_points,input_boxes,multimask_output
samples/coffee.jpg,cup,,"[[170, 14, 414, 312]]",false
samples/coffee.jpg,spoon,"[[[366, 288]]]","[[322, 232, 410, 328]]",false
samples/coins.png,two coins,,"[[20, 32, 68, 77], [303, 13, 366, 73]]",false
CSV

# 3. Score the table: the masks as a table and as a picture.
sam-endpoint score --model build/model --input "$scratch/prompts.csv" --output out/from-csv.parquet --overwrite \
  --overlay out/from-csv.png

# 4. Score a folder of images without prompts: every object in each image.
sam-endpoint score --model build/model --input 'samples/*.png' --output out/from-folder.parquet --overwrite \
  --params '{"points_per_side": 12, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.85}' --overlay out/from-folder.png

# 5. Do the same on Azure ML. This needs `az` with its extension `ml`, logged in. Azure runs the MLflow model over CSV files
# whose images are base64 text or URLs.
if [ "$RUN_ON_AZURE" != true ]; then
  echo "to do the same on Azure ML, set RUN_ON_AZURE=true"
  exit
fi
mkdir "$scratch/inputs"
python - "$scratch/prompts.csv" "$scratch/inputs/prompts.csv" <<'PYTHON'
import base64, pathlib, sys
import pandas as pd
rows = pd.read_csv(sys.argv[1])
rows["image"] = [base64.b64encode(pathlib.Path(name).read_bytes()).decode() for name in rows["image"]]
rows.drop(columns="what").to_csv(sys.argv[2], index=False)
PYTHON
workspace=(--resource-group "$RESOURCE_GROUP" --workspace-name "$WORKSPACE")
name="segment-anything-$(date +%s)"
az ml compute show --name gpu-cluster "${workspace[@]}" >/dev/null ||
  az ml compute create --name gpu-cluster --type amlcompute --size Standard_NC6s_v3 --min-instances 0 --max-instances 2 "${workspace[@]}"
az ml batch-endpoint create --name "$name" -f deploy/azureml/batch-endpoint.yaml "${workspace[@]}"
az ml batch-deployment create --endpoint-name "$name" -f deploy/azureml/batch-deployment.yaml --set-default "${workspace[@]}"
job=$(az ml batch-endpoint invoke --name "$name" --input "$scratch/inputs" --input-type uri_folder --query name -o tsv "${workspace[@]}")
az ml job stream --name "$job" "${workspace[@]}"
az ml job download --name "$job" --output-name score --download-path out/from-azure "${workspace[@]}"
az ml batch-endpoint delete --name "$name" --yes "${workspace[@]}"
