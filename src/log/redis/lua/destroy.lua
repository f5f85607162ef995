-- Remove a group. KEYS: stream, wake, then what else belongs to the group. ARGV: group.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local gone = redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
redis.call('DEL', unpack(KEYS, 3))
-- Who waits learns of it.
if gone == 1 then wake(KEYS[2]) end
return gone
