-- Remove a group. KEYS: stream, wake, meta, then what else belongs to the group. ARGV: group.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local gone = redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.call('DEL', unpack(KEYS, 4))
redis.call('HDEL', KEYS[3], counted(ARGV[1]))
-- Who waits learns of it.
if gone == 1 then wake(KEYS[2]) end
return gone
