"""Samples of the agent benchmark, and what its table makes of them."""

import os

from bench.agent import WINDOWS, Endpoint, Figures, Sample
from tests.support.model_server import ModelServer
from tests.support.scripted_http import Request


def figures(*turn_ms: float) -> Figures:
    """Return one round for each time that a turn takes."""
    turns = range(WINDOWS[-1].stop + 1)
    return Figures([{n: Sample(cpu_s=n * ms / 1000, peak_mb=40 + ms, commands=9 * n) for n in turns} for ms in turn_ms])


def test_a_row_has_the_median_of_the_rounds_and_its_share_of_ours() -> None:
    ours, other = figures(2, 8, 4), figures(40)
    assert ours.cells(ours, commands=True) == ["4.0", "4.0", "4.0", "44", "9.0 / 9.0 / 9.0"]
    assert other.cells(ours, commands=False) == ["40.0 (×10.0)"] * 3 + ["80", "–"]


def test_a_sample_has_the_processor_time_and_the_peak_memory_of_the_process() -> None:
    before = Sample.of(os.getpid(), None)
    sum(range(3_000_000))
    after = Sample.of(os.getpid(), None)
    assert after.cpu_s > before.cpu_s
    assert after.peak_mb >= before.peak_mb > 1


def test_the_endpoint_samples_only_where_asked_to() -> None:
    endpoint = Endpoint(ModelServer("http://127.0.0.1:1/v1"), turns=3)
    messages = [{"role": "system"}, {"role": "user"}, {"role": "assistant"}]
    request = Request(
        "POST", "/v1/chat/completions", {}, b'{"messages": %s}' % str(messages).replace("'", '"').encode()
    )
    endpoint.respond(request)
    assert endpoint.samples == {}
    with endpoint.sampling(os.getpid()):
        endpoint.respond(request)
    endpoint.respond(request)
    assert [*endpoint.samples] == [1]
