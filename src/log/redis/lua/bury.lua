-- A dead letter, if the entry is still pending under its token. KEYS: stream, due, leaving, then those of `append`.
-- ARGV: group, id, attempt, then those of `append`. Answers as `append` does; nothing: it is not pending so.
local stream, due, group, id = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
need_group(stream, group)
local held = redis.call('XPENDING', stream, group, id, id, 1)[1]
if not held or held[4] ~= tonumber(ARGV[3]) then return {} end
local keys, argv = {}, {}
for at = 4, #KEYS do keys[at - 3] = KEYS[at] end
for at = 4, #ARGV do argv[at - 3] = ARGV[at] end
local appended = append(keys, argv)
if appended.err then return appended end
redis.call('XACK', stream, group, id)
redis.call('ZREM', due, id)
sweep(stream, group, KEYS[3])
return appended
