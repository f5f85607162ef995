-- Nack and extend. KEYS: stream, due, wake. ARGV: group, 'nack'|'extend', ms from now, then id and attempt of each.
local stream, due, group, count, sooner = KEYS[1], KEYS[2], ARGV[1], 0, false
need_group(stream, group)
local at_ms = number(now_ms() + ARGV[3])
for at = 4, #ARGV, 2 do
  local id = ARGV[at]
  local held = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if held and held[4] == tonumber(ARGV[at + 1]) then
    -- The idle time begins anew; XCLAIM would drop an entry that was trimmed.
    if ARGV[2] == 'extend' and #redis.call('XRANGE', stream, id, id) > 0 then
      redis.call('XCLAIM', stream, group, held[2], 0, id, 'JUSTID')
    end
    local was = redis.call('ZSCORE', due, id)
    if not was or tonumber(was) > tonumber(at_ms) then sooner = true end
    redis.call('ZADD', due, at_ms, id)
    count = count + 1
  end
end
if sooner then wake(KEYS[3]) end
return count
