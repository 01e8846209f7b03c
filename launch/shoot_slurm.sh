#!/bin/bash
# Shoot one project as a Slurm job array, from a login node: every job takes one shot after another.
#
#   launch/shoot_slurm.sh /shared/my-film 8 gpu        project, jobs, partition; the rest goes to `cinetune run`
#
# The project folder must be on a disk that all nodes see under one path, and cinetune[slurm] installed there. The same
# command continues a run that was cut short; Ctrl-C cancels the jobs.
set -euo pipefail

project=${1:?the project folder is missing} jobs=${2:?the number of jobs is missing} partition=${3:?the partition is missing}
shift 3

cinetune run --project "$project" --set shoot.executor=slurm --set "shoot.workers=$jobs" \
  --set "shoot.options={slurm_partition = \"$partition\", gpus_per_node = 1, timeout_min = 1440}" "$@"
