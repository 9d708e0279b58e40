"""`/v1`: OpenAI's protocol, in which every endpoint is a model.

`chat/completions`, `completions` and `embeddings` go where the policy sends the key: the body's
`user`, else the header `Switchback-Key`; attributes come from `Switchback-Attributes`. What a body
says beyond `model`, `stream` and `stream_options` is the version's: its inputs are `messages`,
`prompt` or `input`, its parameters are all other members (see `engine.runtimes.documents`). A
member that is null counts as absent.

Any version can be asked: what is no document of the protocol becomes the text of one. Errors are
problem documents with the protocol's `error` in them; a stream that fails when it has begun ends
with a last `error` in place of `[DONE]`. Who leaves before the end cancels the work.
"""
