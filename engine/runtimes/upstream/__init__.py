"""Versions that run elsewhere: vLLM, Ollama, any OpenAI-compatible URL.

```python
async with Upstream(config, keys=Keys(os.environ), random=Random()) as upstream:
    answer = await upstream.answer(Call(kind="chat", body={"messages": [...]}))
    async with upstream.stream(Call(kind="chat", body={"messages": [...]})) as stream:
        async for chunk in stream: ...
```

`upstream` holds the promises, `errors` all that can go wrong. Pure: `calls` `answers` `sse`
`chunks` `refusals` `retrying` `breaker` `keys` `asking`; sockets: `wire` `attempt` `stream`
`health`. `client` speaks of upstreams as nodes and gateways do of any version, `runtime` is one
that a node has loaded.
"""

from engine.runtimes.upstream.answers import Answer, Choice, Chunk, Delta
from engine.runtimes.upstream.breaker import BreakerLimits, State
from engine.runtimes.upstream.calls import Call
from engine.runtimes.upstream.client import Client
from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import (
    BrokenOff,
    Busy,
    CallerTimedOut,
    CircuitOpen,
    Closed,
    HalfAnswered,
    Invalid,
    KeyUnavailable,
    Malformed,
    NotAnswered,
    NotCalled,
    Overloaded,
    Refused,
    RequestTimedOut,
    TimedOut,
    TooLarge,
    Unreachable,
    UpstreamFailed,
)
from engine.runtimes.upstream.health import Health, Watch
from engine.runtimes.upstream.keys import Keys
from engine.runtimes.upstream.runtime import UpstreamRuntime
from engine.runtimes.upstream.stream import Stream
from engine.runtimes.upstream.upstream import Statistics, Upstream

__all__ = [
    "Answer",
    "BreakerLimits",
    "BrokenOff",
    "Busy",
    "Call",
    "CallerTimedOut",
    "Choice",
    "Chunk",
    "CircuitOpen",
    "Client",
    "Closed",
    "Delta",
    "HalfAnswered",
    "Health",
    "Invalid",
    "KeyUnavailable",
    "Keys",
    "Malformed",
    "NotAnswered",
    "NotCalled",
    "Overloaded",
    "Refused",
    "RequestTimedOut",
    "State",
    "Statistics",
    "Stream",
    "TimedOut",
    "TooLarge",
    "Unreachable",
    "Upstream",
    "UpstreamConfig",
    "UpstreamFailed",
    "UpstreamRuntime",
    "Watch",
]
