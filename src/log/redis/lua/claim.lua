-- Claim. KEYS: stream, due, leaving, wake. ARGV: group, consumer, how many, visibility in ms, least idle time in ms. Answers as fetch does.
local stream, due, leaving, group, consumer = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
redis.call('XGROUP', 'CREATECONSUMER', stream, group, consumer)
if redis.call('EXISTS', leaving) == 1 then redis.call('SREM', leaving, consumer) end
local until_ms = number(now_ms() + ARGV[4])
local out = { -1 }
for _, held in ipairs(redis.call('XPENDING', stream, group, 'IDLE', ARGV[5], '-', '+', ARGV[3])) do
  local got = redeliver(stream, due, group, consumer, held[1], until_ms)
  got[4] = ''
  out[#out + 1] = got
end
if #out > 1 then
  sweep(stream, group, leaving)
  wake(KEYS[4])
end
return out
