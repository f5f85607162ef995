-- Ack. KEYS: stream, due, leaving. ARGV: group, ids.
local stream, due, group, count = KEYS[1], KEYS[2], ARGV[1], 0
for from = 2, #ARGV, 1000 do
  local to = math.min(from + 999, #ARGV)
  count = count + redis.call('XACK', stream, group, unpack(ARGV, from, to))
  redis.call('ZREM', due, unpack(ARGV, from, to))
end
if count == 0 then need_group(stream, group) else sweep(stream, group, KEYS[3]) end
return count
