from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.models.ledger import Entry, Ledger, ModelKey


def _entry(name: str, size: int = 10, device: str = "cpu", adapter: str | None = None) -> Entry:
    return Entry(ModelKey(name, adapter, device), module=object(), bytes=size, loading=False)


def _ledger(*entries: Entry) -> Ledger:
    ledger = Ledger()
    for entry in entries:
        ledger.add(entry)
    return ledger


def test_the_least_recently_used_goes_first() -> None:
    a, b, c = _entry("a"), _entry("b"), _entry("c")
    ledger = _ledger(a, b, c)
    ledger.touch(a)
    assert ledger.victims("cpu", 15) == [b, c]
    assert ledger.victims("cpu", 0) == []
    assert ledger.victims("cpu", 31) is None
    assert ledger.victims("cuda:0", 1) is None


def test_what_is_in_use_stays() -> None:
    leased, loading, idle = _entry("a"), _entry("b"), _entry("c")
    leased.leases, loading.loading = 1, True
    ledger = _ledger(leased, loading, idle)
    assert ledger.idle() == [idle]
    assert ledger.victims("cpu", 11) is None


def test_an_adapter_goes_before_its_base() -> None:
    base, first, second = _entry("a"), _entry("a", adapter="x"), _entry("a", adapter="y")
    ledger = _ledger(base, first, second)
    first.base = second.base = base
    base.pins = 2
    ledger.touch(second)
    assert ledger.idle() == [first, second, base]
    assert ledger.victims("cpu", 5) == [first]
    ledger.begin_release([first, second])
    assert base.pins == 0
    assert ledger.idle() == [base]


def test_a_base_stays_while_an_adapter_is_in_use() -> None:
    base, adapter = _entry("a"), _entry("a", adapter="x")
    adapter.base, base.pins, adapter.leases = base, 1, 1
    ledger = _ledger(base, adapter)
    assert ledger.idle() == []
    assert "base of an adapter" in ledger.describe("cpu")
    assert "a + x (10 B, in use 1x)" in ledger.describe("cpu")


def test_bytes_count_until_they_are_given_back() -> None:
    a, b, far = _entry("a", 1), _entry("b", 2), _entry("c", 4, "cuda:0")
    ledger = _ledger(a, b, far)
    assert (ledger.used("cpu"), ledger.used("cpu", but=a), ledger.used("cuda:0")) == (3, 2, 4)
    ledger.begin_release([a])
    assert ledger.get(a.key) is None
    assert (ledger.used("cpu"), ledger.releasing("cpu")) == (3, 1)
    ledger.end_release([a])
    assert (ledger.used("cpu"), ledger.releasing("cpu")) == (2, 0)


def test_resident_describes_everything() -> None:
    entry = _entry("a", 7, adapter="x")
    entry.leases, entry.retired = 2, True
    (model,) = _ledger(entry).resident()
    assert (model.name, model.adapter, model.bytes, model.device) == ("a", "x", 7, "cpu")
    assert (model.leases, model.loading, model.leaving) == (2, False, True)
    assert _ledger().describe("cpu") == "none"


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=8),
    st.integers(-5, 100),
)
def test_victims_are_idle_enough_and_no_more(models: list[tuple[int, bool]], need: int) -> None:
    entries = [_entry(str(index), size) for index, (size, _) in enumerate(models)]
    for entry, (_, leased) in zip(entries, models, strict=True):
        entry.leases = int(leased)
    idle = [entry for entry in entries if not entry.leases]
    victims = _ledger(*entries).victims("cpu", need)
    if victims is None:
        assert sum(entry.bytes for entry in idle) < need
    else:
        assert victims == idle[: len(victims)]
        assert sum(entry.bytes for entry in victims) >= need
        assert sum(entry.bytes for entry in victims[:-1]) < max(need, 1)
