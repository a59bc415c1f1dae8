"""Cache keys and what a stage makes of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from satsuma.base.errors import NotFound
from satsuma.build.cache import BuildCache, StageCache, cache_key
from satsuma.build.images import Config, StepImage
from satsuma.store import Database


class FakeImages:
    """Images by id, without any disk."""

    def __init__(self) -> None:
        self.images: dict[str, StepImage] = {}
        self.parents: dict[str, str] = {}

    def add(self, image_id: str, history: list[str] | None = None, parent: str = "") -> StepImage:
        entries = [{"created_by": line, "empty_layer": True} for line in history or []]
        image = StepImage(id=image_id, document={"history": entries}, chain_ids=(), diff_ids=())
        self.images[image_id] = image
        if parent:
            self.parents[image_id] = parent
        return image

    def find(self, reference: str) -> StepImage:
        if reference not in self.images:
            raise NotFound(f"No such image: {reference}")
        return self.images[reference]

    def exists(self, image_id: str) -> bool:
        return image_id in self.images

    def parent(self, image_id: str) -> str | None:
        return self.parents.get(image_id)

    def commit(self, *_args: Any, **_kwargs: Any) -> StepImage:
        raise AssertionError("not here")

    def reuse(self, parent: StepImage | None, source: StepImage, index: int, config: Config) -> StepImage:
        past = [entry["created_by"] for entry in source.history[: index + 1]]
        return self.add(f"restored-{index}", past, parent.id if parent else "")

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        raise AssertionError("not here")


@pytest.fixture
def images() -> FakeImages:
    return FakeImages()


@pytest.fixture
def cache(tmp_path: Path, images: FakeImages) -> Iterator[BuildCache]:
    database = Database.open(str(tmp_path / "state.db"))
    yield BuildCache(database.collection("build_cache"), images)
    database.close()


def step(*words: str, **config: Any) -> Config:
    return {"Cmd": list(words), **config}


def test_key_ignores_who_the_container_was_and_empty_fields() -> None:
    plain = cache_key("p", {"Cmd": ["x"]})
    assert cache_key("p", {"Cmd": ["x"], "Hostname": "h", "Image": "i", "Env": [], "User": ""}) == plain
    assert cache_key("p", {"User": "", "Cmd": ["x"], "Labels": None}) == plain


@pytest.mark.parametrize(
    "other",
    [
        {"Cmd": ["y"]},
        {"Cmd": ["x", ""]},
        {"Cmd": ["x"], "Env": ["A=1"]},
        {"Cmd": ["x"], "User": "1"},
        {"Cmd": ["x"], "Labels": {"a": "b"}},
        {"Cmd": ["|1", "A=1", "x"]},
    ],
)
def test_key_knows_everything_else(other: Config) -> None:
    assert cache_key("p", {"Cmd": ["x"]}) != cache_key("p", other)


def test_key_knows_the_parent() -> None:
    assert cache_key("p", {"Cmd": ["x"]}) != cache_key("q", {"Cmd": ["x"]})


def test_newest_image_of_a_step_wins(cache: BuildCache, images: FakeImages) -> None:
    images.add("old")
    images.add("new")
    cache.put("p", step("x"), "old", now_ns=1)
    cache.put("p", step("x"), "new", now_ns=2)
    assert cache.get("p", step("x")) == "new"


def test_two_builds_may_make_the_same_step_at_once(cache: BuildCache, images: FakeImages) -> None:
    for name in ("a", "b"):
        images.add(name)

    def put_often(image_id: str) -> None:
        for number in range(100):
            cache.put("p", step("x"), image_id, now_ns=number)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(put_often, ("a", "b"))) == [None, None]
    assert cache.get("p", step("x")) in ("a", "b")


def test_an_image_that_is_gone_is_no_hit_and_forgotten(cache: BuildCache, images: FakeImages) -> None:
    images.add("i")
    cache.put("p", step("x"), "i", now_ns=1)
    del images.images["i"]
    assert cache.get("p", step("x")) is None
    images.add("i")
    assert cache.get("p", step("x")) is None


def test_after_one_miss_the_stage_misses(cache: BuildCache, images: FakeImages) -> None:
    base = images.add("base")
    images.add("one", parent="base")
    cache.put("base", step("x"), "one", now_ns=1)
    stage = StageCache(cache, images, [], enabled=True)
    assert stage.probe(base, step("unknown")) is None
    assert stage.probe(base, step("x")) is None
    fresh = StageCache(cache, images, [], enabled=True)
    found = fresh.probe(base, step("x"))
    assert found is not None
    assert found.id == "one"


def test_no_cache_never_hits(cache: BuildCache, images: FakeImages) -> None:
    base = images.add("base")
    images.add("one")
    cache.put("base", step("x"), "one", now_ns=1)
    assert StageCache(cache, images, [], enabled=False).probe(base, step("x")) is None


def test_cache_from_restores_steps_from_a_history(cache: BuildCache, images: FakeImages) -> None:
    base = images.add("base", ["b"])
    images.add("source", ["b", "one", "two"])
    stage = StageCache(cache, images, ["source", "missing"], enabled=True)
    first = stage.probe(base, step("one"))
    assert first is not None
    assert first.id == "restored-1"
    last = stage.probe(first, step("two"))
    assert last is not None
    assert last.id == "source"


def test_cache_from_hides_local_steps_of_other_images(cache: BuildCache, images: FakeImages) -> None:
    base = images.add("base", ["b"])
    images.add("local", ["b", "x"], parent="base")
    images.add("source", ["b", "y"], parent="base")
    cache.put("base", step("x"), "local", now_ns=1)
    assert StageCache(cache, images, ["source"], enabled=True).probe(base, step("x")) is None
    part = StageCache(cache, images, ["local"], enabled=True).probe(base, step("x"))
    assert part is not None
    assert part.id == "local"


def test_cache_from_needs_the_same_past(cache: BuildCache, images: FakeImages) -> None:
    base = images.add("base", ["other"])
    images.add("source", ["b", "one"])
    assert StageCache(cache, images, ["source"], enabled=True).probe(base, step("one")) is None


def test_prune_forgets_everything(cache: BuildCache, images: FakeImages) -> None:
    images.add("i")
    cache.put("p", step("x"), "i", now_ns=1)
    assert len(cache.prune()) == 1
    assert cache.get("p", step("x")) is None
