"""Executions in Jobs of a cluster that works."""

from tests.k8s_executor.rig import ClusterRig


async def test_a_program_runs_in_a_job_of_its_own(cluster: ClusterRig) -> None:
    run = cluster.run()
    await run.files.write("given", b"x\n")
    ended = await run.execute("cat given; echo made > file; echo oops >&2; exit 3")
    assert (ended.exit_code, ended.timed_out) == (3, False)
    assert sorted(run.lines) == ["oops", "x"]
    assert ended.stdout.read_text() == "x\n"
    assert [file.path for file in ended.changes.written] == ["file"]
    assert cluster.jobs() == {run.job}
