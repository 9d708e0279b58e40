"""The two Lua scripts of the cache. Redis runs each as one step."""

from __future__ import annotations

from typing import Final

_PUT: Final = """
local function put(key, token, position, value, seconds)
  local entry = redis.call('GET', key)
  if entry then
    local t, p = string.match(entry, '^([^:]*):(%d+):')
    if t == token and tonumber(p) >= tonumber(position) then return 0 end
  end
  redis.call('SET', key, token .. ':' .. position .. ':' .. value, 'EX', seconds)
  return 1
end
"""

WRITE: Final = (
    _PUT
    + """
-- KEYS: state, entry...  ARGV: known state, new token, position, state seconds, entry seconds,
-- then position and value of each entry. Answers with the new state.
local state = redis.call('GET', KEYS[1])
local token, at = ARGV[2], tonumber(ARGV[3])
if state == ARGV[1] then
  token = string.match(state, '^([^:]*):')
  for i = 2, #KEYS do
    put(KEYS[i], token, ARGV[2 * i + 2], ARGV[2 * i + 3], ARGV[5])
  end
elseif state then
  at = math.max(at, tonumber(string.match(state, ':(%d+)$')))
end
local new = token .. ':' .. string.format('%.0f', at)
redis.call('SET', KEYS[1], new, 'EX', ARGV[4])
return new
"""
)
"""The projector's: chained to the state it knows, else a new generation without entries."""

FILL: Final = (
    _PUT
    + """
-- KEYS: state, entry  ARGV: state seen, position, value, entry seconds. Answers whether it was set.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return put(KEYS[2], string.match(ARGV[1], '^([^:]*):'), ARGV[2], ARGV[3], ARGV[4])
"""
)
"""A reader's: refused when the state moved since it was seen, or when the entry is newer."""
