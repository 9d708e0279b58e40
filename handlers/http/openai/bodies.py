"""What clients of OpenAI's protocol send: the members that the gateway reads, and all others."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from engine.runtimes.documents import Kind
from handlers.http.bodies import check_integers, check_nesting, convert, decode
from handlers.http.call import Call
from handlers.http.problems import invalid

MEMBERS_MAX: Final = 128
"""In one body; the protocol knows about forty."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None
    """Whether a last chunk tells how many tokens it took."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """Members that are not named here are parameters, which are the version's to refuse."""

    kind: ClassVar[Kind]
    inputs: ClassVar[str]
    """The member that is the version's inputs."""

    model: str
    """The endpoint's name."""
    user: str | None = None
    """The routing key: the same key gets the same version while the policy stands."""


class Streamable(Body, frozen=True, kw_only=True):
    stream: bool | None = None
    """Whether the answer comes piece by piece, as Server-Sent Events."""
    stream_options: StreamOptions | None = None


class ChatBody(Streamable, frozen=True, kw_only=True):
    kind = "chat"
    inputs = "messages"

    messages: list[Any]


class TextBody(Streamable, frozen=True, kw_only=True):
    kind = "text"
    inputs = "prompt"

    prompt: str | list[Any]


class EmbeddingsBody(Body, frozen=True, kw_only=True):
    kind = "embeddings"
    inputs = "input"

    input: str | list[Any]


OWN_MEMBERS: Final = frozenset({"model", "stream", "stream_options"})
"""A version sees all others."""


class OpenAICall(Call):
    """A request that keeps the members of its body besides those that are typed."""

    __slots__ = ("members",)

    members: dict[str, Any]
    """Without those that are null. Known when the body is."""

    async def json(self) -> Any:
        """The body in the type the handler's `data` is annotated with. Raises Rejected."""
        body = await self.body()
        check_integers(body)
        members: dict[str, Any] = decode(body, dict[str, Any])
        check_nesting(body, members)
        if len(members) > MEMBERS_MAX:
            raise invalid({"body": f"has more than {MEMBERS_MAX} members"})
        self.members = {name: each for name, each in members.items() if each is not None}
        field = self.route_handler.parsed_data_field
        assert field is not None, "only handlers with `data` ask for a body"
        return convert(self.members, field.annotation)

    def asked(self, body: Body) -> tuple[dict[str, Any], dict[str, Any]]:
        """The version's inputs and parameters."""
        own = OWN_MEMBERS | {body.inputs}
        parameters = {name: each for name, each in self.members.items() if name not in own}
        return {body.inputs: self.members[body.inputs]}, parameters
