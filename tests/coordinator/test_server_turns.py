from __future__ import annotations

import asyncio
import threading

from coordinator.server.turns import Turns


async def test_the_event_loop_rests_while_the_thread_works() -> None:
    taking = Turns()
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def work() -> None:
        with taking.work(loop):
            loop.call_soon_threadsafe(seen.append, "loop")
            for _ in range(1000):
                seen.append("thread")

    await asyncio.to_thread(work)
    await asyncio.sleep(0)
    assert seen == ["thread"] * 1000 + ["loop"]


async def test_the_event_loop_goes_on_when_it_is_let_go() -> None:
    taking = Turns()
    loop = asyncio.get_running_loop()
    went_on = threading.Event()

    def work() -> bool:
        with taking.work(loop) as let_go:
            loop.call_soon_threadsafe(went_on.set)
            let_go()
            return went_on.wait(60.0)

    assert await asyncio.to_thread(work)


async def test_the_event_loop_rests_for_no_more_than_a_moment() -> None:
    taking = Turns()
    loop = asyncio.get_running_loop()
    went_on = threading.Event()

    def work() -> bool:
        with taking.work(loop):
            loop.call_soon_threadsafe(went_on.set)
            return went_on.wait(60.0)  # as a statement that takes long would

    assert await asyncio.to_thread(work)


async def test_the_thread_goes_on_once_what_came_of_it_is_done() -> None:
    taking = Turns()
    loop = asyncio.get_running_loop()
    seen: list[str] = []
    answer: asyncio.Future[None] = loop.create_future()

    async def waits() -> None:
        await answer
        seen.append("answered")

    def work() -> None:
        taking.hand_over(loop, lambda: answer.set_result(None))
        seen.append("thread")

    await asyncio.gather(waits(), asyncio.to_thread(work))
    assert seen == ["answered", "thread"]


def test_a_loop_that_was_closed_is_waited_for_by_nobody() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    taking = Turns()
    with taking.work(loop):
        pass
    taking.hand_over(loop, lambda: None)


async def test_a_thread_that_fails_lets_the_event_loop_go_on() -> None:
    taking = Turns()
    loop = asyncio.get_running_loop()

    def work() -> None:
        with taking.work(loop):
            raise ValueError("a mistake of ours")

    for _ in range(2):
        outcome = await asyncio.gather(asyncio.to_thread(work), return_exceptions=True)
        assert isinstance(outcome[0], ValueError)
