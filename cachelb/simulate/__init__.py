"""What would a farm do with yesterday's requests?  ``cachelb simulate`` and ``cachelb plan``, from access logs.

    logs ─ source.py ─ reader.py (logline, kinds) ─ trace.py: ids, sizes, times, URLs in temporary files
                                                        ├─ replay.py (policies, store): hits, loads, the dip ─ report, chart
                                                        └─ plan.py (policies): who gives what to whom        ─ report, chart

The log is read once and becomes a trace of small numbers; every policy then replays that trace, in a process of its own.
"""
