-- Pending. KEYS: stream, due. ARGV: group, least idle time in ms, after which id, how many, then a consumer or nothing.
-- Answers the time, then id, consumer, idle time, attempt and due time or '' of each.
local out = { now_ms() }
for _, held in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '(' .. ARGV[3], '+', ARGV[4], unpack(ARGV, 5))) do
  out[#out + 1] = { held[1], held[2], held[3], held[4], redis.call('ZSCORE', KEYS[2], held[1]) or '' }
end
return out
