"""DaskExecutor side by side with its peers: ``python -m benchmarks --help``.

================  ==================================================================
`functions`       what the workers call
`peers`           one adapter for each executor that is compared
`workloads`       what is measured: one function for each workload
`network`         counters of the bytes that a process has sent and received
`backlog`         a workload: a million pending calls
`delay`           a workload: a scheduler that is far away; and the proxy that delays
`startup`         a workload: whole programs
`turn`            one turn: one workload on one peer, in a process of its own
`script`          the same, as a script whose functions are in ``__main__``
`runner`          has the turns taken in rounds, limits their time, cleans up
`report`          medians, ratios, tables
`floor`           where the time of one call goes: ``python -m benchmarks.floor``
`logs`            the log job beside GoAccess and DuckDB: ``python -m benchmarks.logs``
================  ==================================================================
"""
