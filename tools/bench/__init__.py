"""What does a relayed request cost?  ``python -m cachelb.tools.bench --help``, or ``make bench BENCH="--quick"``.

nginx servers stand for the cache nodes: they answer at once, so the front end is what is measured.  Each front
end hashes the whole URL onto them consistently.  Nodes and load generator (wrk) are pinned to CPU 1, the front end to
CPU 0; the cost is CPU 0's busy time (user, system, softirq) per finished request.  Front ends take turns, round by
round, and each round gives a ratio to HAProxy (to the first one, where HAProxy is left out), so that a slow moment of
the machine hits all.  Trust the ratios.

    small, many      400 bytes on 32 and on 256 kept connections
    close            400 bytes, a connection for each request
    8k ... 10m       larger answers
    chunked          8 KiB without a length
    log, nodes, urls with log and metrics; 1,000 nodes; ten million URLs: each front end against itself
    cookies         no request with the fields of another: each front end against itself
    workers          two against one
    latency          what is added at fixed rates
    memory           for each idle and each active client

Versions of ours can be compared in one run: cachelb-pure is the same without what was compiled ahead of time, and
--cachelb old=/other/.venv/bin/cachelb adds a front end called "old".

    suite       what can be measured, and a run of it
    tables      what is compared with what
    compare     one comparison, by the cost of a request
    scaling, latency, memory    the others, each with its reasoning
    farm        what runs; nodes, fronts: how each is configured
    load        scenarios, and the wrk that asks; open_loop: the load at a fixed rate
    measure     CPU time, medians, ratios; resident: memory and CPU time of processes
    report      progress, tables, JSON; chart, page: the page in the docs
    processes   start on a CPU, wait for the port, stop
    steps       microbenchmarks of the steps inside cachelb, and of its system calls: where the microseconds go
    profile     where they go by perf: kernel, interpreter, ours
"""
