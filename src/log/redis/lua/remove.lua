-- Remove a consumer. KEYS: stream, due, leaving, wake. ARGV: group, consumer.
-- DELCONSUMER would drop what it has pending: that is made due, and the consumer goes with the last of it.
local stream, due, group, consumer, count, from = KEYS[1], KEYS[2], ARGV[1], ARGV[2], 0, '-'
local now = number(now_ms())
while true do
  local page = redis.call('XPENDING', stream, group, from, '+', 500, consumer)
  for _, held in ipairs(page) do redis.call('ZADD', due, 'LT', now, held[1]) end
  count = count + #page
  if #page < 500 then break end
  from = '(' .. page[#page][1]
end
if count == 0 then
  redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
else
  redis.call('SADD', KEYS[3], consumer)
  wake(KEYS[4])
end
return count
