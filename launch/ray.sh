#!/bin/bash
# Shoot one project on a Ray cluster: one actor for each card of all machines.
#
#   launch/ray.sh head                          on the first machine
#   launch/ray.sh join FIRST-MACHINE            on every other one
#   launch/ray.sh shoot /shared/my-film         on the first: the same command continues a run that was cut short
#
# The project folder must be on a disk that all machines see under one path, and cinetune[ray] installed on each.
set -euo pipefail

port=${RAY_PORT:-6379}

case ${1:?head, join or shoot} in
  head) ray start --head --port "$port" --disable-usage-stats ;;
  join) ray start --address "${2:?the first machine is missing}:$port" --disable-usage-stats ;;
  shoot)
    project=${2:?the project folder is missing}
    shift 2
    RAY_ADDRESS="127.0.0.1:$port" cinetune run --project "$project" --set shoot.executor=ray "$@"
    ;;
  *) echo "head, join or shoot, not $1" >&2; exit 2 ;;
esac
