-- Fetch. KEYS: stream, due, scan, leaving, meta. ARGV: group, consumer, how many, visibility in ms.
-- Answers in how many ms the next pending entry is due (-1: none is pending), then id, attempt, fields and due time of each entry.
local stream, due, scan, leaving, meta, group, consumer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1], ARGV[2]
local room, visibility = tonumber(ARGV[3]), tonumber(ARGV[4])
need_group(stream, group)
local now = now_ms()
local until_ms = number(now + visibility)

local info
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if flat[2] == group then info = named(flat) end
end

-- Entries that other programs took by a plain XREADGROUP are pending and not in `due`: they get a due time here, some hundreds a call.
if info['pending'] > redis.call('ZCARD', due) then
  local from = redis.call('GET', scan) or '-'
  for _ = 1, 10 do
    local page = redis.call('XPENDING', stream, group, from, '+', 100)
    if #page > 0 then
      local ids = {}
      for at, held in ipairs(page) do ids[at] = held[1] end
      local scores = redis.call('ZMSCORE', due, unpack(ids))
      for at, held in ipairs(page) do
        if not scores[at] then redis.call('ZADD', due, number(now - held[3] + visibility), held[1]) end
      end
      from = '(' .. ids[#ids]
    end
    if #page < 100 then
      from = '-'
      break
    end
  end
  if from == '-' then redis.call('DEL', scan) else redis.call('SET', scan, from, 'PX', 60000) end
end

if redis.call('EXISTS', leaving) == 1 then redis.call('SREM', leaving, consumer) end

local out = { -1 }
local ready = redis.call('ZRANGE', due, '-inf', number(now), 'BYSCORE', 'LIMIT', 0, room, 'WITHSCORES')
for at = 1, #ready, 2 do
  local got = redeliver(stream, due, group, consumer, ready[at], until_ms)
  if got then
    got[4] = ready[at + 1]
    out[#out + 1] = got
    room = room - 1
  end
end
if #ready > 0 then sweep(stream, group, leaving) end

if room > 0 then
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', stream, '>')
  if read then
    local entries = read[1][2]
    local scores = {}
    for _, entry in ipairs(entries) do
      scores[#scores + 1] = until_ms
      scores[#scores + 1] = entry[1]
      if #scores == 2000 then
        redis.call('ZADD', due, unpack(scores))
        scores = {}
      end
      out[#out + 1] = { entry[1], 1, entry[2], '' }
    end
    if #scores > 0 then redis.call('ZADD', due, unpack(scores)) end
    -- Redis counts what a group has read, but not what was trimmed before it did, and it does not write that count into its append-only file.
    -- Put right, and written, the lag is that of kept entries; what is not known to be right is not noted as such.
    local field, newest, total = counted(group), entries[#entries][1], nil
    local was_right = redis.call('HGET', meta, field) == info['last-delivered-id']
    if was_right and info['entries-read'] then total = info['entries-read'] + #entries end
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    local from_first = first and first[1] == entries[1][1]
    if from_first or not total then
      local of = named(redis.call('XINFO', 'STREAM', stream))
      if of['last-generated-id'] == newest then
        total = of['entries-added']
      elseif from_first and of['max-deleted-entry-id'] == '0-0' then
        total = of['entries-added'] - of['length'] + #entries
      end
    end
    if total then
      redis.call('XGROUP', 'SETID', stream, group, newest, 'ENTRIESREAD', number(total))
      redis.call('HSET', meta, field, newest)
    end
  end
end

if #out == 1 then
  -- Nothing was given: it was here all the same. Redis notes that for its own past only, of which there is none that late (the last id of all stands for new ones).
  redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', 1, 'STREAMS', stream, '18446744073709551615-18446744073709551614')
end
local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if next_due[2] then out[1] = math.max(0, tonumber(next_due[2]) - now) end
return out
