"""A queue that serves tenants and their requests in turn (round robin)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Container
from typing import Generic, TypeVar

from .call import Owner
from .errors import Overloaded

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A queue of items that belong to requests of tenants.

    The queue takes the tenants in turn, and returns one item at each turn. For each tenant, it takes the tenant's
    requests in turn. The items of a request keep their order. So a request with few items is finished before a request
    with many items, even if the request with few items started later. Threads that share a queue must use a lock.

    Args:
        max_size: number of items at which the queue is full. A full queue still accepts an item of a tenant that has
            fewer than `max_size // number of tenants` items.

    Example:
        >>> waiting = FairQueue(10)
        >>> for item in ("a1", "a2", "a3"):
        ...     waiting.put(item, Owner("a", "batch"))
        >>> waiting.put("a-click", Owner("a", "click"))
        >>> waiting.put("b1", Owner("b", "click"))
        >>> [waiting.get() for _ in range(len(waiting))]
        ['a1', 'b1', 'a-click', 'a2', 'a3']
    """

    def __init__(self, max_size: int) -> None:
        self._max_size, self._size = max_size, 0
        self._tenants: OrderedDict[str, OrderedDict[str, deque[Item]]] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def put(self, item: Item, owner: Owner) -> None:
        """Add an item.

        Args:
            item: the item.
            owner: tenant and request to which the item belongs.

        Raises:
            Overloaded: the queue is full, and the tenant has `max_size // number of tenants` items or more.
        """
        requests = self._tenants.get(owner.tenant, OrderedDict())
        if self._size >= self._max_size:
            tenants = len(self._tenants | {owner.tenant: requests})
            if sum(map(len, requests.values())) >= self._max_size // tenants:
                raise Overloaded("too many requests are waiting")
        requests.setdefault(owner.request, deque()).append(item)
        self._tenants[owner.tenant] = requests
        self._size += 1

    def get(self, skipped: Container[str] = (), accepts: Callable[[Item], bool] = lambda item: True) -> Item:
        """Remove and return the next item.

        Args:
            skipped: tenants whose items stay in the queue.
            accepts: returns whether the next item may leave the queue.

        Raises:
            IndexError: the queue is empty, or has only items of skipped tenants, or the next item is not accepted.
        """
        tenant = next((tenant for tenant in self._tenants if tenant not in skipped), None)
        if tenant is None:
            raise IndexError("no item waits")
        if not accepts(next(iter(self._tenants[tenant].values()))[0]):
            raise IndexError("the next item is not accepted")
        requests = self._tenants.pop(tenant)
        request, items = requests.popitem(last=False)
        item = items.popleft()
        if items:
            requests[request] = items
        if requests:
            self._tenants[tenant] = requests
        self._size -= 1
        return item
