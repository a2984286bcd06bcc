"""Clusters whose workers are jobs of a batch queue, by dask-jobqueue."""

from __future__ import annotations

from daskexec.kinds._jobs import job_script

__all__ = ["job_script"]
