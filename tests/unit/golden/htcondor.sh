#!/usr/bin/env condor_submit

MY.DaskWorkerName = "htcondor--$F(MY.JobId)--"
batch_name = mysite-<number>
RequestCpus = MY.DaskWorkerCores
RequestMemory = floor(MY.DaskWorkerMemory / 1048576)
RequestDisk = floor(MY.DaskWorkerDisk / 1024)
MY.JobId = "$(ClusterId).$(ProcId)"
MY.DaskWorkerCores = 16
MY.DaskWorkerMemory = 68719476736
MY.DaskWorkerDisk = 10000000000
LogDirectory = /nosuch/logs
Output = $(LogDirectory)/worker-$F(MY.JobId).out
Error = $(LogDirectory)/worker-$F(MY.JobId).err
Log = $(LogDirectory)/worker-$(ClusterId).log
Stream_Output = True
Stream_Error = True
+WantGlidein = true

Arguments = "-c 'export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=60s; module load python; /sw/python/bin/python -m distributed.cli.dask_worker tls://<scheduler>:<port> --name mysite-<number> --nthreads 16 --memory-limit 64.00GiB --nanny --death-timeout 120 --local-directory $TMPDIR --dashboard-address 127.0.0.1:0 --interface ib0 --protocol tls:// --tls-ca-file /nosuch/shared/run-XXXXXXXX/ca.pem --tls-cert /nosuch/shared/run-XXXXXXXX/worker.pem --tls-key /nosuch/shared/run-XXXXXXXX/worker-key.pem'"
Executable = /bin/sh

Queue
