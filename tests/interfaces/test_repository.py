"""The model repository, by the official Triton client: what is there, loaded, unloaded, refused."""

from __future__ import annotations

from typing import Any

import httpx

from events import EntityId
from events.catalogue.nodes import VersionLoaded, VersionUnloaded
from tests.http.test_problems import checked
from tests.interfaces.conftest import MEMORY_BYTES
from tests.interfaces.triton import Triton, a_request
from tests.system import System


async def index_of(triton: Triton, model: str) -> dict[str, tuple[str, str]]:
    entries = await triton.call("get_model_repository_index")
    return {e["version"]: (e["state"], e["reason"]) for e in entries if e["name"] == model}


async def test_versions_are_loaded_and_unloaded_and_the_log_says_so(served: System, triton: Triton):
    client = served.client
    await client.register_model("library")
    for version in ("1.0.0", "2.0.0"):
        await client.register_version("library", version, runtime="echo")
    unloaded = ("UNAVAILABLE", "not loaded")
    await triton.call("load_model", "library@1.0.0")
    assert await index_of(triton, "library") == {"1.0.0": ("READY", ""), "2.0.0": unloaded}
    await triton.call("load_model", "library")
    assert await index_of(triton, "library") == {"1.0.0": ("READY", ""), "2.0.0": ("READY", "")}
    await triton.call("unload_model", "library@2.0.0")
    assert await index_of(triton, "library") == {"1.0.0": ("READY", ""), "2.0.0": unloaded}
    await triton.call("unload_model", "library", unload_dependents=True)
    await triton.call("unload_model", "library")  # it is so already
    assert await index_of(triton, "library") == {"1.0.0": unloaded, "2.0.0": unloaded}
    told = [
        (type(recorded.event), recorded.event.version.version)
        async for recorded in _node_history(served)
        if isinstance(recorded.event, VersionLoaded | VersionUnloaded)
        and recorded.event.version.model == "library"
    ]
    assert told[:3] == [
        (VersionLoaded, "1.0.0"),
        (VersionLoaded, "2.0.0"),
        (VersionUnloaded, "2.0.0"),
    ]
    assert told[3:] == [(VersionUnloaded, "1.0.0")]


async def test_the_index_of_what_is_ready_holds_nothing_else(
    served: System, http: httpx.AsyncClient
):
    await served.client.register_model("unread")
    await served.client.register_version("unread", "1.0.0", runtime="echo")
    ready = (await http.post("/v2/repository/index", json={"ready": True})).json()
    everything = (await http.post("/v2/repository/index")).json()
    assert {entry["state"] for entry in ready} == {"READY"}
    assert "unread" in {entry["name"] for entry in everything}
    assert "unread" not in {entry["name"] for entry in ready}


async def test_what_an_endpoint_needs_is_not_unloaded(triton: Triton):
    error = await triton.refused("unload_model", "shapes")
    assert (error.status(), "needed by shapes" in error.message()) == ("409", True)
    assert await triton.call("is_model_ready", "shapes")


async def test_what_cannot_fit_is_refused_with_what_the_node_said(served: System, triton: Triton):
    await served.client.register_model("huge")
    await served.client.register_version(
        "huge", "1.0.0", runtime="echo", memory_bytes=2 * MEMORY_BYTES
    )
    error = await triton.refused("load_model", "huge")
    assert error.status() == "502"
    assert f"{2 * MEMORY_BYTES} bytes declared, of {MEMORY_BYTES}" in error.message()
    state, reason = (await index_of(triton, "huge"))["1.0.0"]
    assert state == "UNAVAILABLE" and reason.startswith("memory: ")


async def test_versions_that_do_not_fit_together_are_refused_together(
    served: System, triton: Triton
):
    await served.client.register_model("wide")
    for version in ("1.0.0", "2.0.0"):
        await served.client.register_version(
            "wide", version, runtime="echo", config={"ballast_bytes": MEMORY_BYTES * 6 // 10}
        )
    error = await triton.refused("load_model", "wide")
    assert (error.status(), "gone again" in error.message()) == ("502", True)
    for version in ("1.0.0", "2.0.0"):  # one after the other takes the place of the one before
        await triton.call("load_model", f"wide@{version}")
        states = await index_of(triton, "wide")
        assert [each for each, (state, _) in states.items() if state == "READY"] == [version]
    await triton.call("unload_model", "wide")


async def test_what_is_not_registered_or_retired_is_not_loaded(served: System, triton: Triton):
    await served.client.register_model("old")
    await served.client.register_version("old", "1.0.0", runtime="echo")
    await served.client.retire_version("old", "1.0.0")
    assert await index_of(triton, "old") == {"1.0.0": ("UNAVAILABLE", "retired")}
    for name, status in (
        ("nothing", "404"),
        ("old@2.0.0", "404"),
        ("old@1.0.0", "409"),
        ("a.b", "400"),
        ("old@", "400"),
    ):
        assert (await triton.refused("load_model", name)).status() == status, name
    assert (await triton.refused("unload_model", "nothing")).status() == "404"
    error = await triton.refused("load_model", "old", config='{"backend":"x"}')
    assert error.status() == "400" and "config" in error.message()


async def test_no_tenant_sees_or_touches_anothers_models(served: System, http: httpx.AsyncClient):
    await served.client.create_tenant("globex")
    issued = await served.client.issue_key("globex", scopes=["read", "operate", "infer"])
    key = {"Authorization": f"Bearer {issued['key']}"}
    assert (await http.post("/v2/repository/index", headers=key)).json() == []
    flags = await http.post(
        "/ofrep/v1/evaluate/flags", headers=key, json={"context": {"targetingKey": "k"}}
    )
    assert flags.json() == {"flags": []}
    for path in ("/v2/models/chat", "/v2/models/chat/ready", "/v2/models/chat/versions/1.0.0"):
        checked(await http.get(path, headers=key), "not_found")
    for path, body in (
        ("/v2/models/chat/infer", a_request()),
        ("/v2/models/chat/versions/1.0.0/infer", a_request()),
        ("/v2/repository/models/fraud/load", {}),
        ("/v2/repository/models/fraud/unload", {}),
        ("/ofrep/v1/evaluate/flags/chat", {"context": {"targetingKey": "k"}}),
    ):
        checked(await http.post(path, headers=key, json=body), "not_found")


def _node_history(served: System) -> Any:
    log = served.process.jetstream.events
    return log.read(EntityId("system", "node", served.settings.node_id))
