#!/usr/bin/env bash

#SBATCH -J dask-worker
#SBATCH -e /nosuch/logs/dask-worker-%J.err
#SBATCH -o /nosuch/logs/dask-worker-%J.out
#SBATCH -p compute
#SBATCH -A abc123
#SBATCH -n 1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH -t 02:00:00
#SBATCH --no-requeue
export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=60s
module load python
/sw/python/bin/python -m distributed.cli.dask_worker tls://<scheduler>:<port> --name mysite-<number> --nthreads 16 --memory-limit 64.00GiB --nanny --death-timeout 120 --local-directory $TMPDIR --lifetime 6600s --lifetime-stagger 150s --dashboard-address 127.0.0.1:0 --interface ib0 --protocol tls:// --tls-ca-file /nosuch/shared/run-XXXXXXXX/ca.pem --tls-cert /nosuch/shared/run-XXXXXXXX/worker.pem --tls-key /nosuch/shared/run-XXXXXXXX/worker-key.pem
