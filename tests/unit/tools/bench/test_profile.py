from __future__ import annotations

from cachelb.tools.bench.profile import Sample, parse, part, parts, table

# perf 6, as printed
REPORT = """# Samples: 2K of event 'cpu-clock:ppp'
#
# Overhead  Shared Object                     Symbol
# ........  ................................  .....................
#
    40.50%  [kernel.kallsyms]                 [k] tcp_sendmsg_locked
    30.25%  python3.11                        [.] _PyEval_EvalFrameDefault
    20.00%  cachelb__mypyc.cpython-311-x86_64-linux-gnu.so  [.] CPyDef_client___on_readable
     5.00%  libc.so.6                         [.] __memmove_avx_unaligned_erms
     4.25%  loop.cpython-311-x86_64-linux-gnu.so  [.] uv__io_poll (inlined)
"""


def test_the_lines_of_perf_are_read():
    samples = parse(REPORT)
    assert len(samples) == 5
    assert samples[0] == Sample(40.5, "[kernel.kallsyms]", "tcp_sendmsg_locked")
    assert samples[4].symbol == "uv__io_poll (inlined)"


def test_each_sample_has_an_owner():
    assert parts(parse(REPORT)) == {
        "kernel": 40.5,
        "interpreter": 30.25,
        "ours, compiled": 20.0,
        "libraries": 5.0,
        "extensions": 4.25,
    }
    assert part("nf_tables.ko") == "kernel"
    assert part("libpython3.11.so.1.0") == "interpreter"


def test_the_table_shares_out_what_a_request_costs():
    lines = table(parse(REPORT), 20.0).splitlines()
    assert lines[1].split() == ["kernel", "40.5", "8.10"]
    assert any("_PyEval_EvalFrameDefault" in line for line in lines)
    assert "-" in table(parse(REPORT), None)
