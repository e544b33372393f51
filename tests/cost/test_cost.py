"""`swissbrain cost`: its arithmetic, its page, and what it knows of other parts. Its counts are measured elsewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from msgspec import json
from typer.testing import Result

from infra.commands import cost_counts, cost_model
from infra.commands.cost import cost
from infra.commands.cost_model import ServicePrice, default_prices
from swissbrain.cli.errors import CommandError
from tests.docs.pages import DOCS, ROOT, blocks, codes_in, rows
from tests.support.commands import invoke
from worker.run import archiver

PAGE = DOCS / "cost.md"


def computed(*options: str) -> Result:
    app = typer.Typer()
    app.command()(cost)
    return invoke(app, options, env={"COLUMNS": "80"})


def bill(*options: str) -> cost_model.Bill:
    result = computed(*options, "--json")
    assert result.exit_code == 0, result.output
    return json.decode(result.output, type=cost_model.Bill)


def amounts(made: cost_model.Bill) -> dict[str, float]:
    return {line.name: line.amount for line in made.serverless}


@pytest.mark.parametrize(
    ("fields", "amount", "expected", "day"),
    [
        ({}, 150, 3.0, None),
        ({"free": 100.0}, 100, 0.0, None),
        ({"free": 100.0}, 150, 1.0, 21),
        ({"free": 100.0}, 3000, 58.0, 2),
        ({"free": 100.0, "free_plan": True}, 150, 3.0, 21),
        ({"free_daily": 10.0}, 300, 0.0, None),
        ({"free_daily": 10.0, "free_plan": True}, 301, 6.02, 1),
    ],
)
def test_a_price_deducts_its_quota_or_ends_with_it(
    fields: dict[str, float | bool], amount: float, expected: float, day: int | None
) -> None:
    price = json.decode(
        json.encode({"label": "x", "price": 2.0, "per": 100, "source": "x", **fields}), type=ServicePrice
    )
    assert price.cost(amount) == pytest.approx(expected)
    assert price.exceeded_on_day(amount) == day


def test_a_month_without_runs_costs_what_waits() -> None:
    made = bill("--runs", "0", "--worker-hours", "720")
    assert {name: count for name, count in made.redis_commands.items() if count} == {
        "waiting workers": 720 * cost_counts.IDLE_WORKER_HOUR,
        "autoscaling": 43_200 * cost_counts.KEDA_POLL,
    }
    assert all(quota.exceeded_on_day is None for quota in made.quotas)
    nothing = bill("--runs", "0", "--poll", "0")
    assert (sum(nothing.redis_commands.values()), nothing.totals["serverless"]) == (0, 0)
    assert nothing.totals["always_on"] > 0


def test_each_part_of_the_use_costs_in_proportion() -> None:
    base = amounts(bill("--runs", "100", "--poll", "0", "--worker-hours", "0", "--watchers", "0", "--events", "0"))
    options = ("--runs", "100", "--poll", "0", "--worker-hours", "0", "--events", "0")
    watched = amounts(bill(*options, "--watchers", "2", "--duration", "91s"))
    assert watched["lambda_requests"] - base["lambda_requests"] == 100 * 2 * 2  # each reader opens a second stream
    assert watched["lambda_gb_seconds"] - base["lambda_gb_seconds"] == pytest.approx(100 * 2 * 91 * 0.25)
    printed = bill(*options[:-1], "10000", "--watchers", "0", "--duration", "2s")
    assert printed.redis_commands["printed lines"] == 100 * 20 * cost_counts.BATCH  # one batch in 100 ms at most
    assert amounts(printed)["s3_requests"] - base["s3_requests"] == 100
    ticking = bill(*options, "--watchers", "0", "--recovery", "5", "--ticks", "60")
    assert amounts(ticking)["qstash_messages"] == 8640 + 60
    assert ticking.redis_commands["ticks of schedules"] == 60 * cost_counts.SCHEDULE_TICK
    posted = bill(*options, "--watchers", "0", "--webhooks", "2")
    assert posted.redis_commands["webhooks"] == 100 * 2 * cost_counts.WEBHOOK
    assert amounts(posted)["qstash_messages"] == 200
    assert amounts(posted)["lambda_requests"] - base["lambda_requests"] == 200
    tokens = bill("--runs", "10", "--input-tokens", "1000", "--price", "llm_input_tokens=3")
    assert {line.name: line.cost for line in tokens.always_on}["llm_input_tokens"] == pytest.approx(0.03)
    assert "llm_input_tokens" not in tokens.assumed


def test_runs_that_last_need_more_than_one_worker() -> None:
    made = bill("--runs", "100000", "--duration", "10m")
    needed = 100_000 / 6 / cost_model.SLOTS
    assert made.worker_hours == pytest.approx(needed)
    assert made.always_on[0].amount == 3
    assert bill("--runs", "100000").worker_hours == 720
    assert bill("--runs", "12", "--duration", "0s").worker_hours == 1


def test_the_text_has_each_total_and_each_assumption_within_eighty_columns() -> None:
    options = ("--runs", "200000", "--input-tokens", "2000000", "--recovery", "1", "--ticks", "100000")
    made, shown = bill(*options), computed(*options).output
    assert max(map(len, shown.splitlines())) <= 80
    for total in made.totals.values():
        assert f" {total:,.2f}\n" in shown
    for name in made.assumed:
        assert f"  {name}: " in shown
    for quota in made.quotas:
        assert (f"{quota.label} on day {quota.exceeded_on_day}\n" in shown) == (quota.exceeded_on_day is not None)


def test_a_copy_of_our_prices_gives_the_same_bill(tmp_path: Path) -> None:
    copied = tmp_path / "prices.toml"
    copied.write_text(cost_model.PRICES.read_text())
    assert bill("--runs", "5000", "--prices", str(copied)) == bill("--runs", "5000")
    copied.write_text("[redis_commands]\nprice = 0.4\n")
    changed, ours = bill("--runs", "5000", "--prices", str(copied)), bill("--runs", "5000")
    assert changed.serverless[0].cost == pytest.approx(2 * ours.serverless[0].cost)
    assert changed.serverless[1:] == ours.serverless[1:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x", "Expected '='"),
        (b"\xff", "utf-8"),
        (b"x = " + b"[" * 30_000, "nested too deeply"),
        (b"redis_commands = 5", "each price is a table"),
        (b"[nothing]\nprice = 1", "there is no price 'nothing'"),
        (b"[redis_commands]\nprise = 1", "unknown field `prise`"),
        (b"[redis_commands]\nprice = 'x'", "Expected `float`"),
        (b"[redis_commands]\nprice = -1", "from 0 to 1e+12"),
        (b"[redis_commands]\nprice = nan", "from 0 to 1e+12"),
        (b"[redis_commands]\nper = 0", "from 1e-06"),
        (b"[redis_commands]\nper = 1e-300", "from 1e-06"),
        (b"[redis_commands]\nprice = 1e308", "from 0 to 1e+12"),
        (b"#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_bad_file_of_prices_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_bytes(content)
    result = computed("--runs", "1", "--prices", str(file))
    assert isinstance(result.exception, CommandError)  # the command ends with exit code 2
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.output == ""


@pytest.mark.parametrize(
    "options",
    ["--price x=1", "--price x", "--price vm_months=-1", "--price vm_months=nan", "--prices /", "--duration 31d"],
)
def test_a_bad_value_is_one_line(options: str) -> None:
    result = computed("--runs", "1", *options.split())
    assert (type(result.exception), result.output) == (CommandError, "")


@pytest.mark.parametrize("options", ["", "--runs -1", "--runs 1e3", "--runs 1 --watchers nan", "--runs 1 --steps 0"])
def test_a_number_out_of_range_is_a_usage_error(options: str) -> None:
    assert computed(*options.split()).exit_code == 2


def test_the_model_knows_what_the_other_parts_are_set_to() -> None:
    functions = yaml.safe_load((ROOT / "serverless.yml").read_text())["functions"]
    assert functions["api"]["memorySize"] == cost_model.API_GB * 1024
    assert functions["stream"]["memorySize"] == cost_model.STREAM_GB * 1024
    assert (archiver.SEGMENT_EVENTS, archiver.MIN_ARCHIVE_BYTES) == (
        cost_model.SEGMENT_EVENTS,
        cost_model.LOG_IN_REDIS_BYTES,
    )
    (scaled, _) = yaml.safe_load_all((ROOT / "k8s" / "components" / "keda" / "autoscaling.yaml").read_text())
    assert scaled["spec"]["pollingInterval"] == 60
    assert scaled["spec"]["cooldownPeriod"] == cost_model.COOLDOWN_S
    assert int(scaled["spec"]["advanced"]["scalingModifiers"]["target"]) == cost_model.SLOTS
    assert len(scaled["spec"]["triggers"]) * 3 == cost_counts.KEDA_POLL


def test_the_page_shows_what_the_command_prints() -> None:
    ((command, *_), *lines) = [shlex.split(line) if line.startswith("$") else [line] for line in _example()]
    assert command == "$"
    result = computed(*_words()[3:])
    assert "\n".join(line for (line,) in lines) + "\n" == result.output


def test_the_page_has_each_count_and_each_price() -> None:
    cells = [row for row in rows(PAGE) if len(row) == 3]
    counts = {name: row[1] for row in cells for name in codes_in(row[0]) if name.isupper()}
    assert counts == {name: f"{getattr(cost_counts, name):g}" for name in vars(cost_counts) if name.isupper()}
    priced = {name: row for row in cells for name in codes_in(row[0]) if name.islower() and "-" not in name}
    assert priced.keys() == default_prices().keys()
    for name, price in default_prices().items():
        assert priced[name][2] == price.source
        numbers = [float(each.replace(",", "")) for each in re.findall(r"[\d.,]*\d", priced[name][1])]
        written = [price.price, *([price.per] if price.per != 1 else [])]
        assert numbers == [*written, *(each for each in (price.free, price.free_daily) if each)], name


def _example() -> list[str]:
    (block,) = (each for each in blocks(PAGE) if each.startswith("$ swissbrain cost"))
    return block.splitlines()


def _words() -> list[str]:
    return shlex.split(_example()[0])
