"""Observer of pods: lists and watches that come late, and pods that are replaced."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

from infra.k8s_executor.observer import Observed, PodObserver
from infra.k8s_executor.views import (
    ContainerView,
    MetaView,
    OwnerView,
    PodStatusView,
    PodView,
    StateView,
    TerminatedView,
    WatchEvent,
)


class SlowApi:
    """API whose lists are answered by the test."""

    def __init__(self) -> None:
        self.lists: asyncio.Queue[asyncio.Future[list[PodView]]] = asyncio.Queue()

    async def pods(self, *_: object) -> tuple[list[PodView], str]:
        answer: asyncio.Future[list[PodView]] = asyncio.get_running_loop().create_future()
        await self.lists.put(answer)
        return await answer, "1"

    async def watch_pods(self, *_: object) -> AsyncGenerator[WatchEvent, None]:
        await asyncio.Event().wait()
        yield cast("Any", None)


def pod(uid: str = "pod-1", *, ended: bool = False) -> PodView:
    state = StateView(terminated=TerminatedView()) if ended else StateView(running={})
    status = PodStatusView(pod_ip="127.0.0.1", container_statuses=[ContainerView(name="tool", state=state)])
    return PodView(metadata=MetaView(uid=uid, owner_references=[OwnerView(kind="Job", uid="job-1")]), status=status)


def state(observed: Observed) -> str:
    return "gone" if observed.is_gone else "there"


async def test_a_list_from_before_the_pod_does_not_lose_it() -> None:
    api = SlowApi()
    observer = PodObserver(cast("Any", api))
    running = asyncio.create_task(observer.run())
    with observer.observing("job-1") as observed:
        early = await api.lists.get()
        asking = asyncio.create_task(observer.refresh("job-1", "name"))
        (await api.lists.get()).set_result([pod()])
        await asking
        early.set_result([])
        await asyncio.sleep(0.01)
        assert (observed.pod, state(observed)) == (pod(), "there")
        asking = asyncio.create_task(observer.refresh("job-1", "name"))
        (await api.lists.get()).set_result([])
        await asking
        assert state(observed) == "gone"
    running.cancel()


async def test_what_is_known_of_a_pod_does_not_go_back_and_no_other_pod_replaces_it() -> None:
    api = SlowApi()
    observer = PodObserver(cast("Any", api))
    with observer.observing("job-1") as observed:
        for answer in ([pod(ended=True)], [pod()], [pod(), pod("pod-2")]):
            asking = asyncio.create_task(observer.refresh("job-1", "name"))
            (await api.lists.get()).set_result(answer)
            await asking
            assert observed.pod
            assert observed.pod.has_ended
            assert observed.pod.metadata.uid == "pod-1"
