"""Processor time of the benchmark process and of measured processes."""

import os
import subprocess
import sys
import time

from bench.processor_time import ProcessorTime

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"


def test_the_children_of_a_measured_process_count_and_this_process_does_not() -> None:
    parent = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint()\ninput()\n"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        processors = ProcessorTime(lambda: [process.pid])
        assert process.stdout
        process.stdout.readline()
        generator_s, system_s = processors.read()
        process.communicate(b"\n")
    assert 0.4 < system_s < 5
    assert generator_s < system_s


def test_the_load_of_this_process_is_the_generators() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        processors, began = ProcessorTime(lambda: [process.pid]), time.process_time()
        while time.process_time() < began + 0.2:
            os.getpid()
        name, value = processors.row()
        process.communicate(b"\n")
    assert name == "CPU of the load generator : CPU of the measured parts"
    assert int(value.split(" %")[0]) > 100
