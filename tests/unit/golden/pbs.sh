#!/usr/bin/env bash

#PBS -N dask-worker
#PBS -q regular
#PBS -A abc123
#PBS -l select=1:ncpus=16:mem=64GB
#PBS -l walltime=02:00:00
#PBS -e /nosuch/logs/
#PBS -o /nosuch/logs/
export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=60s
module load python
/sw/python/bin/python -m distributed.cli.dask_worker tls://<scheduler>:<port> --name mysite-<number> --nthreads 16 --memory-limit 64.00GiB --nanny --death-timeout 120 --local-directory $TMPDIR --lifetime 6600s --lifetime-stagger 150s --dashboard-address 127.0.0.1:0 --interface ib0 --protocol tls:// --tls-ca-file /nosuch/shared/run-XXXXXXXX/ca.pem --tls-cert /nosuch/shared/run-XXXXXXXX/worker.pem --tls-key /nosuch/shared/run-XXXXXXXX/worker-key.pem
