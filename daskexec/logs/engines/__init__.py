"""The engines: lines in, a filled tally out. Floor 10, part of the log job.

================  ==================================================================
`stdlib`          one strict regular expression over each block; for every format
`arrow`           columns by numpy and pyarrow, where these are installed; every line
                  that is not plainly of its format goes to `stdlib`
================  ==================================================================

Both give the same tally of the same lines.
"""
