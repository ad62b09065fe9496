"""What does a relayed request cost?  ``python -m cachelb.tools.bench --help``, or ``make bench BENCH="--quick"``.

Three nginx servers stand for the cache nodes: they answer at once, so the front end is what is measured.  Each front
end hashes the whole URL onto them consistently.  Nodes and load generator (wrk) are pinned to CPU 1, the front end to
CPU 0; the cost is CPU 0's busy time (user, system, softirq) per finished request.  Front ends take turns, round by
round, and each round gives a ratio to HAProxy (to the first one, where HAProxy is left out), so that a slow moment of
the machine hits all.  Trust the ratios.

    nodes      the nginx that stands for the farm
    fronts     configuration and command of each front end
    load       scenarios, and the wrk that asks
    compare    one comparison from start to end
    measure    CPU time, medians, ratios
    report     progress, tables, JSON
    processes  start on a CPU, wait for the port, stop
    steps      microbenchmarks of the steps inside cachelb, for when a ratio has changed and the question is where
"""
