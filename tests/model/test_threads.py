"""Threads of one process, each with its own way of using torch."""

from __future__ import annotations

import threading

import torch

from model import threads


def count_in_a_thread(divided: int | None = None) -> int:
    found = []

    def work() -> None:
        if divided is not None:
            threads.divide(divided)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_divides_its_own_operators_only() -> None:
    here, elsewhere = torch.get_num_threads(), count_in_a_thread()
    assert count_in_a_thread(3) == 3
    assert torch.get_num_threads() == here
    assert count_in_a_thread() == elsewhere


def test_each_answers_in_order_on_threads_of_one_operator_thread() -> None:
    def work(number: int) -> tuple[int, int]:
        return number * number, torch.get_num_threads()

    assert threads.each(work, range(9)) == [(number * number, 1) for number in range(9)]
