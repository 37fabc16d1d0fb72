"""A measured dictionary counts exactly, costs nothing else, and tells OpenTelemetry."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from persidict import FileDirDict, LocalDict, measured_dict
from persidict.measured_dict import MeasuredDict
from persidict.testing import DictConformance, state_machine_for


class TestMeasuredDict(DictConformance):
    @pytest.fixture
    def new_dict(self) -> Any:
        return lambda **params: MeasuredDict(wrapped_dict=LocalDict(**params))

    @pytest.fixture
    def handles_travel(self) -> bool:
        return False

    def another_handle(self, d: Any, **params: Any) -> Any:
        return MeasuredDict(wrapped_dict=super().another_handle(d._wrapped, **params))


TestMeasuredDictByChance = state_machine_for(
    lambda **params: MeasuredDict(wrapped_dict=LocalDict(**params))
)


def counts(d: MeasuredDict[Any]) -> dict[str, int]:
    return {operation: found.count for operation, found in d.stats().items()}


def test_each_operation_counts_once_also_one_made_of_others() -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict())
    d.update({"a": 1, "b": 2})
    d["c"] = 3
    d.get_with_etag("a")
    d.pop("a")
    assert counts(d) == {"get_with_etag": 1, "pop": 1, "set": 1, "set_many": 1}


def test_a_failed_operation_counts_as_an_error() -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict())
    with pytest.raises(KeyError):
        d["nobody"]
    assert (d.stats()["get"].count, d.stats()["get"].errors) == (1, 1)


def test_threads_lose_no_count(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(measured_dict, "_MOST_UNSORTED", 0)
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    d = MeasuredDict[int](wrapped_dict=LocalDict())
    start = Barrier(8)

    def work() -> None:
        start.wait()
        for number in range(1000):
            d[str(number)] = number

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(d) == {"set": 8000}


def test_an_operation_in_the_middle_of_the_sorting_neither_hangs_nor_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measured_dict, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(measured_dict, "_MOST_UNSORTED", 0)
    d = MeasuredDict[int](wrapped_dict=LocalDict())
    d["a"] = 1
    with d._tallies["set"]._sorting:  # as in a signal handler that interrupts it
        d["a"] = 2
        assert counts(d) == {"set": 1}
    assert counts(d) == {"set": 2}


def test_a_sub_dictionary_counts_together_with_its_parent() -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict())
    d.get_subdict("a")["b"] = 1
    assert counts(d) == {"set": 1}


def test_quantiles_are_in_order_and_within_what_was_measured() -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict())
    for number in range(100):
        d[str(number)] = number
    found = d.stats()["set"]
    assert 0 < found.p50 <= found.p90 <= found.p99 <= found.seconds * 1.1


def test_a_handle_travels_and_counts_anew(tmp_path: Path) -> None:
    d = MeasuredDict[int](wrapped_dict=FileDirDict(base_dir=str(tmp_path)))
    d["a"] = 1
    arrived = pickle.loads(pickle.dumps(d))
    assert arrived["a"] == 1
    assert counts(arrived) == {"get": 1}


@pytest.fixture(scope="session")
def providers() -> tuple[InMemorySpanExporter, InMemoryMetricReader]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    return exporter, reader


@pytest.fixture
def spans(
    providers: tuple[InMemorySpanExporter, InMemoryMetricReader],
) -> Iterator[InMemorySpanExporter]:
    yield providers[0]
    providers[0].clear()


def test_an_operation_is_a_span_with_the_names_of_the_conventions(
    spans: InMemorySpanExporter,
) -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict(), open_telemetry=True)
    d["a"] = 1
    (span,) = spans.get_finished_spans()
    assert span.name == "set LocalDict"
    assert span.attributes == {
        "db.system.name": "persidict",
        "db.collection.name": "LocalDict",
        "db.operation.name": "set",
    }


def test_a_failed_operation_is_a_span_that_names_the_error(spans: InMemorySpanExporter) -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict(), open_telemetry=True)
    with pytest.raises(KeyError):
        d["nobody"]
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "KeyError"


def test_durations_are_a_histogram_in_seconds(
    providers: tuple[InMemorySpanExporter, InMemoryMetricReader], spans: InMemorySpanExporter
) -> None:
    d = MeasuredDict[int](wrapped_dict=LocalDict(), open_telemetry=True)
    d.get("a")
    data = providers[1].get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("db.client.operation.duration", "s")
    assert "get" in {point.attributes["db.operation.name"] for point in metric.data.data_points}


def test_a_flag_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="open_telemetry"):
        MeasuredDict(wrapped_dict=LocalDict(), open_telemetry="yes")  # type: ignore[arg-type]
