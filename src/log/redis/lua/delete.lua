-- Delete a topic. KEYS: stream, then what else belongs to it.
local was = redis.call('UNLINK', KEYS[1])
redis.call('UNLINK', unpack(KEYS, 2))
return was
